//! On the kernel, each test in a mount namespace of its own: a thread with its own root, current directory and umask.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::MsFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::umask;

use super::*;
use crate::plan::{
    Device, DeviceKind, FlagChange, IdMapping, IdMaps, Mount, MountAttributes, MountIdMap, MountKind, Namespace,
    Namespaces, Overlay, Root, Sysctl,
};
use crate::security::seccomp::Instruction;
use crate::sys::mount::attr;

/// Runs `test` with a copy of the mounts that nobody else sees and an empty tmpfs at /tmp.
fn in_own_namespace(test: impl FnOnce() + Send) {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let outcome = thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
            let none = None::<&str>;
            nix::mount::mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
            nix::mount::mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), none).unwrap();
            fs::create_dir("/tmp/root").unwrap();
            test();
        };
        scope.spawn(run).join()
    });
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Makes the calls that Linux 5.10 or a filter may lack fail with ENOSYS, for this thread.
fn without_new_calls(calls: &[libc::c_long]) {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let instruction = |code, jt, k| Instruction { code, jt, jf: 0, k };
    let mut program = vec![instruction(LOAD, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        program.push(instruction(IF_EQUAL, u8::try_from(calls.len() - at).unwrap(), u32::try_from(*call).unwrap()));
    }
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    crate::sys::seccomp::set_filter(&program, 0, false).unwrap();
}

const NEW_CALLS: [libc::c_long; 7] = [
    libc::SYS_openat2,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_clone3,
    libc::SYS_close_range,
];

/// A parent that has nobody else make an overlay.
fn no_fuse(_: Vec<u8>) -> Result<OwnedFd> {
    Err(Error::other("the kernel refuses the overlay"))
}

fn bind(destination: &str, source: &str, set: u64) -> Mount {
    let attributes = MountAttributes { top: FlagChange { set, clear: 0 }, recursive: FlagChange::default() };
    Mount {
        index: 0,
        destination: destination.into(),
        kind: MountKind::Bind { source: source.into(), recursive: true },
        attributes,
        superblock: FlagChange::default(),
        propagation: vec![],
        copy_up: false,
        id_map: None,
    }
}

fn file_system(destination: &str, fs_type: &str, data: &[&str], set: u64) -> Mount {
    let data = data.iter().map(|item| (*item).to_owned()).collect();
    let kind = MountKind::FileSystem { fs_type: fs_type.into(), source: fs_type.into(), data };
    Mount { kind, ..bind(destination, "", set) }
}

fn usual_mounts() -> Vec<Mount> {
    let none = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    vec![
        file_system("/proc", "proc", &[], none),
        file_system("/dev", "tmpfs", &["mode=755", "size=65536k"], attr::NOSUID | attr::STRICTATIME),
        file_system("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"], attr::NOSUID),
        file_system("/dev/shm", "tmpfs", &["mode=1777", "size=65536k"], none),
        file_system("/dev/mqueue", "mqueue", &[], none),
        file_system("/sys", "sysfs", &[], none | attr::RDONLY),
    ]
}

/// A plan with the root /tmp/root.
fn plan(mounts: Vec<Mount>) -> Plan {
    let mounts = mounts.into_iter().enumerate().map(|(index, mount)| Mount { index, ..mount }).collect();
    let namespaces = Namespaces { mount: Namespace::New, network: Namespace::New, ..Namespaces::default() };
    Plan {
        bundle: "/tmp".into(),
        annotations: Default::default(),
        hostname: None,
        domainname: None,
        root: Root { path: "/tmp/root".into(), readonly: false, propagation: None, overlay: None },
        mounts,
        namespaces,
        id_maps: IdMaps::default(),
        time_offsets: Default::default(),
        net_devices: vec![],
        devices: vec![],
        masked_paths: vec![],
        readonly_paths: vec![],
        sysctl: vec![],
        mount_label: None,
        personality: None,
        memory_policy: None,
        seccomp: None,
        cgroups_path: None,
        resources: Default::default(),
        hooks: Default::default(),
        process: None,
    }
}

/// All steps in init's order; afterwards `/` is the container's.
fn set_up(plan: &Plan) -> Result<()> {
    set_up_entering(plan, false)
}

fn set_up_entering(plan: &Plan, no_pivot: bool) -> Result<()> {
    let prepared = prepare(plan, None)?;
    set_propagation(plan)?;
    let mut rootfs = RootFs::mount_root(plan, &prepared, no_fuse)?;
    rootfs.mount_all(&CgroupView::default(), &prepared)?;
    rootfs.make_devices()?;
    rootfs.enter(no_pivot)?;
    rootfs.write_sysctls()?;
    rootfs.mask_paths()?;
    rootfs.protect_readonly_paths()?;
    rootfs.protect_root()?;
    rootfs.set_root_propagation()
}

fn refusal(plan: &Plan) -> String {
    set_up(plan).unwrap_err().to_string()
}

/// The line of mountinfo for the topmost mount at `path`.
fn mount_line(path: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
    line.unwrap_or_else(|| panic!("nothing is mounted at {path}:\n{text}")).to_owned()
}

fn write_is_refused(path: &str) -> bool {
    fs::write(path, "x").is_err_and(|error| error.raw_os_error() == Some(libc::EROFS))
}

/// What must be so whatever the kernel offers.
fn check_usual_container() {
    fs::create_dir_all("/tmp/volume").unwrap();
    fs::write("/tmp/volume/file", "of the host").unwrap();
    let mut mounts = usual_mounts();
    mounts.push(bind("/etc/file", "/tmp/volume/file", attr::RDONLY | attr::NOSUID));
    mounts.push(bind("/volume", "/tmp/volume", 0));
    mounts.push(file_system("/run", "tmpfs", &["mode=700"], attr::RDONLY));
    mounts.push(file_system("/run/below", "tmpfs", &[], 0));
    let mut plan = plan(mounts);
    plan.root.readonly = true;
    plan.masked_paths =
        ["/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware", "/missing"].map(PathBuf::from).into();
    plan.readonly_paths = ["/proc/sys", "/proc/sysrq-trigger", "/missing"].map(PathBuf::from).into();
    plan.sysctl =
        vec![Sysctl { key: "net.ipv4.ip_forward".into(), path: "net/ipv4/ip_forward".into(), value: "1".into() }];
    set_up(&plan).unwrap();

    assert!(!Path::new("/tmp/root").exists(), "the host's tree is still there");
    assert!(mount_line("/").contains(" ro,"));
    assert!(write_is_refused("/new"));
    assert!(mount_line("/proc").contains("rw,nosuid,nodev,noexec,relatime"));
    assert!(mount_line("/sys").contains("ro,nosuid,nodev,noexec,relatime"));
    assert_eq!(fs::read_to_string("/etc/file").unwrap(), "of the host");
    assert!(write_is_refused("/etc/file"));
    fs::write("/volume/file", "of the container").unwrap();
    assert!(mount_line("/run").contains(" ro,"));
    fs::write("/run/below/file", "").unwrap();
    assert_eq!(fs::metadata("/run").unwrap().mode() & 0o7777, 0o700);

    let null = fs::metadata("/dev/null").unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o7777), (nix::sys::stat::makedev(1, 3), 0o666));
    assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
    assert_eq!(fs::read_link("/dev/stderr").unwrap(), Path::new("/proc/self/fd/2"));

    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
    assert!(write_is_refused("/proc/sys/net/ipv4/ip_forward"));
    assert!(mount_line("/proc/sys").contains("ro,nosuid,nodev,noexec"));
    assert_eq!(fs::read("/proc/timer_list").unwrap(), b"");
    if Path::new("/sys/firmware").exists() {
        assert_eq!(fs::read_dir("/sys/firmware").unwrap().count(), 0);
    }
}

#[test]
fn a_usual_container_gets_its_file_system() {
    in_own_namespace(check_usual_container);
}

#[test]
fn a_usual_container_needs_none_of_the_new_system_calls() {
    in_own_namespace(|| {
        without_new_calls(&NEW_CALLS);
        check_usual_container();
    });
}

#[test]
fn a_usual_container_runs_on_linux_5_10() {
    in_own_namespace(|| {
        without_new_calls(&[libc::SYS_mount_setattr]);
        check_usual_container();
    });
}

#[test]
fn without_pivot_root_the_root_is_moved() {
    in_own_namespace(|| {
        let plan = plan(usual_mounts());
        let prepared = prepare(&plan, None).unwrap();
        set_propagation(&plan).unwrap();
        let mut rootfs = RootFs::mount_root(&plan, &prepared, no_fuse).unwrap();
        rootfs.mount_all(&CgroupView::default(), &prepared).unwrap();
        rootfs.enter(true).unwrap();
        assert!(!Path::new("/tmp/root").exists());
        assert!(mount_line("/proc").contains(" proc "));
    });
}

#[test]
fn nothing_is_mounted_on_the_host() {
    in_own_namespace(|| {
        // What is shared with others, as on a host with systemd, and a container that wants it so.
        let none = None::<&str>;
        nix::mount::mount(none, "/", none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).unwrap();
        let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let kinds = [None, Some(PropagationKind::Shared), Some(PropagationKind::Slave), Some(PropagationKind::Private)];
        for (kind, no_pivot) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            thread::scope(|scope| {
                scope.spawn(|| {
                    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
                    let mut plan = plan(usual_mounts());
                    plan.root.propagation = kind.map(|kind| Propagation { kind, recursive: true });
                    set_up_entering(&plan, no_pivot).unwrap();
                    let has = mount_line("/");
                    assert_eq!(has.contains("shared:"), kind == Some(PropagationKind::Shared), "{has}");
                });
            });
            let after = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            assert_eq!(after, before, "{kind:?}, no_pivot {no_pivot}");
        }
    });
}

#[test]
fn nothing_is_mounted_over_the_proc_of_others() {
    // Whether something was mounted in a mount namespace meanwhile: poll(2) on mountinfo.
    let changed = |mount_namespace| {
        let mut changed = false;
        in_own_namespace(|| {
            without_new_calls(&NEW_CALLS);
            let mut plan = plan(vec![]);
            plan.namespaces.mount = mount_namespace;
            let rootfs = RootFs::mount_root(&plan, &Prepared::default(), no_fuse).unwrap();
            let mountinfo = fs::File::open("/proc/thread-self/mountinfo").unwrap();
            rootfs.mount_all(&CgroupView::default(), &Prepared::default()).unwrap();
            let mut fds = [PollFd::new(mountinfo.as_fd(), PollFlags::POLLPRI)];
            changed = poll(&mut fds, PollTimeout::ZERO).unwrap() == 1;
        });
        changed
    };
    if nix::unistd::Uid::effective().is_root() {
        assert!(changed(Namespace::New));
        assert!(!changed(Namespace::Inherit));
        assert!(!changed(Namespace::Join("/proc/1/ns/mnt".into())));
    }
}

#[test]
fn an_unbindable_root_cannot_be_bound() {
    in_own_namespace(|| {
        let mut plan = plan(usual_mounts());
        plan.root.propagation = Some(Propagation { kind: PropagationKind::Unbindable, recursive: false });
        set_up(&plan).unwrap();
        let none = None::<&str>;
        let bound = nix::mount::mount(Some("/"), "/dev/shm", none, MsFlags::MS_BIND, none);
        assert_eq!(bound, Err(Errno::EINVAL));
    });
}

#[test]
fn a_link_at_proc_or_dev_is_refused() {
    // CVE-2019-19921, CVE-2025-54867, CVE-2026-41579.
    for name in ["proc", "sys", "dev"] {
        in_own_namespace(|| {
            let plan = plan(usual_mounts());
            fs::create_dir_all("/tmp/root/elsewhere").unwrap();
            symlink("/elsewhere", format!("/tmp/root/{name}")).unwrap();
            let refused = refusal(&plan);
            assert!(refused.contains("symbolic link"), "{refused}");
        });
    }
}

#[test]
fn only_a_procfs_covers_proc() {
    // CVE-2019-16884.
    for (destination, links) in [
        ("/proc", &[][..]),
        ("/proc/self", &[]),
        ("/proc/../proc/sys/kernel", &[]),
        ("/data", &[("data", "proc")]),
        ("/data/attr", &[("data", "/proc/self")]),
        ("/", &[]),
        ("/data", &[("data", "..")]),
    ] {
        in_own_namespace(|| {
            let mut mounts = usual_mounts();
            mounts.push(file_system(destination, "tmpfs", &[], 0));
            let plan = plan(mounts);
            for (name, target) in links {
                symlink(target, format!("/tmp/root/{name}")).unwrap();
            }
            let refused = refusal(&plan);
            assert!(refused.contains("mounts[6].destination"), "{destination} {links:?}: {refused}");
        });
    }
}

#[test]
fn some_files_of_proc_may_be_replaced() {
    in_own_namespace(|| {
        fs::write("/tmp/uptime", "of lxcfs").unwrap();
        let mut mounts = usual_mounts();
        mounts.push(bind("/proc/uptime", "/tmp/uptime", 0));
        mounts.push(bind("/proc", "/proc", 0));
        set_up(&plan(mounts)).unwrap();
        assert!(mount_line("/proc").contains(" proc "));
    });
}

#[test]
fn sysctl_is_written_below_what_covers_it() {
    in_own_namespace(|| {
        let mut mounts = usual_mounts();
        fs::write("/tmp/fake", "0").unwrap();
        mounts.push(bind("/proc/sys/kernel/ns_last_pid", "/tmp/fake", 0));
        let mut plan = plan(mounts);
        let path = "net/ipv4/ip_default_ttl".to_owned();
        plan.sysctl = vec![Sysctl { key: "net.ipv4.ip_default_ttl".into(), path, value: "77".into() }];
        set_up(&plan).unwrap();
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), "77\n");
    });
}

#[test]
fn an_unknown_sysctl_is_named() {
    in_own_namespace(|| {
        let mut plan = plan(usual_mounts());
        plan.sysctl = vec![Sysctl { key: "net.nonsense".into(), path: "net/nonsense".into(), value: "1".into() }];
        let refused = refusal(&plan);
        assert!(refused.contains("linux.sysctl[\"net.nonsense\"]: enoent") || refused.contains("no such"), "{refused}");
    });
}

#[test]
fn a_tmpfs_over_a_directory_keeps_its_mode() {
    in_own_namespace(|| {
        let plan = plan(vec![file_system("/there", "tmpfs", &[], 0), file_system("/new", "tmpfs", &[], 0)]);
        fs::create_dir("/tmp/root/there").unwrap();
        fs::set_permissions("/tmp/root/there", fs::Permissions::from_mode(0o711)).unwrap();
        set_up(&plan).unwrap();
        assert_eq!(fs::metadata("/there").unwrap().mode() & 0o7777, 0o711);
        assert_eq!(fs::metadata("/new").unwrap().mode() & 0o7777, 0o1777);
    });
}

#[test]
fn tmpcopyup_copies_what_is_below() {
    in_own_namespace(|| {
        let mut mount = file_system("/data", "tmpfs", &[], attr::RDONLY);
        mount.copy_up = true;
        let plan = plan(vec![mount]);
        fs::create_dir_all("/tmp/root/data/a/b").unwrap();
        fs::write("/tmp/root/data/a/b/file", vec![7; 100_000]).unwrap();
        fs::set_permissions("/tmp/root/data/a/b/file", fs::Permissions::from_mode(0o4751)).unwrap();
        std::os::unix::fs::chown("/tmp/root/data/a", Some(12), Some(34)).unwrap();
        symlink("/etc/shadow", "/tmp/root/data/link").unwrap();
        set_up(&plan).unwrap();
        assert_eq!(fs::read("/data/a/b/file").unwrap(), vec![7; 100_000]);
        assert_eq!(fs::metadata("/data/a/b/file").unwrap().mode() & 0o7777, 0o4751);
        let owner = fs::metadata("/data/a").unwrap();
        assert_eq!((owner.uid(), owner.gid()), (12, 34));
        assert_eq!(fs::read_link("/data/link").unwrap(), Path::new("/etc/shadow"));
        assert!(write_is_refused("/data/new"));
    });
}

#[test]
fn read_only_reaches_submounts_only_with_rro() {
    for (recursive, below_is_ro) in [(false, false), (true, true)] {
        in_own_namespace(|| {
            fs::create_dir_all("/tmp/volume/below").unwrap();
            let none = None::<&str>;
            nix::mount::mount(none, "/tmp/volume/below", Some("tmpfs"), MsFlags::empty(), none).unwrap();
            let mut mount = bind("/volume", "/tmp/volume", 0);
            let change = FlagChange { set: attr::RDONLY, clear: 0 };
            match recursive {
                true => mount.attributes.recursive = change,
                false => mount.attributes.top = change,
            }
            set_up(&plan(vec![mount])).unwrap();
            assert!(write_is_refused("/volume/file"));
            assert_eq!(write_is_refused("/volume/below/file"), below_is_ro);
        });
    }
}

#[test]
fn what_needs_mount_setattr_is_refused_by_name() {
    in_own_namespace(|| {
        without_new_calls(&NEW_CALLS);
        let mut mount = bind("/volume", "/tmp", 0);
        mount.attributes.recursive.set = attr::RDONLY;
        let refused = refusal(&plan(vec![mount]));
        assert!(refused.contains("mounts[0]: recursive attributes (rro, "), "{refused}");

        let mut mount = bind("/volume", "/tmp", 0);
        mount.id_map = Some(MountIdMap { recursive: false, maps: Some(shifted_maps()) });
        let refused = refusal(&plan(vec![mount]));
        assert!(refused.contains("mounts[0]: id-mapped mounts need mount_setattr(2)"), "{refused}");
    });
}

fn shifted_maps() -> IdMaps {
    let map = vec![IdMapping { container: 0, host: 100_000, size: 1000 }];
    IdMaps { uid: map.clone(), gid: map }
}

#[test]
fn an_id_mapped_source_shows_other_owners() {
    in_own_namespace(|| {
        fs::create_dir_all("/tmp/volume").unwrap();
        fs::write("/tmp/volume/file", "").unwrap();
        std::os::unix::fs::chown("/tmp/volume/file", Some(7), Some(8)).unwrap();
        let mut mount = bind("/volume", "/tmp/volume", 0);
        mount.id_map = Some(MountIdMap { recursive: false, maps: Some(shifted_maps()) });
        set_up(&plan(vec![mount])).unwrap();
        let file = fs::metadata("/volume/file").unwrap();
        assert_eq!((file.uid(), file.gid()), (100_007, 100_008));
    });
}

#[test]
fn the_parent_opens_what_the_user_namespace_cannot() {
    in_own_namespace(|| {
        fs::create_dir_all("/tmp/closed/volume").unwrap();
        fs::set_permissions("/tmp/closed", fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir("/tmp/open").unwrap();
        let mut shown_as_container = bind("/mapped", "/tmp/open", 0);
        shown_as_container.id_map = Some(MountIdMap { recursive: false, maps: None });
        let mut plan =
            plan(vec![bind("/closed", "/tmp/closed/volume", 0), bind("/open", "/tmp/open", 0), shown_as_container]);
        plan.namespaces.user = Namespace::New;
        plan.id_maps = shifted_maps();
        let mut prepared = prepare(&plan, None).unwrap();
        assert_eq!(prepared.awaited(), [0, 2]);

        let user_ns = mount::user_ns("0 100000 1000", "0 100000 1000").unwrap();
        let opened = prepare_late(&plan, prepared.awaited(), nix::unistd::gettid(), user_ns.as_fd()).unwrap();
        prepared.take(opened);
        assert_eq!((prepared.descriptors().count(), prepared.awaited()), (2, &[][..]));
        let opened = mount::stat(prepared.source(0).unwrap()).unwrap();
        assert!(opened.is_same_file(&mount::stat_at(AT_FDCWD, "/tmp/closed/volume").unwrap()));
        assert_eq!(mount::stat(prepared.source(2).unwrap()).unwrap().uid, 100_000);
    });
}

#[test]
fn a_mount_can_be_changed_by_remount() {
    in_own_namespace(|| {
        let mut mounts = usual_mounts();
        let remount = |destination, set, data: &[&str]| {
            let data = data.iter().map(|item| (*item).to_owned()).collect();
            Mount { kind: MountKind::Remount { data }, ..bind(destination, "", set) }
        };
        mounts.push(remount("/dev/shm", attr::RDONLY, &[]));
        mounts.push(remount("/dev", 0, &["size=32768k"]));
        set_up(&plan(mounts)).unwrap();
        assert!(mount_line("/dev/shm").contains("ro,nosuid,nodev,noexec"));
        assert!(mount_line("/dev").contains("rw,nosuid - tmpfs tmpfs rw,size=32768k"), "{}", mount_line("/dev"));
    });
}

#[test]
fn the_kernel_says_which_option_it_does_not_know() {
    in_own_namespace(|| {
        let refused = refusal(&plan(vec![file_system("/data", "tmpfs", &["sise=1k"], 0)]));
        assert_eq!(refused, "mount tmpfs on /data: mounts[0]: invalid argument: tmpfs: Unknown parameter 'sise'");
        let refused = refusal(&plan(vec![file_system("/data", "nonsensefs", &[], 0)]));
        assert!(refused.contains("unknown file system type \"nonsensefs\""), "{refused}");
    });
}

#[test]
fn superblock_flags_reach_the_superblock() {
    in_own_namespace(|| {
        let mut mount = file_system("/data", "tmpfs", &[], 0);
        mount.superblock.set = libc::MS_SYNCHRONOUS | libc::MS_DIRSYNC | libc::MS_LAZYTIME;
        let mut silent = file_system("/silent", "tmpfs", &[], attr::NOEXEC);
        silent.superblock.set = libc::MS_SILENT | libc::MS_I_VERSION;
        set_up(&plan(vec![file_system("/proc", "proc", &[], 0), mount, silent])).unwrap();
        assert!(mount_line("/data").contains("rw,sync,dirsync,lazytime"), "{}", mount_line("/data"));
        assert!(mount_line("/silent").contains("noexec"));
    });
}

#[test]
fn a_device_may_not_replace_another_file() {
    in_own_namespace(|| {
        let mut plan = plan(vec![]);
        let device = |path: &str| Device {
            index: 2,
            path: path.into(),
            kind: DeviceKind::Char,
            major: 1,
            minor: 5,
            mode: Some(0o620),
            uid: Some(3),
            gid: Some(4),
        };
        plan.devices = vec![device("/dev/own"), device("/opt/deep/own")];
        umask(Mode::from_bits_truncate(0o077));
        set_up(&plan).unwrap();
        for path in ["/dev/own", "/opt/deep/own"] {
            let made = fs::metadata(path).unwrap();
            assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o620, 3, 4), "{path}");
        }
    });
    in_own_namespace(|| {
        let mut plan = plan(vec![]);
        let (kind, mode) = (DeviceKind::Char, None);
        plan.devices =
            vec![Device { index: 2, path: "/opt".into(), kind, major: 1, minor: 5, mode, uid: None, gid: None }];
        fs::write("/tmp/root/opt", "").unwrap();
        let refused = refusal(&plan);
        assert!(refused.contains("linux.devices[2].path: file exists"), "{refused}");
    });
}

#[test]
fn the_null_device_of_an_image_is_no_mask() {
    // CVE-2025-31133.
    in_own_namespace(|| {
        let mut plan = plan(vec![file_system("/proc", "proc", &[], 0)]);
        plan.masked_paths = vec!["/secret".into()];
        fs::write("/tmp/root/secret", "secret").unwrap();
        fs::create_dir("/tmp/root/dev").unwrap();
        symlink("/proc/sys/kernel/hostname", "/tmp/root/dev/null").unwrap();
        let refused = refusal(&plan);
        assert!(refused.contains("/dev/null in the root file system is a symbolic link"), "{refused}");
    });
    in_own_namespace(|| {
        // A volume at /dev, where no device is made.
        fs::create_dir("/tmp/dev").unwrap();
        fs::write("/tmp/dev/null", "not null").unwrap();
        let mut plan = plan(vec![file_system("/proc", "proc", &[], 0), bind("/dev", "/tmp/dev", 0)]);
        plan.masked_paths = vec!["/secret".into()];
        fs::write("/tmp/root/secret", "secret").unwrap();
        set_up(&plan).unwrap();
        assert_eq!(fs::read("/secret").unwrap(), b"");
    });
}

#[test]
fn a_terminal_is_not_bound_over_a_link() {
    // CVE-2025-52565, CVE-2026-88264.
    for (is_link, is_accepted, is_new) in
        [(false, true, true), (true, false, true), (false, true, false), (true, false, false)]
    {
        in_own_namespace(|| {
            if !is_new {
                without_new_calls(&NEW_CALLS);
            }
            let plan = plan(vec![file_system("/proc", "proc", &[], 0)]);
            fs::create_dir("/tmp/root/dev").unwrap();
            if is_link {
                fs::write("/tmp/root/target", "").unwrap();
                symlink("/target", "/tmp/root/dev/console").unwrap();
            }
            let prepared = prepare(&plan, None).unwrap();
            set_propagation(&plan).unwrap();
            let mut rootfs = RootFs::mount_root(&plan, &prepared, no_fuse).unwrap();
            rootfs.mount_all(&CgroupView::default(), &prepared).unwrap();
            rootfs.make_devices().unwrap();
            rootfs.enter(false).unwrap();
            let null = fs::File::open("/dev/null").unwrap();
            assert_eq!(rootfs.bind_console(null.as_fd()).is_ok(), is_accepted);
            assert_eq!(fs::metadata("/dev/console").unwrap().file_type().is_char_device(), is_accepted);
        });
    }
}

fn overlay_of(layers: &[PathBuf]) -> Plan {
    let mut plan = plan(vec![file_system("/proc", "proc", &[], 0)]);
    plan.root.overlay = Some(Overlay { lower: layers.to_vec(), upper: None, id_mapped: false, is_by_fuse: false });
    plan
}

fn check_overlay() {
    // Names that need quoting in option strings, and one that is longer than fsconfig(2) takes.
    let mut layers: Vec<PathBuf> = (0..98).map(|at| PathBuf::from(format!("/tmp/layers/{at}"))).collect();
    layers.push("/tmp/layers/a:b,c\\d=e".into());
    layers.push(format!("/tmp/layers/{}/{}", "x".repeat(200), "y".repeat(200)).into());
    for (at, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer).unwrap();
        fs::write(layer.join(format!("file{at}")), "").unwrap();
        fs::write(layer.join("common"), at.to_string()).unwrap();
    }
    std::os::unix::fs::chown(&layers[0], Some(5), Some(6)).unwrap();
    let plan = overlay_of(&layers);
    thread::scope(|scope| {
        let container = || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            set_up(&plan).unwrap();
            assert!(mount_line("/").contains(" overlay "));
            assert_eq!(fs::read_to_string("/common").unwrap(), "0", "the first is the topmost");
            assert!((0..100).all(|at| Path::new(&format!("/file{at}")).exists()));
            assert_eq!(fs::metadata("/").unwrap().uid(), 5);
            fs::write("/common", "changed").unwrap();
            fs::remove_file("/file99").unwrap();
        };
        scope.spawn(container).join().unwrap();
    });
    assert_eq!(fs::read_to_string("/tmp/layers/0/common").unwrap(), "0");
    assert!(layers[99].join("file99").exists());
    assert_eq!(fs::read_dir("/tmp/root").unwrap().count(), 0, "nothing is left in the root's directory");
}

#[test]
fn an_overlay_takes_any_path_and_100_layers() {
    in_own_namespace(check_overlay);
}

#[test]
fn an_overlay_needs_none_of_the_new_system_calls() {
    in_own_namespace(|| {
        without_new_calls(&NEW_CALLS);
        check_overlay();
    });
}

#[test]
fn an_overlay_is_made_detached_for_a_user_namespace() {
    for build in [overlay::build_detached, overlay::build_in_passing_namespace] {
        in_own_namespace(|| {
            fs::create_dir_all("/tmp/layer/sub").unwrap();
            let plan = overlay_of(&["/tmp/layer".into()]);
            let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let mut prepared = Prepared::default();
            prepared.overlay = Some(build(&plan, plan.root.overlay.as_ref().unwrap()).unwrap());
            assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), before);
            set_propagation(&plan).unwrap();
            let mut rootfs = RootFs::mount_root(&plan, &prepared, no_fuse).unwrap();
            rootfs.enter(false).unwrap();
            fs::write("/sub/file", "").unwrap();
        });
    }
}

#[test]
fn an_overlay_keeps_an_upper_directory() {
    in_own_namespace(|| {
        for name in ["lower", "upper", "work"] {
            fs::create_dir(format!("/tmp/{name}")).unwrap();
        }
        let mut plan = overlay_of(&["/tmp/lower".into()]);
        let upper = Some(("/tmp/upper".into(), "/tmp/work".into()));
        plan.root.overlay =
            Some(Overlay { lower: vec!["/tmp/lower".into()], upper, id_mapped: false, is_by_fuse: false });
        thread::scope(|scope| {
            let container = || {
                unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
                set_up(&plan).unwrap();
                fs::write("/kept", "kept").unwrap();
            };
            scope.spawn(container).join().unwrap();
        });
        assert_eq!(fs::read_to_string("/tmp/upper/kept").unwrap(), "kept");
    });
}

#[test]
fn cgroup_hierarchies_are_bound() {
    in_own_namespace(|| {
        for name in ["memory", "cpu,cpuacct"] {
            fs::create_dir_all(format!("/tmp/cgroups/{name}/own")).unwrap();
        }
        let hierarchy = |name: &str, links: &[&str]| Hierarchy {
            mount_point: format!("/tmp/cgroups/{name}").into(),
            name: name.into(),
            links: links.iter().map(|link| (*link).to_owned()).collect(),
            cgroup: format!("/tmp/cgroups/{name}/own").into(),
        };
        let hierarchies = vec![hierarchy("memory", &[]), hierarchy("cpu,cpuacct", &["cpu", "cpuacct"])];
        let view = CgroupView { v2: false, hierarchies };
        let mut mounts = usual_mounts();
        let kind = MountKind::Cgroup { data: vec![] };
        mounts.push(Mount { kind, ..bind("/sys/fs/cgroup", "", attr::RDONLY | attr::NOEXEC) });
        let plan = plan(mounts);
        let prepared = prepare(&plan, None).unwrap();
        set_propagation(&plan).unwrap();
        let mut rootfs = RootFs::mount_root(&plan, &prepared, no_fuse).unwrap();
        rootfs.mount_all(&view, &prepared).unwrap();
        rootfs.enter(false).unwrap();
        assert!(write_is_refused("/sys/fs/cgroup/memory/file"));
        assert!(write_is_refused("/sys/fs/cgroup/file"));
        assert_eq!(fs::read_link("/sys/fs/cgroup/cpu").unwrap(), Path::new("cpu,cpuacct"));
        assert!(mount_line("/sys/fs/cgroup/memory").contains(" /cgroups/memory/own "));
    });
}

#[test]
fn destinations_are_made_inside_the_root() {
    in_own_namespace(|| {
        fs::create_dir("/tmp/outside").unwrap();
        fs::write("/tmp/file", "").unwrap();
        let plan = plan(vec![
            file_system("/var/run/made", "tmpfs", &[], 0),
            file_system("/escape/made", "tmpfs", &[], 0),
            bind("/up/file", "/tmp/file", 0),
        ]);
        fs::create_dir("/tmp/root/var").unwrap();
        symlink("/run", "/tmp/root/var/run").unwrap();
        symlink("/tmp/outside", "/tmp/root/escape").unwrap();
        symlink("../../../../tmp/outside", "/tmp/root/up").unwrap();
        let prepared = prepare(&plan, None).unwrap();
        set_propagation(&plan).unwrap();
        let rootfs = RootFs::mount_root(&plan, &prepared, no_fuse).unwrap();
        rootfs.mount_all(&CgroupView::default(), &prepared).unwrap();
        assert_eq!(fs::read_dir("/tmp/outside").unwrap().count(), 0);
        for made in ["run/made", "tmp/outside/made", "tmp/outside/file"] {
            assert!(Path::new("/tmp/root").join(made).exists(), "{made}");
        }
    });
}

#[test]
fn propagation_is_private_unless_something_needs_more() {
    let table: [(Option<PropagationKind>, &[PropagationKind], PropagationKind); 6] = [
        (None, &[], PropagationKind::Private),
        (None, &[PropagationKind::Private], PropagationKind::Private),
        (None, &[PropagationKind::Slave], PropagationKind::Slave),
        (Some(PropagationKind::Shared), &[], PropagationKind::Shared),
        (Some(PropagationKind::Slave), &[], PropagationKind::Slave),
        (Some(PropagationKind::Unbindable), &[PropagationKind::Slave], PropagationKind::Private),
    ];
    for (root, mounts, expected) in table {
        let mounted = |kind: &PropagationKind| {
            let propagation = vec![Propagation { kind: *kind, recursive: true }];
            Mount { propagation, ..bind("/volume", "/", 0) }
        };
        let mut plan = plan(mounts.iter().map(mounted).collect());
        plan.root.propagation = root.map(|kind| Propagation { kind, recursive: true });
        assert_eq!(base_propagation(&plan).kind, expected, "{root:?} {mounts:?}");
    }
}
