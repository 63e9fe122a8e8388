//! What attackers did to container runtimes, and what must come of it here.
//!
//! Untrusted are the image, every volume, and every process that is already in the container. Each test builds such an
//! image or runs such a process and looks at the host afterwards. The names are those of the advisories.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::{Bundle, Context, Lines, Outcome, Peer, Run, Test, Value, eventually, json};
use crate::{check, check_eq, sys};

pub const TESTS: &[Test] = &[
    Test { name: "cve_2016_9962_ptrace_fd_spy", run: ptrace_fd_spy },
    Test { name: "cve_2019_5736_exe_overwrite", run: exe_overwrite },
    Test { name: "cve_2019_5736_exe_overwrite_with_sys_admin", run: exe_overwrite_with_sys_admin },
    Test { name: "cve_2019_5736_exe_overwrite_by_a_script", run: exe_overwrite_by_a_script },
    Test { name: "cve_2019_5736_waiting_init_is_not_the_hosts_binary", run: waiting_init_is_sealed },
    Test { name: "cve_2019_5736_sealed_in_every_way", run: sealed_in_every_way },
    Test { name: "cve_2019_16884_mount_over_proc", run: mount_over_proc },
    Test { name: "cve_2019_19921_proc_symlink", run: proc_symlink },
    Test { name: "cve_2019_19921_proc_link_race", run: proc_link_race },
    Test { name: "cve_2025_54867_sys_symlink", run: sys_symlink },
    Test { name: "cve_2021_30465_45310_mkdir_race", run: mkdir_race },
    Test { name: "cve_2024_45310_file_race", run: file_race },
    Test { name: "cve_2021_43784_long_namespace_path", run: long_namespace_path },
    Test { name: "cve_2021_43784_many_id_maps", run: many_id_maps },
    Test { name: "cve_2022_0492_release_agent", run: release_agent },
    Test { name: "cve_2022_29162_exec_inheritable", run: exec_inheritable },
    Test { name: "cve_2024_21626_cwd_fd", run: cwd_fd },
    Test { name: "cve_2024_21626_args_fd", run: args_fd },
    Test { name: "cve_2024_21626_cwd_link", run: cwd_link },
    Test { name: "cve_2024_21626_exec_cwd_fd", run: exec_cwd_fd },
    Test { name: "cve_2024_21626_exec_cwd_preserved", run: exec_cwd_preserved },
    Test { name: "cve_2024_21626_exec_cwd_race", run: exec_cwd_race },
    Test { name: "fd_leak_inherited", run: fd_leak_inherited },
    Test { name: "fd_leak_of_the_waiting_init", run: fd_leak_of_the_waiting_init },
    Test { name: "cve_2025_31133_devnull_mask", run: devnull_mask },
    Test { name: "cve_2025_31133_race", run: devnull_race },
    Test { name: "cve_2025_52565_console_symlink", run: console_symlink },
    Test { name: "cve_2025_52565_pts_symlink", run: pts_symlink },
    Test { name: "cve_2026_30892_exec_user_parse", run: exec_user_parse },
    Test { name: "cve_2026_41579_47766_dev_symlink", run: dev_symlink },
    Test { name: "cve_2026_88264_console_nodev", run: console_nodev },
    Test { name: "cve_2026_88265_stdio_devnull_chown", run: stdio_devnull_chown },
    Test { name: "volume_symlink_stays_inside", run: volume_symlink },
    Test { name: "sysctl_key_traversal", run: sysctl_key_traversal },
    Test { name: "sysctl_of_the_host", run: sysctl_of_the_host },
    Test { name: "cgroups_path_traversal", run: cgroups_path_traversal },
    Test { name: "exec_cgroup_traversal", run: exec_cgroup_traversal },
    Test { name: "id_validation", run: id_validation },
    Test { name: "id_longest", run: id_longest },
    Test { name: "hooks_env", run: hooks_env },
    Test { name: "passwd_fifo_hang", run: passwd_fifo },
    Test { name: "passwd_link_out_of_the_root", run: passwd_link },
    Test { name: "passwd_over_a_mebibyte", run: passwd_large },
    Test { name: "passwd_directory", run: passwd_directory },
    Test { name: "passwd_device", run: passwd_device },
    Test { name: "terminal_no_ctty", run: no_controlling_terminal },
    Test { name: "nnp_seccomp_umask_groups", run: nnp_seccomp_umask_groups },
];

/// The same test for another binary, so that nothing can happen to the real one.
fn with_runtime(ctx: &Context, runtime: PathBuf) -> Context {
    Context {
        runtime,
        peer: ctx.peer,
        version: ctx.version.clone(),
        guest: ctx.guest.clone(),
        name: ctx.name.clone(),
        dir: ctx.dir.clone(),
        root: ctx.root.clone(),
        cgroup_parent: ctx.cgroup_parent.clone(),
        cgroups: ctx.cgroups.clone(),
        patience: ctx.patience,
        filter: ctx.filter.clone(),
        user: AtomicU32::new(0),
        systemd: AtomicBool::new(false),
        counter: AtomicU32::new(ctx.next() + 1000),
    }
}

/// Writes what [`crate::attacker`] waits for.
fn stop_attack(bundle: &Bundle<'_>) -> Outcome {
    Ok(fs::write(bundle.rootfs.join("tmp/stop"), "")?)
}

/// A directory on the host that no container was given, with one file in it.
fn host_dir(ctx: &Context) -> Outcome<PathBuf> {
    let dir = ctx.new_dir("host")?;
    fs::write(dir.join("kept"), "of the host")?;
    Ok(dir)
}

fn untouched(dir: &Path) -> Outcome {
    let mut names: Vec<_> = fs::read_dir(dir)?.flatten().map(|e| e.file_name()).collect();
    names.sort();
    check_eq!(names, ["kept"], "entries of the host's directory {}", dir.display());
    check_eq!(fs::read_to_string(dir.join("kept"))?, "of the host", "content of the host's file");
    let meta = fs::metadata(dir)?;
    check_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o755), "owner and mode of the host's directory");
    Ok(())
}

// ---- the runtime's own binary -------------------------------------------------------------------------------------

/// Runs `attack exe-overwrite` as init while the runtime executes itself by `exec`, in several ways.
fn overwrite(ctx: &Context, privileged: bool, program: &str) -> Outcome {
    let copy = ctx.dir.join("victim");
    fs::copy(&ctx.runtime, &copy)?;
    let before = fs::read(&copy)?;
    let ctx = &with_runtime(ctx, copy.clone());
    let mut bundle = ctx.bundle()?;
    if privileged {
        bundle.privileged();
    }
    bundle.executable("/bin/script", "#!/proc/self/exe\n")?;
    symlink("/proc/self/exe", bundle.rootfs.join("bin/link"))?;
    // Opening its state waits for a writer who never comes: the runtime stays long enough to be seized.
    bundle.directory("/tmp/root/id")?;
    for file in ["state.json", "status"] {
        mknod(&bundle.rootfs.join("tmp/root/id").join(file), SFlag::S_IFIFO, Mode::from_bits_truncate(0o666), 0)?;
    }
    bundle.guest(&["ready", ",", "attack", "exe-overwrite"]);
    let mut container = bundle.start()?;
    container.hear("ready")?;
    for _ in 0..3 {
        // However it ends: the attacker kills it.
        container.exec_command(&[], &[program, "--root", "/tmp/root", "state", "id"]).run()?;
        container.exec_command(&[], &[program]).run()?;
    }
    stop_attack(&bundle)?;
    let attack = container.hear("attack")?;
    check!(fs::read(&copy)? == before, "the runtime's binary was overwritten: {attack}");
    // Without CAP_SYS_PTRACE only what runs in the container as its program can be seized: a dynamic binary finds no libraries.
    let visible = privileged || ctx.peer == Peer::Kelson;
    check!(
        !visible || attack["seized"].as_u64() > Some(0),
        "the attack did not see the runtime, the test shows nothing: {attack}"
    );
    check_eq!(attack["written"], json!(0), "descriptors of the runtime's binary that could be written ({attack})");
    Ok(())
}

fn exe_overwrite(ctx: &Context) -> Outcome {
    overwrite(ctx, false, "/bin/link")
}

fn exe_overwrite_with_sys_admin(ctx: &Context) -> Outcome {
    overwrite(ctx, true, "/proc/self/exe")
}

fn exe_overwrite_by_a_script(ctx: &Context) -> Outcome {
    overwrite(ctx, true, "/bin/script")
}

/// Between create and start the runtime's own process waits inside the container.
fn waiting_init_is_sealed(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    executes_no_host_file(ctx, bundle.create()?.pid()?)
}

/// A read-only bind mount is the file itself: whoever has CAP_SYS_ADMIN can clear the flag.
fn executes_no_host_file(ctx: &Context, pid: i32) -> Outcome {
    let exe = fs::metadata(format!("/proc/{pid}/exe"))?;
    let own = fs::metadata(&ctx.runtime)?;
    check!((exe.dev(), exe.ino()) != (own.dev(), own.ino()), "init in the container executes the host's file itself");
    // Nor is the host's file reached through what is mapped of it.
    let own = format!(" {} ", own.ino());
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let host = format!("{:02x}:{:02x}", libc::major(exe_device(ctx)?), libc::minor(exe_device(ctx)?));
    let mapped = maps.lines().find(|line| line.contains(&own) && line.contains(&host));
    check!(mapped.is_none(), "init in the container has the host's file mapped: {mapped:?}");
    Ok(())
}

fn exe_device(ctx: &Context) -> Outcome<u64> {
    Ok(fs::metadata(&ctx.runtime)?.dev())
}

/// What the kernel, or a filter around the runtime, does not have must not open it to its containers.
fn sealed_in_every_way(ctx: &Context) -> Outcome {
    // PR_SET_MM: the process cannot change its executable, and is executed again.
    const PR_SET_MM: u32 = 35;
    for filter in [
        sys::denying(libc::SYS_prctl, 0, u32::MAX, PR_SET_MM, libc::EPERM),
        sys::hide_calls(&[libc::SYS_fsopen], libc::ENOSYS),
        sys::hide_calls(&[libc::SYS_fsopen, libc::SYS_memfd_create], libc::EPERM),
    ] {
        let mut bundle = ctx.bundle()?;
        let mut container = bundle.container()?;
        let created = container.create_command()?.before_exec(sys::BeforeExec::Seccomp(filter)).run()?;
        if created.code == 0 {
            executes_no_host_file(ctx, container.pid()?)?;
        }
        container.delete_force()?;
    }
    // A mount hides the program's file: in its directory there is another one.
    let copy = ctx.dir.join("copy");
    fs::copy(&ctx.runtime, &copy)?;
    nix::mount::mount(Some(&copy), &ctx.runtime, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)?;
    let mut bundle = ctx.bundle()?;
    executes_no_host_file(ctx, bundle.create()?.pid()?)
}

// ---- descriptors ---------------------------------------------------------------------------------------------------

fn ptrace_fd_spy(ctx: &Context) -> Outcome {
    let secret = ctx.dir.join("secret");
    fs::write(&secret, "of the host")?;
    let mut bundle = ctx.bundle()?;
    let capabilities = json!(["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), capabilities.clone());
    }
    // With device rules crun 1.8 cannot run here on cgroup v2, where it is the control.
    bundle.remove("/linux/resources");
    bundle.guest(&["ready", ",", "attack", "spy", &secret.to_string_lossy()]);
    let mut container = bundle.start()?;
    container.hear("ready")?;
    for _ in 0..30 {
        container.exec(&["exit", "0"])?.ok()?;
    }
    let leaked = bundle.rootfs.join("tmp/leaked");
    check!(!leaked.exists(), "the host through a process of exec: {}", fs::read_to_string(&leaked)?);
    // The control: a process that enters the PID namespace with the host's root. If the spy missed it, it would miss all.
    let nsenter = ctx.need_program("nsenter")?;
    let target = format!("--target={}", container.pid()?);
    let go = ctx.dir.join("go");
    let careless =
        ctx.command(&nsenter.to_string_lossy()).args(["--pid", &target]).arg(&ctx.guest).arg("until").arg(&go);
    let careless = careless.spawn()?;
    eventually(ctx.patience, "the spy sees the host's root of a careless process", || leaked.exists().then_some(()))?;
    fs::write(go, "")?;
    careless.wait()?.ok()?;
    stop_attack(&bundle)?;
    container.hear("attack")?;
    Ok(())
}

/// What the guest could read of a file on the host, by climbing from where it is.
fn climbs(run: &Run) -> Outcome {
    for line in run.lines() {
        let text = line["read"]["text"].as_str().unwrap_or_default();
        check!(!text.contains("of the host"), "a file of the host was read\n  {}", run.told());
    }
    if run.code == 0 {
        let cwd = run.report()?.text("cwd");
        check!(cwd.starts_with('/'), "cwd is {cwd:?}, outside of the root file system");
    }
    Ok(())
}

/// The words of a guest that reports, and reads `path` by way of "..".
fn climber(path: &Path) -> Vec<String> {
    let up = format!("{}{}", "../".repeat(24), path.to_string_lossy().trim_start_matches('/'));
    ["report", ",", "read", &up].map(str::to_owned).to_vec()
}

fn cwd_fd(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let mut bundle = ctx.bundle()?;
    let words = climber(&host.join("kept"));
    bundle.guest(&words.iter().map(String::as_str).collect::<Vec<_>>());
    for form in ["/proc/self/fd", "/proc/1/fd", "/proc/thread-self/fd", "/proc/self/cwd/../proc/self/fd", "/dev/fd"] {
        for number in 3..14 {
            bundle.set("/process/cwd", format!("{form}/{number}"));
            // One directory of the host is surely open there: the caller's own.
            climbs(&bundle.run_command()?.fd(7, File::open(&host)?).run()?)?;
        }
    }
    untouched(&host)
}

/// The working directory of the image is a link to a descriptor.
fn cwd_link(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let mut bundle = ctx.bundle()?;
    let words = climber(&host.join("kept"));
    bundle.guest(&words.iter().map(String::as_str).collect::<Vec<_>>());
    for number in 3..14 {
        symlink(format!("/proc/self/fd/{number}"), bundle.rootfs.join(format!("link{number}")))?;
        bundle.set("/process/cwd", format!("/link{number}"));
        climbs(&bundle.run_command()?.fd(7, File::open(&host)?).run()?)?;
    }
    untouched(&host)
}

/// The container turns the directory into such a link, and back, while exec enters it.
fn exec_cwd_race(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.directory("/work")?;
    let container = bundle.guest(&["sleep"]).start()?;
    let words = climber(&host.join("kept"));
    let args: Vec<&str> = std::iter::once("/bin/guest").chain(words.iter().map(String::as_str)).collect();
    for number in 3..14 {
        let link = bundle.rootfs.join(format!("link{number}"));
        symlink(format!("/proc/self/fd/{number}"), &link)?;
        let exchange = Exchange::start(bundle.rootfs.join("work"), link);
        for _ in 0..5 {
            climbs(&container.exec_command(&["--cwd", "/work"], &args).fd(7, File::open(&host)?).run()?)?;
        }
        drop(exchange);
        if bundle.rootfs.join("work").is_symlink() {
            fs::rename(bundle.rootfs.join(format!("link{number}")), bundle.rootfs.join("directory"))?;
            fs::remove_file(bundle.rootfs.join("work"))?;
            fs::rename(bundle.rootfs.join("directory"), bundle.rootfs.join("work"))?;
        }
    }
    untouched(&host)?;
    container.end()
}

fn args_fd(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let outside = host.join("outside");
    fs::copy(&ctx.guest, &outside)?;
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755))?;
    let mut bundle = ctx.bundle()?;
    let path = outside.to_string_lossy().into_owned();
    for number in 3..14 {
        for up in ["..", "../../../../../.."] {
            let program = format!("/proc/self/fd/{number}/{up}{path}");
            bundle.set("/process/args", json!([program, "print", "outside"]));
            let run = bundle.run_command()?.fd(7, File::open(&host)?).run()?.fails()?;
            check!(!run.out().contains("outside"), "a program of the host was run\n  {}", run.told());
        }
    }
    Ok(())
}

fn exec_cwd_fd(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let words = climber(&host.join("kept"));
    let args: Vec<&str> = std::iter::once("/bin/guest").chain(words.iter().map(String::as_str)).collect();
    for number in 3..14 {
        let cwd = format!("/proc/self/fd/{number}");
        climbs(&container.exec_command(&["--cwd", &cwd], &args).fd(7, File::open(&host)?).run()?)?;
        let mut process = container.process(&args[1..]);
        process["cwd"] = json!(cwd);
        climbs(&container.exec_process(&process)?)?;
    }
    container.end()
}

/// A directory that the caller gives away on purpose is no working directory, even where its path cannot be read.
fn exec_cwd_preserved(ctx: &Context) -> Outcome {
    let closed = ctx.new_dir("closed")?;
    let inner = closed.join("inner");
    std::fs::create_dir(&inner)?;
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    let container = bundle.guest(&["sleep"]).start()?;
    let options = ["--preserve-fds", "1", "--cwd", "/proc/self/fd/3"];
    let run = container.exec_command(&options, &["/bin/guest", "report"]).fd(3, File::open(&inner)?).run()?.fails()?;
    if ctx.peer == Peer::Kelson {
        run.fails_saying(&["process.cwd", "outside"])?;
    }
    container.end()
}

/// Hooks, init and exec: nothing of the caller's but stdio.
fn fd_leak_inherited(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let record = ctx.dir.join("hooks");
    let mut bundle = ctx.bundle()?;
    let guest = bundle.rootfs.join("bin/guest").to_string_lossy().into_owned();
    for point in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let args = json!(["guest", "record", record.to_string_lossy(), point]);
        bundle.push(&format!("/hooks/{point}"), json!({"path": guest, "args": args}));
    }
    let mut container = bundle.guest(&["report", ",", "sleep"]).container()?;
    let command = container.create_command()?;
    command.fd(5, File::open(&host)?).fd(9, File::open("/")?).fd(13, File::open("/etc/passwd")?).run()?.ok()?;
    container.verb("start").arg(&container.id).fd(5, File::open(&host)?).run()?.ok()?;
    let seen = container.report()?.descriptors();
    check!(seen.iter().map(|d| d.0).eq(0..=2), "descriptors of init: {seen:?}");
    let exec = container.exec_command(&[], &["/bin/guest", "report"]).fd(5, File::open(&host)?).fd(9, File::open("/")?);
    let seen = exec.run()?.ok()?.report()?.descriptors();
    check!(seen.iter().map(|d| d.0).eq(0..=2), "descriptors of exec: {seen:?}");
    container.verb("delete").args(["--force", &container.id]).fd(5, File::open(&host)?).run()?.ok()?;
    let lines = fs::read_to_string(&record)?;
    check_eq!(lines.lines().count(), 5, "hooks that ran");
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line)?;
        let numbers: BTreeSet<&str> = line["fds"].as_object().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
        check!(
            numbers.iter().all(|n| ["0", "1", "2"].contains(n)),
            "descriptors of hook {}: {}",
            line["name"],
            line["fds"]
        );
    }
    Ok(())
}

/// Another process of a joined PID namespace could use them for as long as the container waits.
fn fd_leak_of_the_waiting_init(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.container()?;
    container.create_command()?.fd(7, File::open("/")?).fd(9, File::open("/proc/self")?).run()?.ok()?;
    let pid = container.pid()?;
    let root = fs::metadata(format!("/proc/{pid}/root"))?;
    check!(
        root.ino() != fs::metadata("/")?.ino() || root.dev() != fs::metadata("/")?.dev(),
        "init has the host's root"
    );
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?.path();
        let link = fs::read_link(&entry)?;
        let meta = fs::metadata(&entry)?;
        let what = format!("{} of the waiting init, {}", entry.display(), link.display());
        // A procfs of its own PID namespace shows nothing that the container would not see.
        let is_own_root = (meta.dev(), meta.ino()) == (root.dev(), root.ino());
        let is_own_procfs = nix::sys::statfs::statfs(&entry)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC
            && meta.dev() != fs::metadata("/proc")?.dev();
        check!(!meta.is_dir() || is_own_root || is_own_procfs, "{what}, is a directory outside of the container");
        check!(!link.starts_with("/sys/fs/cgroup"), "{what}, is a file of the host's cgroups");
    }
    Ok(())
}

// ---- links and races in the image ----------------------------------------------------------------------------------

/// A container whose `name` (proc, sys) is a link: refused, or all protections are on what is really used.
fn special_symlink(ctx: &Context, name: &str, probe: &str) -> Outcome {
    let host = host_dir(ctx)?;
    let up = format!("{}{}", "../".repeat(24), host.to_string_lossy().trim_start_matches('/'));
    for target in ["/tmp/fake", "tmp/fake", &host.to_string_lossy(), &up] {
        let mut bundle = ctx.bundle()?;
        bundle.directory("/tmp/fake")?;
        fs::remove_dir(bundle.rootfs.join(name))?;
        symlink(target, bundle.rootfs.join(name))?;
        let run = bundle.guest(&["report", ",", "open", probe, "w"]).run()?;
        untouched(&host).map_err(|e| e.during(&format!("/{name} -> {target}")))?;
        if run.code == 0 {
            let errno = run.said("open")?["errno"].clone();
            check!(errno != json!(0), "/{name} -> {target}: {probe} is writable\n  {}", run.told());
            // The link can be turned elsewhere as soon as the mount is made.
            let mounts = run.report()?.mounts();
            check!(mounts.iter().any(|m| m.target == format!("/{name}")), "/{name} -> {target}: no mount on /{name}");
        }
    }
    Ok(())
}

fn proc_symlink(ctx: &Context) -> Outcome {
    special_symlink(ctx, "proc", "/proc/sys/kernel/core_pattern")
}

fn sys_symlink(ctx: &Context) -> Outcome {
    special_symlink(ctx, "sys", "/sys/kernel/mm/ksm/run")
}

/// Makes and removes a link as fast as it can until it is dropped.
struct Flicker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flicker {
    fn start(target: &'static str, link: PathBuf) -> Flicker {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                // What a runtime made there meanwhile is put aside: the next container finds nothing.
                if symlink(target, &link).is_err() {
                    let _ = fs::remove_dir(&link);
                }
                std::hint::spin_loop();
                let _ = fs::remove_file(&link);
            }
        });
        Flicker { stop, thread: Some(thread) }
    }
}

impl Drop for Flicker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no result.
            let _ = thread.join();
        }
    }
}

/// An image without /proc, and somebody who puts a link there between the look and the mkdir: procfs must not be mounted
/// where it leads, for masks and read-only paths go by the name.
fn proc_link_race(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.directory("/volume/elsewhere")?;
    fs::remove_dir(bundle.rootfs.join("proc"))?;
    bundle.guest(&["ls", "/volume/elsewhere"]);
    let flicker = Flicker::start("/volume/elsewhere", bundle.rootfs.join("proc"));
    for _ in 0..60 {
        // Most are refused: the link is there at the look already.
        let run = bundle.run()?;
        if run.code == 0 {
            check_eq!(run.said("ls")?, json!([]), "files where the link leads");
        }
    }
    drop(flicker);
    Ok(())
}

/// A volume over /proc that pretends to be procfs: the runtime must not be fooled into writing there.
fn mount_over_proc(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    fs::create_dir_all(host.join("sys/net/ipv4"))?;
    fs::create_dir_all(host.join("self/attr"))?;
    let fake = host.join("sys/net/ipv4/ip_forward");
    for destination in ["/proc", "/proc/sys", "/proc/sys/net"] {
        let source = host.join(destination.trim_start_matches("/proc").trim_start_matches('/'));
        fs::write(&fake, "fake")?;
        let mut bundle = ctx.bundle()?;
        bundle
            .mount(destination, "bind", &source, &["bind", "rw"])
            .remove("/linux/readonlyPaths")
            .remove("/linux/maskedPaths");
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).guest(&["ready", ",", "sleep"]);
        let mut container = bundle.container()?;
        let create = container.create()?;
        check_eq!(fs::read_to_string(&fake)?, "fake", "the false procfs on {destination}");
        if create.code == 0 {
            let nsenter = ctx.need_program("nsenter")?;
            let net = format!("--net=/proc/{}/ns/net", container.pid()?);
            let read = ctx
                .command(&nsenter.to_string_lossy())
                .arg(net)
                .args(["cat", "/proc/sys/net/ipv4/ip_forward"])
                .run()?;
            check_eq!(read.ok()?.out(), "1\n", "the real ip_forward after a mount over {destination}");
        }
    }
    Ok(())
}

/// Exchanges two names as fast as it can until it is dropped.
struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Exchange {
    fn start(one: PathBuf, other: PathBuf) -> Exchange {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !seen.load(Ordering::Relaxed) {
                // A runtime may have taken one away for a moment.
                if renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).is_ok() {
                    count += 1;
                }
                std::thread::yield_now();
            }
            count
        });
        Exchange { stop, thread: Some(thread) }
    }

    /// Ends it and tells how often the names changed.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|t| t.join().ok()).unwrap_or(0)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its only result is the count.
            let _ = thread.join();
        }
    }
}

/// Forty containers with a mount below a directory that turns into a link to the host's directory and back.
fn exchange_race(ctx: &Context, kind: &str) -> Outcome {
    let host = host_dir(ctx)?;
    let mut bundle = ctx.bundle()?;
    let volume = bundle.directory("/volume")?;
    let inside = bundle.file("/source", "of the image")?;
    fs::create_dir(volume.join("a"))?;
    let up = format!("{}{}", "../".repeat(24), host.to_string_lossy().trim_start_matches('/'));
    symlink(up, volume.join("b"))?;
    match kind {
        "tmpfs" => bundle.mount("/volume/a/made/deep", "tmpfs", "tmpfs", &["nosuid"]),
        _ => bundle.mount("/volume/a/file", "bind", &inside, &["bind", "ro"]),
    };
    bundle.guest(&["read", &host.join("kept").to_string_lossy()]);
    let exchange = Exchange::start(volume.join("a"), volume.join("b"));
    for _ in 0..40 {
        let run = bundle.run()?;
        check!(!run.out().contains("of the host"), "the container read the host's file\n  {}", run.told());
        untouched(&host)?;
    }
    let count = exchange.end();
    check!(count > 40, "the names were exchanged only {count} times, the test shows nothing");
    Ok(())
}

fn mkdir_race(ctx: &Context) -> Outcome {
    exchange_race(ctx, "tmpfs")
}

fn file_race(ctx: &Context) -> Outcome {
    exchange_race(ctx, "file")
}

/// Without a race: links in the image lead to places inside the root, whatever they say.
fn volume_symlink(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let up = format!("{}{}", "../".repeat(24), host.to_string_lossy().trim_start_matches('/'));
    for target in [up, host.to_string_lossy().into_owned()] {
        let mut bundle = ctx.bundle()?;
        let source = bundle.file("/source", "of the image")?;
        symlink(target, bundle.rootfs.join("link"))?;
        bundle.mount("/link/dir", "tmpfs", "tmpfs", &["nosuid"]);
        bundle.mount("/link/file", "bind", &source, &["bind"]);
        bundle.set("/process/cwd", "/link/cwd").push("/linux/maskedPaths", "/link/kept");
        let kept = host.join("kept").to_string_lossy().into_owned();
        let run = bundle.guest(&["report", ",", "read", &kept]).run()?;
        climbs(&run)?;
        untouched(&host)?;
    }
    Ok(())
}

/// A bundle without any mount on or below /dev: everything there is the image's.
fn without_dev<'c>(ctx: &'c Context) -> Outcome<Bundle<'c>> {
    let mut bundle = ctx.bundle()?;
    for destination in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(destination);
    }
    Ok(bundle)
}

/// Creates the container and looks at /proc/keys from outside: what masks it must be the null device. Tells whether it was created.
///
/// From outside, because a runtime that is fooled may have taken away the guest's standard output too.
fn mask_is_null(bundle: &mut Bundle<'_>) -> Outcome<bool> {
    let mut container = bundle.container()?;
    let create = container.create()?;
    if create.code != 0 {
        return Ok(false);
    }
    let keys = PathBuf::from(format!("/proc/{}/root/proc/keys", container.pid()?));
    let meta = fs::metadata(&keys)?;
    let text = fs::read_to_string(&keys)?;
    container.delete_force()?.ok()?;
    let begin: String = text.chars().take(40).collect();
    check_eq!(
        (meta.mode() & SFlag::S_IFMT.bits(), meta.rdev()),
        (SFlag::S_IFCHR.bits(), makedev(1, 3)),
        "mask ({begin:?})"
    );
    Ok(true)
}

fn devnull_mask(ctx: &Context) -> Outcome {
    let mut bundle = without_dev(ctx)?;
    bundle.set("/linux/maskedPaths", json!(["/proc/keys"]));
    for target in ["/proc/version", "../proc/version", "/etc/passwd"] {
        // A runtime may have replaced it by the device.
        let _ = fs::remove_file(bundle.rootfs.join("dev/null"));
        symlink(target, bundle.rootfs.join("dev/null"))?;
        mask_is_null(&mut bundle)?;
        let meta = fs::symlink_metadata(bundle.rootfs.join("etc/passwd"))?;
        check!(meta.is_file() && meta.len() > 0, "the link's target in the image was changed");
    }
    Ok(())
}

fn devnull_race(ctx: &Context) -> Outcome {
    let mut bundle = without_dev(ctx)?;
    bundle.set("/linux/maskedPaths", json!(["/proc/keys"]));
    let null = bundle.rootfs.join("dev/null");
    mknod(&null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    symlink("/proc/version", bundle.rootfs.join("dev/other"))?;
    let exchange = Exchange::start(null, bundle.rootfs.join("dev/other"));
    let mut created = 0;
    for _ in 0..30 {
        created += u32::from(mask_is_null(&mut bundle)?);
    }
    let count = exchange.end();
    check!(count > 30, "the names were exchanged only {count} times, the test shows nothing");
    check!(created > 0 || ctx.peer != Peer::Kelson, "not one of 30 containers was created");
    Ok(())
}

fn dev_symlink(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let up = format!("{}{}", "../".repeat(24), host.to_string_lossy().trim_start_matches('/'));
    for target in [host.to_string_lossy().into_owned(), up] {
        for mounts in [false, true] {
            let mut bundle = if mounts { ctx.bundle()? } else { without_dev(ctx)? };
            fs::remove_dir(bundle.rootfs.join("dev"))?;
            symlink(&target, bundle.rootfs.join("dev"))?;
            bundle.push("/linux/devices", json!({"type": "c", "path": "/dev/made", "major": 1, "minor": 5}));
            let run = bundle.run()?;
            untouched(&host).map_err(|e| e.during(&format!("/dev -> {target}\n  {}", run.told())))?;
        }
    }
    Ok(())
}

// ---- terminals -----------------------------------------------------------------------------------------------------

/// `run` of the bundle on a new terminal; gives the result and what the terminal showed.
fn run_on_terminal(bundle: &mut Bundle<'_>) -> Outcome<(Run, String)> {
    let (main, peer) = sys::open_pty()?;
    let patience = bundle.context.patience;
    let running = bundle.run_command()?.on_terminal(peer).spawn()?;
    let mut lines = Lines::new(main);
    let shown = lines.to_end(patience);
    let run = running.wait()?;
    Ok((run, String::from_utf8_lossy(&shown?).into_owned()))
}

/// What the guest said under `key` among what a terminal showed.
fn said(shown: &str, key: &str) -> Option<Value> {
    shown.lines().filter_map(|l| serde_json::from_str::<Value>(l.trim()).ok()).find_map(|mut v| {
        let found = v.get_mut(key)?.take();
        Some(found)
    })
}

/// The file that the image's links point at is as it was, seen from the container and on disk.
fn target_unchanged(bundle: &Bundle<'_>, run: &Run, shown: &str) -> Outcome {
    let file = bundle.rootfs.join("etc/target");
    let meta = fs::symlink_metadata(&file)?;
    check!(meta.is_file(), "the link's target is no file any more");
    check_eq!(fs::read_to_string(&file)?, "original", "the link's target");
    check_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 0, 0o644), "owner and mode of the link's target");
    if run.code == 0 {
        let stat = said(shown, "stat").ok_or_else(|| format!("the guest said nothing: {shown:?}"))?;
        check_eq!(stat["kind"], json!("f"), "the link's target inside, which the console is mounted over");
    }
    Ok(())
}

fn console_symlink(ctx: &Context) -> Outcome {
    for target in ["/etc/target", "../etc/target", "/proc/sys/kernel/core_pattern"] {
        let mut bundle = ctx.bundle()?;
        // A volume on /dev in place of the tmpfs.
        let volume = ctx.new_dir("dev")?;
        fs::create_dir(volume.join("pts"))?;
        symlink(target, volume.join("console"))?;
        bundle.file("/etc/target", "original")?;
        for destination in ["/dev", "/dev/shm", "/dev/mqueue"] {
            bundle.without_mount(destination);
        }
        bundle.edit(|config| {
            let mount = json!({"destination": "/dev", "type": "bind", "source": volume, "options": ["rbind", "rw"]});
            if let Some(list) = config["mounts"].as_array_mut() {
                list.insert(1, mount);
            }
        });
        bundle.set("/process/terminal", true);
        bundle.guest(&["stat", "/etc/target", ",", "stat", "/dev/console", ",", "report"]);
        let (run, shown) = run_on_terminal(&mut bundle)?;
        target_unchanged(&bundle, &run, &shown)?;
        if let Some(report) = said(&shown, "report") {
            let on_proc = report["mounts"].to_string().contains("core_pattern");
            check!(!on_proc, "the console is mounted over a file of procfs: {}", report["mounts"]);
        }
    }
    Ok(())
}

/// The terminal's name as the container shows it is the image's to choose where devpts is not mounted.
fn pts_symlink(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    for destination in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(destination);
    }
    bundle.file("/etc/target", "original")?;
    bundle.directory("/dev/pts")?;
    for number in 0..32 {
        symlink("/etc/target", bundle.rootfs.join(format!("dev/pts/{number}")))?;
    }
    mknod(&bundle.rootfs.join("dev/ptmx"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(5, 2))?;
    bundle.set("/process/terminal", true);
    bundle.guest(&["stat", "/etc/target", ",", "tty"]);
    let (run, shown) = run_on_terminal(&mut bundle)?;
    target_unchanged(&bundle, &run, &shown)?;
    if let Some(tty) = said(&shown, "tty") {
        check_eq!(tty["console"]["kind"], json!("c"), "what /dev/console is");
        check_eq!(tty["console"]["major"], json!(136), "major number of /dev/console");
    }
    Ok(())
}

fn console_nodev(ctx: &Context) -> Outcome {
    for read_only in [false, true] {
        let mut bundle = without_dev(ctx)?;
        bundle.file("/etc/target", "original")?;
        symlink("/etc/target", bundle.rootfs.join("dev/console"))?;
        // With devpts, so that there can be a terminal at all.
        let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        bundle.mount("/dev/pts", "devpts", "devpts", &options);
        bundle.set("/root/readonly", read_only).set("/process/terminal", true);
        bundle.guest(&["stat", "/etc/target", ",", "tty"]);
        let (run, shown) = run_on_terminal(&mut bundle)?;
        target_unchanged(&bundle, &run, &shown).map_err(|e| e.during(&format!("readonly root: {read_only}")))?;
    }
    Ok(())
}

/// Standard input that is /dev/null is opened again inside: not through the image's link, and nobody else's file is given away.
fn stdio_devnull_chown(ctx: &Context) -> Outcome {
    let mut bundle = without_dev(ctx)?;
    bundle.file("/etc/target", "original")?;
    symlink("/etc/target", bundle.rootfs.join("dev/null"))?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.guest(&["stat", "/etc/target", ",", "stat", "/proc/self/fd/0", ",", "write", "/proc/self/fd/1", "x"]);
    let run = bundle.run()?;
    target_unchanged(&bundle, &run, &run.out())?;
    // Read-only root: the device cannot be made in place of the link.
    bundle.set("/root/readonly", true);
    let _ = fs::remove_file(bundle.rootfs.join("dev/null"));
    symlink("/etc/target", bundle.rootfs.join("dev/null"))?;
    let null = || File::options().read(true).write(true).open("/dev/null");
    let run = bundle.run_command()?.fd(0, null()?).fd(1, null()?).fd(2, null()?).run()?;
    let file = bundle.rootfs.join("etc/target");
    let meta = fs::symlink_metadata(&file)?;
    check_eq!((meta.uid(), meta.gid()), (0, 0), "owner of the link's target ({})", run.told());
    check_eq!(fs::read_to_string(&file)?, "original", "the link's target");
    Ok(())
}

/// TIOCSTI would type into the caller's shell.
fn no_controlling_terminal(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.privileged().guest(&["tty", ",", "push-input"]);
    let (run, shown) = run_on_terminal(&mut bundle)?;
    check_eq!(run.code, 0, "exit code ({shown})");
    let tty = said(&shown, "tty").ok_or_else(|| format!("the guest said nothing: {shown:?}"))?;
    check_eq!(tty["controlling_errno"], json!(libc::ENXIO), "errno of opening /dev/tty");
    let errno = said(&shown, "push-input").unwrap_or_default()["errno"].clone();
    check!(errno != json!(0), "input was pushed into the caller's terminal");

    let container = bundle.guest(&["sleep"]).start()?;
    let (main, peer) = sys::open_pty()?;
    let words = ["/bin/guest", "tty", ",", "push-input"];
    let running = container.exec_command(&[], &words).on_terminal(peer).spawn()?;
    let shown = String::from_utf8_lossy(&Lines::new(main).to_end(ctx.patience)?).into_owned();
    running.wait()?.ok()?;
    let tty = said(&shown, "tty").ok_or_else(|| format!("the guest said nothing: {shown:?}"))?;
    check_eq!(tty["controlling_errno"], json!(libc::ENXIO), "errno of opening /dev/tty in exec");
    let errno = said(&shown, "push-input").unwrap_or_default()["errno"].clone();
    check!(errno != json!(0), "input was pushed into the terminal of exec's caller");
    container.end()
}

// ---- bounds and parsers --------------------------------------------------------------------------------------------

fn long_namespace_path(ctx: &Context) -> Outcome {
    for length in [5_000, 65_520, 70_000] {
        let mut bundle = ctx.bundle()?;
        let path = format!("/proc/{}", "a".repeat(length));
        bundle.namespace("network", Some(&path)).refused(&[])?;
    }
    Ok(())
}

fn many_id_maps(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 1)])?;
    let maps: Vec<Value> =
        (0..20_000).map(|i| json!({"containerID": i * 2, "hostID": 100_000 + i * 2, "size": 1})).collect();
    bundle.set("/linux/uidMappings", json!(maps)).set("/linux/gidMappings", json!(maps)).refused(&[])
}

fn exec_inheritable(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let init = container.report()?;
    let mut process = container.process(&["report"]);
    process["capabilities"] =
        json!({"bounding": ["CAP_KILL", "CAP_NET_ADMIN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]});
    let guest = ["/bin/guest", "report"];
    let seen = [
        ("init", init),
        ("exec", container.exec(&["report"])?.ok()?.report()?),
        ("exec --cap", container.exec_command(&["--cap", "CAP_NET_ADMIN"], &guest).run()?.ok()?.report()?),
        ("exec --process", container.exec_process(&process)?.ok()?.report()?),
    ];
    for (what, report) in seen {
        check_eq!(report.capabilities("inheritable"), 0, "inheritable capabilities of {what}");
        check_eq!(report.capabilities("ambient"), 0, "ambient capabilities of {what}");
    }
    container.end()
}

/// Numbers that wrap, signs, spaces: an error, never another user.
fn exec_user_parse(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let bad = [
        "4294967296",
        "4294967295",
        "-1",
        " 0",
        "+0",
        "0 ",
        "",
        ":",
        ":0",
        "1000:",
        "1000:4294967296",
        "1000:4294967295",
        "1000:-1",
        "1000:+1",
        "1000:0:0",
        "0x0",
        "1e3",
        "1000,0",
        "18446744073709551616",
        "99999999999999999999999",
        "1000\n",
        "٣",
    ];
    let mut accepted = vec![];
    for user in bad {
        let run = container.exec_command(&["--user", user], &["/bin/guest", "report"]).run()?;
        if run.code == 0 {
            let seen = run.report()?;
            accepted.push(format!("{user:?} ran as {}:{}", seen["uids"][0], seen["gids"][0]));
        }
    }
    check!(accepted.is_empty(), "exec --user: {}", accepted.join(", "));
    for (user, ids) in
        [("0", (0, 0)), ("1000", (1000, 0)), ("4294967294:4294967294", (4_294_967_294u32, 4_294_967_294u32))]
    {
        let seen = container.exec_command(&["--user", user], &["/bin/guest", "report"]).run()?.ok()?.report()?;
        check_eq!(
            (seen["uids"][0].clone(), seen["gids"][0].clone()),
            (json!(ids.0), json!(ids.1)),
            "exec --user {user}"
        );
    }
    container.end()
}

fn sysctl_key_traversal(ctx: &Context) -> Outcome {
    let files = ["/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname"];
    let read = || files.map(|f| fs::read_to_string(f).unwrap_or_default());
    let before = read();
    let keys = [
        "net/../vm/overcommit_memory",
        "net.ipv4/../../vm/overcommit_memory",
        "net/ipv4/../../kernel/core_pattern",
        "net....kernel.core_pattern",
        "net.",
        ".net",
        "/net/ipv4/ip_forward/../../../vm/overcommit_memory",
        "net/./../vm/overcommit_memory",
        "net.ipv4.ip_forward\n",
        "net.ipv4.ip_forward=1+kernel.core_pattern",
        "fs.mqueue../../vm/overcommit_memory",
        "kernel.shm_rmid_forced/../core_pattern",
        "",
    ];
    for key in keys {
        let mut bundle = ctx.bundle()?;
        bundle.set("/linux/sysctl", json!({})).edit(|c| c["linux"]["sysctl"][key] = json!("1"));
        let run = bundle.guest(&["exit", "0"]).run()?;
        check_eq!(read(), before, "sysctls of the host after {key:?}");
        check!(run.code != 0, "sysctl {key:?} was accepted");
    }
    Ok(())
}

/// Only what has a namespace, and only if the container has a new one (config-linux.md#sysctl).
fn sysctl_of_the_host(ctx: &Context) -> Outcome {
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
    for key in
        ["kernel.core_pattern", "vm.overcommit_memory", "kernel.modprobe", "fs.file-max", "debug.exception-trace"]
    {
        let mut bundle = ctx.bundle()?;
        bundle.edit(|c| c["linux"]["sysctl"] = json!({key: "1"}));
        bundle.guest(&["exit", "0"]).refused(&[])?;
    }
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("network").set("/linux/sysctl", json!({}));
    bundle.edit(|c| c["linux"]["sysctl"]["net.ipv4.ip_forward"] = json!("1"));
    bundle.refused(&[])?;
    check_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?, before, "ip_forward of the host");
    Ok(())
}

/// A cgroup mount with `ro` is read-only in every hierarchy: what is run when a cgroup of v1 gets empty cannot be set, and no
/// cgroup can be made for it.
fn release_agent(ctx: &Context) -> Outcome {
    for with_namespace in [false, true] {
        let mut bundle = ctx.bundle()?;
        if with_namespace {
            bundle.namespace("cgroup", None);
        }
        let hierarchies = match ctx.cgroups.is_v2() {
            true => vec![String::new()],
            false => ["memory", "freezer", "pids", "devices"].iter().map(|name| format!("/{name}")).collect(),
        };
        let mut words = vec![];
        for hierarchy in &hierarchies {
            for what in [
                format!("mkdir /sys/fs/cgroup{hierarchy}/x ,"),
                format!("poke /sys/fs/cgroup{hierarchy}/cgroup.procs 1 ,"),
                format!("poke /sys/fs/cgroup{hierarchy}/notify_on_release 1 ,"),
                format!("poke /sys/fs/cgroup{hierarchy}/release_agent /x ,"),
            ] {
                words.extend(what.split(' ').map(str::to_owned));
            }
        }
        words.extend(["exit".to_owned(), "0".to_owned()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let out = bundle.guest(&words).run()?.ok()?.out();
        let refused = out.lines().filter(|line| line.contains(&format!("\"errno\":{}", libc::EROFS))).count();
        let missing = out.lines().filter(|line| line.contains(&format!("\"errno\":{}", libc::ENOENT))).count();
        check_eq!(
            refused + missing,
            hierarchies.len() * 4,
            "what was refused (cgroup namespace: {with_namespace}):\n{out}"
        );
        check!(refused >= hierarchies.len() * 2, "mkdir and cgroup.procs are read-only:\n{out}");
    }
    Ok(())
}

/// A cgroupsPath that climbs ends inside the hierarchy, or is refused.
fn cgroups_path_traversal(ctx: &Context) -> Outcome {
    let host = host_dir(ctx)?;
    let inside = host.join("escaped");
    let inside = inside.to_string_lossy();
    let up = "../".repeat(24);
    let own = ctx.cgroup_parent.trim_start_matches('/').to_owned();
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "0"]);
    for path in [format!("/{up}{inside}"), format!("{up}{inside}"), format!("/{own}/{up}{inside}")] {
        bundle.set("/linux/cgroupsPath", path.as_str());
        let run = bundle.run()?;
        let escaped = untouched(&host).map_err(|e| e.during(&format!("cgroupsPath {path:?}\n  {}", run.told())));
        // Where the path is cleaned, the host's directory names are made as cgroups.
        let mut left = vec![];
        for mount in &ctx.cgroups.mounts {
            let whole = host.strip_prefix("/").unwrap_or(&host).join("escaped");
            for part in whole.ancestors().filter(|p| !p.as_os_str().is_empty()) {
                let dir = mount.join(part);
                if dir.exists() {
                    left.push(dir.display().to_string());
                    // Not empty: it was there before, or it shows as a process that is left.
                    let _ = fs::remove_dir(&dir);
                }
            }
        }
        let _ = fs::remove_dir(host.join("escaped"));
        escaped?;
        let leaves_parents = ctx.peer != Peer::Kelson;
        check!(leaves_parents || left.is_empty(), "cgroups are left: {left:?}");
    }
    Ok(())
}

fn exec_cgroup_traversal(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let elsewhere = ctx.cgroups.existing(&ctx.cgroup_parent);
    for path in ["..", "../..", "/../..", "memory:../..", "a/../../..", "./../.."] {
        let run = container.exec_command(&["--cgroup", path], &["/bin/guest", "report"]).run()?;
        if run.code == 0 {
            let pid = container.pid()?;
            let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
            let seen = run.report()?["cgroup"].clone();
            let own: Vec<&str> = own.lines().collect();
            // Every line must be the container's own cgroup or below it.
            let lines = seen.as_array().cloned().unwrap_or_default();
            for (line, own) in lines.iter().filter_map(|l| l.as_str()).zip(own) {
                check!(
                    line.starts_with(own),
                    "exec --cgroup {path:?} left the container's cgroup: {line} is not below {own}"
                );
            }
        }
    }
    check!(!elsewhere.is_empty(), "the container has no cgroup, the test shows nothing");
    container.end()
}

fn id_validation(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "0"]).set("/linux/cgroupsPath", format!("{}/id", ctx.cgroup_parent)).write()?;
    let host = ctx.new_dir("outside")?;
    fs::write(host.join("state.json"), "{}")?;
    let relative = format!("../{}", host.file_name().unwrap_or_default().to_string_lossy());
    let absolute = host.to_string_lossy().into_owned();
    let long = "a".repeat(256);
    let bad = [
        "", ".", "..", "a/b", "a/", "/", "/abs", "../x", &relative, &absolute, "a b", "a\\b", "%s%n", "a\u{1}", "a\nb",
        "é", "a:b", "a*", "~", "a\u{7f}", &long,
    ];
    let mut accepted = vec![];
    for id in bad {
        let run = ctx.runtime().args(["run", "--bundle"]).arg(&bundle.dir).arg("--").arg(id).run()?;
        if run.code == 0 {
            accepted.push(id.to_owned());
        }
        for verb in ["state", "start", "pause", "resume"] {
            ctx.runtime().arg(verb).arg("--").arg(id).run()?.fails().map_err(|e| e.during(&format!("{id:?}")))?;
        }
        // Whatever they answer, nothing outside is removed.
        ctx.runtime().args(["kill", "--"]).arg(id).arg("KILL").run()?;
        ctx.runtime().args(["delete", "--force", "--"]).arg(id).run()?;
        check!(host.join("state.json").exists(), "{id:?}: a directory outside of the root was removed");
    }
    check!(accepted.is_empty(), "run accepts the ids {accepted:?}");
    let left = ctx.state_entries();
    check!(left.is_empty(), "state directories are left: {left:?}");
    Ok(())
}

/// NAME_MAX bytes fit into a directory's name.
fn id_longest(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "7"]).set("/linux/cgroupsPath", format!("{}/id", ctx.cgroup_parent)).write()?;
    for id in ["A-Za_z0.9+", "-dash", "_", "a..b", &"a".repeat(255)] {
        let run = ctx.runtime().args(["run", "--bundle"]).arg(&bundle.dir).arg("--").arg(id).run()?;
        run.exits(7).map_err(|e| e.during(&format!("id of {} bytes", id.len())))?;
    }
    Ok(())
}

/// Neither the caller's environment nor the container's reaches a hook (CVE-2025-23266: LD_PRELOAD of the image).
fn hooks_env(ctx: &Context) -> Outcome {
    let record = ctx.dir.join("hooks");
    let mut bundle = ctx.bundle()?;
    bundle.push("/process/env", "LD_PRELOAD=/evil.so").push("/process/env", "OF_THE_CONTAINER=1");
    let guest = bundle.rootfs.join("bin/guest").to_string_lossy().into_owned();
    let points = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    for point in points {
        let args = json!(["guest", "record", record.to_string_lossy(), point]);
        bundle.push(&format!("/hooks/{point}"), json!({"path": guest, "args": args, "env": ["ONLY=this"]}));
        bundle.push(&format!("/hooks/{point}"), json!({"path": guest, "args": args}));
    }
    bundle
        .guest(&["exit", "0"])
        .run_command()?
        .env("OF_THE_CALLER", "1")
        .env("LD_LIBRARY_PATH", "/evil")
        .run()?
        .ok()?;
    let text = fs::read_to_string(&record)?;
    check_eq!(text.lines().count(), 2 * points.len(), "hooks that ran");
    for (index, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line)?;
        let expected = if index % 2 == 0 { json!(["ONLY=this"]) } else { json!([]) };
        check_eq!(line["env"], expected, "environment of {}, hook {}", line["name"], index % 2);
    }
    Ok(())
}

/// Numeric ids work whatever /etc/passwd and /etc/group of the image are; names are an error; nothing hangs.
fn hostile_passwd(ctx: &Context, make: impl Fn(&Path) -> Outcome) -> Outcome {
    let mut bundle = ctx.bundle()?;
    for file in ["passwd", "group"] {
        let path = bundle.rootfs.join("etc").join(file);
        fs::remove_file(&path)?;
        make(&path)?;
    }
    let soon = Duration::from_secs(10).min(ctx.patience);
    let run = bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).run_command()?.deadline(soon).run()?;
    let seen = run.ok()?.report()?;
    check_eq!(seen["uids"][0], json!(1000), "uid");
    let home = seen.env("HOME").unwrap_or_default();
    check!(!home.contains("evil"), "HOME comes from outside of the root: {home:?}");
    let container = bundle.guest(&["sleep"]).start()?;
    let report = ["/bin/guest", "report"];
    let seen = container.exec_command(&["--user", "7:8"], &report).deadline(soon).run()?.ok()?.report()?;
    check_eq!((seen["uids"][0].clone(), seen["gids"][0].clone()), (json!(7), json!(8)), "ids of exec");
    let home = seen.env("HOME").unwrap_or_default();
    check!(!home.contains("evil"), "HOME of exec comes from outside of the root: {home:?}");
    container.exec_command(&["--user", "sailor"], &report).deadline(soon).run()?.fails()?;
    container.end()
}

fn passwd_fifo(ctx: &Context) -> Outcome {
    hostile_passwd(ctx, |path| Ok(mknod(path, SFlag::S_IFIFO, Mode::from_bits_truncate(0o666), 0)?))
}

fn passwd_link(ctx: &Context) -> Outcome {
    let host = ctx.new_dir("outside")?;
    let file = host.join("passwd");
    fs::write(&file, "root:x:0:0::/evil:/bin/sh\nsailor:x:1000:1000::/evil:/bin/sh\nseven:x:7:8::/evil:/bin/sh\n")?;
    hostile_passwd(ctx, |path| Ok(symlink(&file, path)?))?;
    let up = format!("{}{}", "../".repeat(24), file.to_string_lossy().trim_start_matches('/'));
    hostile_passwd(ctx, |path| Ok(symlink(&up, path)?))
}

fn passwd_large(ctx: &Context) -> Outcome {
    let line = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
    let text = line.repeat(2 * 1024 * 1024 / line.len()) + "sailor:x:1000:1000::/evil:/bin/sh\n";
    hostile_passwd(ctx, |path| Ok(fs::write(path, &text)?))
}

fn passwd_directory(ctx: &Context) -> Outcome {
    hostile_passwd(ctx, |path| Ok(fs::create_dir(path)?))
}

/// A terminal or a tape would be touched by opening it.
fn passwd_device(ctx: &Context) -> Outcome {
    let device = makedev(1, 5);
    hostile_passwd(ctx, |path| Ok(mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), device)?))
}

/// What confines init confines exec as well.
fn nnp_seccomp_umask_groups(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/noNewPrivileges", true).set("/process/user/umask", 0o027).set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 55}],
        }),
    );
    let setpriv = ctx.need_program("setpriv")?.to_string_lossy().into_owned();
    let mut container = bundle.guest(&["report", ",", "mkdir", "/tmp/init", ",", "sleep"]).container()?;
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let groups = |verb: &str| {
        let command = ctx.command(&setpriv).args(["--groups", "4,5", "--"]).arg(&ctx.runtime);
        command.arg("--root").arg(&ctx.root).arg(verb)
    };
    let input: OwnedFd = File::open("/dev/null")?.into();
    let errors: OwnedFd = File::options().write(true).open("/dev/null")?.into();
    let create = groups("create").arg("--bundle").arg(&bundle.dir).arg(&container.id);
    create.fd(0, input).fd(1, write).fd(2, errors).run()?.ok()?;
    container.start()?.ok()?;
    let mut lines = Lines::new(read);
    let report: Value = serde_json::from_str(&lines.next(ctx.patience)?)?;
    let mkdir: Value = serde_json::from_str(&lines.next(ctx.patience)?)?;
    let exec =
        groups("exec").arg(&container.id).args(["/bin/guest", "report", ",", "mkdir", "/tmp/exec"]).run()?.ok()?;
    for (who, report, mkdir) in [
        ("init", report["report"].clone(), mkdir["mkdir"].clone()),
        ("exec", exec.said("report")?, exec.said("mkdir")?),
    ] {
        check_eq!(report["no_new_privs"], json!(1), "no_new_privs of {who}");
        check_eq!(report["seccomp"], json!(2), "seccomp mode of {who}");
        check_eq!(mkdir["errno"], json!(55), "errno of mkdir in {who}");
        check_eq!(report["groups"], json!([]), "supplementary groups of {who}");
        check_eq!(report["umask"], json!(0o027), "umask of {who}");
    }
    container.verb("delete").args(["--force", &container.id]).run()?.ok()?;
    container.forget();
    Ok(())
}
