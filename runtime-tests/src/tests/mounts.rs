//! `mounts` in config.json: every option of config.md#linux-mount-options, and how mounts are made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{Bundle, Context, MountInfo, Outcome, Peer, Test, json};
use crate::{check, check_eq, sys};

/// What an option must show, in the words of mountinfo.
#[derive(Clone, Copy)]
enum Seen {
    /// The container starts; the option shows nowhere.
    Accepted,
    /// Option of the mount.
    Has(&'static str),
    Lacks(&'static str),
    /// Option of the file system.
    SuperHas(&'static str),
    SuperLacks(&'static str),
    /// A propagation word starts so; empty is private.
    Propagates(&'static str),
}

/// A mount with these options, and what is seen of it.
struct Case {
    option: &'static str,
    /// For binds: flags of the source, and of the mount below it. For others: a new tmpfs.
    source: Option<(MsFlags, MsFlags)>,
    options: &'static [&'static str],
    top: &'static [Seen],
    /// Seen of the mount below; `None`: there is none in the container.
    sub: Option<&'static [Seen]>,
}

/// A new tmpfs.
const fn tmpfs(option: &'static str, options: &'static [&'static str], top: &'static [Seen]) -> Case {
    Case { option, source: None, options, top, sub: None }
}

/// A recursive bind of a tree with a mount below its top.
const fn tree(
    option: &'static str,
    source: MsFlags,
    sub_source: MsFlags,
    options: &'static [&'static str],
    top: &'static [Seen],
    sub: &'static [Seen],
) -> Case {
    Case { option, source: Some((source, sub_source)), options, top, sub: Some(sub) }
}

use Seen::{Accepted, Has, Lacks, Propagates, SuperHas, SuperLacks};

const NONE: MsFlags = MsFlags::empty();

/// The 62 options of the specification but remount, tmpcopyup, idmap and ridmap, which have tests of their own.
const OPTIONS: &[Case] = &[
    tmpfs("async", &["sync", "async"], &[SuperLacks("sync")]),
    tmpfs("atime", &["noatime", "atime"], &[Lacks("noatime")]),
    Case { option: "bind", source: Some((NONE, NONE)), options: &["bind"], top: &[Has("rw")], sub: None },
    tmpfs("defaults", &["defaults"], &[Has("rw"), Lacks("nosuid"), Lacks("nodev"), Lacks("noexec")]),
    tmpfs("dev", &["nodev", "dev"], &[Lacks("nodev")]),
    tmpfs("diratime", &["nodiratime", "diratime"], &[Lacks("nodiratime")]),
    tmpfs("dirsync", &["dirsync"], &[SuperHas("dirsync")]),
    tmpfs("exec", &["noexec", "exec"], &[Lacks("noexec")]),
    tmpfs("iversion", &["iversion"], &[Accepted]),
    tmpfs("lazytime", &["lazytime"], &[SuperHas("lazytime")]),
    tmpfs("loud", &["loud"], &[Accepted]),
    tmpfs("mand", &["mand"], &[Accepted]),
    tmpfs("noatime", &["noatime"], &[Has("noatime")]),
    tmpfs("nodev", &["nodev"], &[Has("nodev")]),
    tmpfs("nodiratime", &["nodiratime"], &[Has("nodiratime")]),
    tmpfs("noexec", &["noexec"], &[Has("noexec")]),
    tmpfs("noiversion", &["noiversion"], &[Accepted]),
    tmpfs("nolazytime", &["lazytime", "nolazytime"], &[SuperLacks("lazytime")]),
    tmpfs("nomand", &["nomand"], &[Accepted]),
    tmpfs("norelatime", &["norelatime"], &[Accepted]),
    tmpfs("nostrictatime", &["strictatime", "nostrictatime"], &[Has("relatime")]),
    tmpfs("nosuid", &["nosuid"], &[Has("nosuid")]),
    tmpfs("nosymfollow", &["nosymfollow"], &[Has("nosymfollow")]),
    tree("private", NONE, NONE, &["rbind", "private"], &[Propagates("")], &[]),
    tree(
        "ratime",
        MsFlags::MS_NOATIME,
        MsFlags::MS_NOATIME,
        &["rbind", "ratime"],
        &[Lacks("noatime")],
        &[Lacks("noatime")],
    ),
    tree("rbind", NONE, NONE, &["rbind"], &[Has("rw")], &[Has("rw")]),
    tree("rnodev", NONE, NONE, &["rbind", "rnodev"], &[Has("nodev")], &[Has("nodev")]),
    tree("rdev", MsFlags::MS_NODEV, MsFlags::MS_NODEV, &["rbind", "rdev"], &[Lacks("nodev")], &[Lacks("nodev")]),
    tree(
        "rdiratime",
        MsFlags::MS_NODIRATIME,
        MsFlags::MS_NODIRATIME,
        &["rbind", "rdiratime"],
        &[Lacks("nodiratime")],
        &[Lacks("nodiratime")],
    ),
    tmpfs("relatime", &["relatime"], &[Has("relatime"), Lacks("noatime")]),
    tree("rexec", MsFlags::MS_NOEXEC, MsFlags::MS_NOEXEC, &["rbind", "rexec"], &[Lacks("noexec")], &[Lacks("noexec")]),
    tree("rnoatime", NONE, NONE, &["rbind", "rnoatime"], &[Has("noatime")], &[Has("noatime")]),
    tree("rnodiratime", NONE, NONE, &["rbind", "rnodiratime"], &[Has("nodiratime")], &[Has("nodiratime")]),
    tree("rnoexec", NONE, NONE, &["rbind", "rnoexec"], &[Has("noexec")], &[Has("noexec")]),
    tree("rnorelatime", NONE, NONE, &["rbind", "rnorelatime"], &[Accepted], &[Accepted]),
    tree(
        "rnostrictatime",
        MsFlags::MS_STRICTATIME,
        MsFlags::MS_STRICTATIME,
        &["rbind", "rnostrictatime"],
        &[Accepted],
        &[Accepted],
    ),
    tree("rnosuid", NONE, NONE, &["rbind", "rnosuid"], &[Has("nosuid")], &[Has("nosuid")]),
    tree("rnosymfollow", NONE, NONE, &["rbind", "rnosymfollow"], &[Has("nosymfollow")], &[Has("nosymfollow")]),
    tree("ro", NONE, NONE, &["rbind", "ro"], &[Has("ro")], &[Has("rw")]),
    tree("rprivate", NONE, NONE, &["rbind", "rprivate"], &[Propagates("")], &[Propagates("")]),
    tree(
        "rrelatime",
        MsFlags::MS_NOATIME,
        MsFlags::MS_NOATIME,
        &["rbind", "rrelatime"],
        &[Has("relatime")],
        &[Has("relatime")],
    ),
    tree("rro", NONE, NONE, &["rbind", "rro"], &[Has("ro")], &[Has("ro")]),
    tree("rrw", MsFlags::MS_RDONLY, MsFlags::MS_RDONLY, &["rbind", "rrw"], &[Has("rw")], &[Has("rw")]),
    tree("rshared", NONE, NONE, &["rbind", "rshared"], &[Propagates("shared:")], &[Propagates("shared:")]),
    tree("rslave", NONE, NONE, &["rbind", "rslave"], &[Propagates("master:")], &[Propagates("master:")]),
    tree(
        "rstrictatime",
        MsFlags::MS_NOATIME,
        MsFlags::MS_NOATIME,
        &["rbind", "rstrictatime"],
        &[Lacks("noatime"), Lacks("relatime")],
        &[Lacks("noatime"), Lacks("relatime")],
    ),
    tree("rsuid", MsFlags::MS_NOSUID, MsFlags::MS_NOSUID, &["rbind", "rsuid"], &[Lacks("nosuid")], &[Lacks("nosuid")]),
    tree(
        "rsymfollow",
        NONE,
        NONE,
        &["rbind", "rnosymfollow", "rsymfollow"],
        &[Lacks("nosymfollow")],
        &[Lacks("nosymfollow")],
    ),
    tree(
        "runbindable",
        NONE,
        NONE,
        &["rbind", "runbindable"],
        &[Propagates("unbindable")],
        &[Propagates("unbindable")],
    ),
    tmpfs("rw", &["ro", "rw"], &[Has("rw"), Lacks("ro")]),
    tree("shared", NONE, NONE, &["rbind", "shared"], &[Propagates("shared:")], &[]),
    tmpfs("silent", &["silent"], &[Accepted]),
    tree("slave", NONE, NONE, &["rbind", "slave"], &[Propagates("master:")], &[]),
    tmpfs("strictatime", &["strictatime"], &[Lacks("relatime"), Lacks("noatime")]),
    tmpfs("suid", &["nosuid", "suid"], &[Lacks("nosuid")]),
    tmpfs("symfollow", &["nosymfollow", "symfollow"], &[Lacks("nosymfollow")]),
    tmpfs("sync", &["sync"], &[SuperHas("sync")]),
    Case {
        option: "unbindable",
        source: Some((NONE, NONE)),
        options: &["bind", "unbindable"],
        top: &[Propagates("unbindable")],
        sub: None,
    },
];

const OTHERS: &[Test] = &[
    Test { name: "option_remount", run: option_remount },
    Test { name: "remount_of_a_bind_leaves_the_host_writable", run: remount_of_a_bind },
    Test { name: "option_tmpcopyup", run: option_tmpcopyup },
    Test { name: "option_idmap", run: option_idmap },
    Test { name: "option_ridmap", run: option_ridmap },
    Test { name: "all_62_options_have_a_test", run: all_options_have_a_test },
    Test { name: "idmap_with_its_own_mappings", run: idmap_with_its_own_mappings },
    Test { name: "idmap_with_mappings_in_the_option", run: idmap_in_the_option },
    Test { name: "idmap_relative_to_the_user_namespace", run: idmap_relative },
    Test { name: "idmap_without_a_user_namespace", run: idmap_without_a_user_namespace },
    Test { name: "ro_and_rro_are_enforced", run: ro_and_rro_are_enforced },
    Test { name: "nosuid_noexec_nodev_are_enforced", run: noexec_is_enforced },
    Test { name: "in_listed_order", run: in_listed_order },
    Test { name: "relative_destination_is_below_the_root", run: relative_destination },
    Test { name: "bind_source_relative_to_the_bundle", run: relative_source },
    Test { name: "bind_a_file", run: bind_a_file },
    Test { name: "bind_does_not_need_a_type", run: bind_without_type },
    Test { name: "bind_clears_flags_that_are_asked_off", run: bind_clears_flags },
    Test { name: "bind_keeps_flags_that_are_not_mentioned", run: bind_keeps_flags },
    Test { name: "bind_writes_through", run: bind_writes_through },
    Test { name: "destination_is_made", run: destination_is_made },
    Test { name: "destination_link_stays_in_the_root", run: destination_link_stays_inside },
    Test { name: "destination_with_odd_characters", run: destination_with_odd_characters },
    Test { name: "data_reaches_the_file_system", run: data_reaches_the_file_system },
    Test { name: "tmpfs_without_mode_keeps_that_of_the_directory", run: tmpfs_keeps_mode },
    Test { name: "proc_sysfs_devpts_mqueue", run: file_systems },
    Test { name: "proc_with_hidepid", run: proc_with_options },
    Test { name: "file_over_proc_of_the_allowed_names", run: file_over_proc },
    Test { name: "cgroup_is_read_only", run: cgroup_is_read_only },
    Test { name: "cgroup_shows_the_containers_own_in_a_cgroup_namespace", run: cgroup_in_a_namespace },
    Test { name: "no_mounts_at_all", run: no_mounts_at_all },
    Test { name: "sysfs_in_a_user_namespace", run: sysfs_in_a_user_namespace },
    Test { name: "closed_source_in_a_user_namespace", run: closed_source },
    Test { name: "closed_source_whatever_groups_the_caller_has", run: closed_source_and_groups },
    Test { name: "closed_source_without_mount_setattr", run: closed_source_without_mount_setattr },
    Test { name: "closed_source_keeps_its_locks", run: closed_source_keeps_its_locks },
    Test { name: "closed_source_of_a_joined_user_namespace", run: closed_source_of_a_joined_user_namespace },
    Test { name: "closed_source_receives_mounts_of_the_host", run: closed_source_receives },
    Test { name: "closed_sources_by_the_hundred", run: closed_sources },
    Test { name: "idmap_keeps_the_locks", run: idmap_keeps_the_locks },
    Test { name: "idmap_receives_mounts_of_the_host", run: idmap_receives },
    Test { name: "idmap_is_not_shared_with_the_host", run: idmap_is_not_shared },
    Test { name: "calls_that_a_filter_denies", run: denied_calls },
    Test { name: "recursive_options_need_mount_setattr", run: recursion_needs },
    Test { name: "idmap_needs_mount_setattr", run: idmap_needs_calls },
    Test { name: "sysfs_of_the_host_is_read_only_to_the_last_mount", run: sysfs_of_the_host },
    Test { name: "two_on_one_destination", run: two_on_one_destination },
    Test { name: "recursive_bind_of_a_tree_with_many_mounts", run: many_submounts },
];

const NAMES: [&str; OPTIONS.len()] = [
    "option_async",
    "option_atime",
    "option_bind",
    "option_defaults",
    "option_dev",
    "option_diratime",
    "option_dirsync",
    "option_exec",
    "option_iversion",
    "option_lazytime",
    "option_loud",
    "option_mand",
    "option_noatime",
    "option_nodev",
    "option_nodiratime",
    "option_noexec",
    "option_noiversion",
    "option_nolazytime",
    "option_nomand",
    "option_norelatime",
    "option_nostrictatime",
    "option_nosuid",
    "option_nosymfollow",
    "option_private",
    "option_ratime",
    "option_rbind",
    "option_rnodev",
    "option_rdev",
    "option_rdiratime",
    "option_relatime",
    "option_rexec",
    "option_rnoatime",
    "option_rnodiratime",
    "option_rnoexec",
    "option_rnorelatime",
    "option_rnostrictatime",
    "option_rnosuid",
    "option_rnosymfollow",
    "option_ro",
    "option_rprivate",
    "option_rrelatime",
    "option_rro",
    "option_rrw",
    "option_rshared",
    "option_rslave",
    "option_rstrictatime",
    "option_rsuid",
    "option_rsymfollow",
    "option_runbindable",
    "option_rw",
    "option_shared",
    "option_silent",
    "option_slave",
    "option_strictatime",
    "option_suid",
    "option_symfollow",
    "option_sync",
    "option_unbindable",
];

const LIST: [Test; OPTIONS.len() + OTHERS.len()] = {
    let mut list = [Test { name: "", run: one_option }; OPTIONS.len() + OTHERS.len()];
    let mut i = 0;
    while i < OPTIONS.len() {
        list[i].name = NAMES[i];
        i += 1;
    }
    while i < list.len() {
        list[i] = OTHERS[i - OPTIONS.len()];
        i += 1;
    }
    list
};

pub const TESTS: &[Test] = &LIST;

const SPEC: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime \
    noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rnodev rdiratime \
    relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate \
    rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid \
    symfollow sync tmpcopyup unbindable idmap ridmap";

fn all_options_have_a_test(_: &Context) -> Outcome {
    let names: Vec<&str> = SPEC.split_whitespace().collect();
    check_eq!(names.len(), 62, "options of the specification");
    for name in names {
        let test = format!("option_{name}");
        check!(TESTS.iter().any(|t| t.name == test), "no test for option {name:?}");
    }
    for (case, name) in OPTIONS.iter().zip(NAMES) {
        check_eq!(format!("option_{}", case.option), name, "name of a test");
    }
    Ok(())
}

/// A source on the host: a tmpfs with a file, and another tmpfs with a file on its directory `sub`.
pub struct Tree {
    pub dir: PathBuf,
}

impl Tree {
    pub fn new(ctx: &Context, flags: MsFlags, sub_flags: MsFlags) -> Outcome<Tree> {
        Tree::at(ctx.new_dir("tree")?, flags, sub_flags)
    }

    /// Where only root and group 0 can search their way to it, as to what kubelet and Docker keep.
    fn closed(ctx: &Context, flags: MsFlags) -> Outcome<Tree> {
        let closed = ctx.new_dir("closed")?;
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o710))?;
        fs::create_dir(closed.join("tree"))?;
        Tree::at(closed.join("tree"), flags, NONE)
    }

    /// At a directory that is there.
    fn at(dir: PathBuf, flags: MsFlags, sub_flags: MsFlags) -> Outcome<Tree> {
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        let tree = Tree { dir };
        fs::write(tree.dir.join("file"), "top")?;
        fs::create_dir(tree.dir.join("sub"))?;
        mount(Some("tmpfs"), &tree.dir.join("sub"), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        fs::write(tree.dir.join("sub/file"), "below")?;
        for (path, flags) in [(tree.dir.join("sub"), sub_flags), (tree.dir.clone(), flags)] {
            if !flags.is_empty() {
                mount(None::<&str>, &path, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, None::<&str>)?;
            }
        }
        Ok(tree)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // The leak check tells what this could not unmount.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

fn expect(seen: &MountInfo, wanted: &[Seen]) -> Outcome {
    for one in wanted {
        let (good, what) = match one {
            Accepted => (true, String::new()),
            Has(option) => (seen.has(option), format!("option {option:?}")),
            Lacks(option) => (!seen.has(option), format!("no option {option:?}")),
            SuperHas(option) => (seen.super_has(option), format!("file system option {option:?}")),
            SuperLacks(option) => (!seen.super_has(option), format!("no file system option {option:?}")),
            Propagates("") => (seen.propagation.is_empty(), "private".into()),
            Propagates(start) => {
                (seen.propagation.iter().any(|p| p.starts_with(start)), format!("propagation {start:?}"))
            }
        };
        check!(good, "expected {what} of {}: {seen:?}", seen.target);
    }
    Ok(())
}

fn one_option(ctx: &Context) -> Outcome {
    let case =
        OPTIONS.iter().find(|c| ctx.name.ends_with(&format!("::option_{}", c.option))).ok_or("no such option")?;
    if case.option.contains("symfollow") {
        ctx.need_kernel(5, 10, "nosymfollow")?;
    }
    let recursive_attribute = case.option.starts_with('r')
        && !["rbind", "ro", "rw", "relatime", "rprivate", "rslave", "rshared", "runbindable"].contains(&case.option);
    let mut bundle = ctx.bundle()?;
    let Some((flags, sub_flags)) = case.source else {
        bundle.mount("/mnt/t", "tmpfs", "tmpfs", case.options);
        return expect(&bundle.report()?.mount("/mnt/t")?, case.top);
    };
    let tree = Tree::new(ctx, flags, sub_flags)?;
    bundle.mount("/mnt/t", "bind", &tree.dir, case.options);
    if recursive_attribute {
        if ctx.filter.is_some() {
            return bundle.refused(NO_RECURSION);
        }
        ctx.need_kernel(5, 12, "a recursive mount option")?;
    }
    let seen = bundle.report()?;
    expect(&seen.mount("/mnt/t")?, case.top)?;
    match case.sub {
        Some(wanted) => expect(&seen.mount("/mnt/t/sub")?, wanted),
        None => {
            check!(seen.mount("/mnt/t/sub").is_err(), "bind took the mount below with it");
            Ok(())
        }
    }
}

fn option_remount(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.mount("/mnt/t", "tmpfs", "tmpfs", &["rw", "size=64k"]);
    bundle.mount("/mnt/t", "tmpfs", "tmpfs", &["remount", "ro", "nosuid"]);
    let seen = bundle.guest(&["report", ",", "write", "/mnt/t/x", "y"]).run()?.ok()?;
    check_eq!(seen.said("write")?["errno"], json!(libc::EROFS), "errno of writing");
    expect(&seen.report()?.mount("/mnt/t")?, &[Has("nosuid")])
}

/// A bind has its superblock from the host: an option that changes it must not take `ro` of the mount there.
fn remount_of_a_bind(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = ctx.bundle()?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["rbind", "ro"]);
    bundle.mount("/mnt/t", "none", "none", &["remount", "sync"]);
    let seen = bundle.report();
    fs::write(tree.dir.join("new"), "").map_err(|e| format!("the host's file system: {e}"))?;
    let seen = seen?.mount("/mnt/t")?;
    expect(&seen, &[Has("ro"), SuperHas("sync"), SuperLacks("ro")])
}

fn option_tmpcopyup(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/mnt/t/deep/file", "content")?;
    fs::set_permissions(bundle.rootfs.join("mnt/t/deep/file"), fs::Permissions::from_mode(0o604))?;
    std::os::unix::fs::chown(bundle.rootfs.join("mnt/t/deep/file"), Some(12), Some(34))?;
    symlink("/etc/passwd", bundle.rootfs.join("mnt/t/link"))?;
    bundle.mount("/mnt/t", "tmpfs", "tmpfs", &["tmpcopyup", "mode=0755"]);
    bundle.guest(&[
        "report",
        ",",
        "read",
        "/mnt/t/deep/file",
        ",",
        "stat",
        "/mnt/t/deep/file",
        ",",
        "write",
        "/mnt/t/deep/file",
        "new",
    ]);
    let run = bundle.run()?.ok()?;
    check_eq!(run.report()?.mount("/mnt/t")?.fs_type, "tmpfs", "file system");
    check_eq!(run.said("read")?["text"], json!("content"), "content");
    let stat = run.said("stat")?;
    check_eq!(
        (&stat["mode"], &stat["uid"], &stat["gid"]),
        (&json!(0o604), &json!(12), &json!(34)),
        "mode, user, group"
    );
    check_eq!(fs::read_to_string(bundle.rootfs.join("mnt/t/deep/file"))?, "content", "the root file system's own file");
    let stat = bundle.guest(&["stat", "/mnt/t/link"]).run()?.ok()?.said("stat")?;
    check_eq!(stat["target"], json!("/etc/passwd"), "link");
    Ok(())
}

/// How Kelson refuses what mount(2) cannot do, where there is no mount_setattr(2).
const NO_RECURSION: &[&str] = &["mounts[7]", "recursive attributes", "rro", "need mount_setattr(2)"];
const NO_IDMAP: &[&str] = &["mounts[7]", "id-mapped mounts need mount_setattr(2)"];

fn idmap_needs(ctx: &Context) -> Outcome {
    ctx.need_new_syscalls("idmap")?;
    // tmpfs can be idmapped since 6.3.
    ctx.need_kernel(6, 3, "an idmapped tmpfs")
}

/// Expects these owners of files in the container: (path, user, group). Without mount_setattr(2) the mount is refused.
fn sees_owners(bundle: &mut Bundle, wanted: &[(&str, u64, u64)]) -> Outcome {
    if bundle.context.filter.is_some() {
        return bundle.refused(NO_IDMAP);
    }
    idmap_needs(bundle.context)?;
    for (path, uid, gid) in wanted {
        let stat = bundle.guest(&["stat", path]).run()?.ok()?.said("stat")?;
        check_eq!((&stat["uid"], &stat["gid"]), (&json!(uid), &json!(gid)), "owner of {path}");
    }
    Ok(())
}

fn option_idmap(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    std::os::unix::fs::chown(tree.dir.join("file"), Some(7), Some(8))?;
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["rbind", "idmap"]);
    // What is mounted below it is not idmapped.
    sees_owners(&mut bundle, &[("/mnt/t/file", 7, 8), ("/mnt/t/sub/file", 65534, 65534)])
}

fn option_ridmap(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["rbind", "ridmap"]);
    sees_owners(&mut bundle, &[("/mnt/t/file", 0, 0), ("/mnt/t/sub/file", 0, 0)])
}

fn idmap_with_its_own_mappings(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.push(
        "/mounts",
        json!({
            "destination": "/mnt/t", "type": "bind", "source": tree.dir, "options": ["rbind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 100_005, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 100_006, "size": 10}],
        }),
    );
    sees_owners(&mut bundle, &[("/mnt/t/file", 5, 6)])
}

/// crun's extension, which podman passes on: file system id, host id, count.
fn idmap_in_the_option(ctx: &Context) -> Outcome {
    idmap_option(ctx, "idmap=uids=0-100005-10;gids=0-100006-10")
}

/// With `@` the second number is an id of the container.
fn idmap_relative(ctx: &Context) -> Outcome {
    idmap_option(ctx, "idmap=uids=@0-5-10;gids=@0-6-10")
}

fn idmap_option(ctx: &Context, option: &str) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["bind", option]);
    sees_owners(&mut bundle, &[("/mnt/t/file", 5, 6)])
}

fn idmap_without_a_user_namespace(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = ctx.bundle()?;
    let map = json!([{"containerID": 0, "hostID": 4321, "size": 10}]);
    bundle.push(
        "/mounts",
        json!({
            "destination": "/mnt/t", "type": "bind", "source": tree.dir, "options": ["bind", "idmap"],
            "uidMappings": map, "gidMappings": map,
        }),
    );
    sees_owners(&mut bundle, &[("/mnt/t/file", 4321, 4321)])
}

fn ro_and_rro_are_enforced(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = ctx.bundle()?;
    bundle.privileged().mount("/mnt/t", "bind", &tree.dir, &["rbind", "ro"]);
    bundle.guest(&["write", "/mnt/t/new", "x"]);
    check_eq!(bundle.run()?.ok()?.said("write")?["errno"], json!(libc::EROFS), "errno on a ro bind");
    bundle.guest(&["write", "/mnt/t/sub/new", "x"]);
    check_eq!(bundle.run()?.ok()?.said("write")?["errno"], json!(0), "errno below a ro bind");
    bundle.edit(|c| c["mounts"].as_array_mut().map(|l| l.pop()).map_or((), drop));
    bundle.mount("/mnt/t", "bind", &tree.dir, &["rbind", "rro"]);
    if ctx.filter.is_some() {
        return bundle.refused(NO_RECURSION);
    }
    check_eq!(bundle.run()?.ok()?.said("write")?["errno"], json!(libc::EROFS), "errno below an rro bind");
    Ok(())
}

fn noexec_is_enforced(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let dir = ctx.new_dir("source")?;
    fs::copy(&ctx.guest, dir.join("guest"))?;
    bundle.mount("/mnt/t", "bind", &dir, &["bind", "noexec", "nodev"]);
    bundle.guest(&[
        "run",
        "/mnt/t/guest",
        "exit",
        "0",
        ",",
        "mknod",
        "/mnt/t/null",
        "c",
        "1",
        "3",
        ",",
        "open",
        "/mnt/t/null",
        "rw",
    ]);
    bundle.privileged().remove("/linux/resources/devices");
    let run = bundle.run()?.ok()?;
    check_eq!(run.said("run")?["errno"], json!(libc::EACCES), "errno of executing on noexec");
    check_eq!(run.said("mknod")?["errno"], json!(0), "errno of mknod");
    check_eq!(run.said("open")?["errno"], json!(libc::EACCES), "errno of opening a device on nodev");
    Ok(())
}

fn in_listed_order(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.mount("/mnt/a", "tmpfs", "one", &[]).mount("/mnt/a/b", "tmpfs", "two", &[]).mount(
        "/mnt/c",
        "tmpfs",
        "three",
        &[],
    );
    let seen = bundle.report()?;
    let order: Vec<String> =
        seen.mounts().into_iter().filter(|m| m.target.starts_with("/mnt/")).map(|m| m.target).collect();
    check_eq!(order, ["/mnt/a", "/mnt/a/b", "/mnt/c"], "mounts in order");
    Ok(())
}

fn relative_destination(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.mount("mnt/relative", "tmpfs", "tmpfs", &[]);
    bundle.report()?.mount("/mnt/relative")?;
    Ok(())
}

fn relative_source(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    fs::create_dir(bundle.dir.join("beside"))?;
    fs::write(bundle.dir.join("beside/file"), "found")?;
    bundle.mount("/mnt/t", "bind", "beside", &["bind"]).guest(&["read", "/mnt/t/file"]);
    // The caller's directory is another one.
    check_eq!(bundle.run_command()?.cwd("/").run()?.ok()?.said("read")?["text"], json!("found"), "content");
    Ok(())
}

fn bind_a_file(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let file = ctx.dir.join("file");
    fs::write(&file, "bound")?;
    bundle.mount("/new/dir/file", "bind", &file, &["bind", "ro"]);
    bundle.guest(&["read", "/new/dir/file", ",", "write", "/new/dir/file", "x"]);
    let run = bundle.run()?.ok()?;
    check_eq!(run.said("read")?["text"], json!("bound"), "content");
    check_eq!(run.said("write")?["errno"], json!(libc::EROFS), "errno of writing");
    Ok(())
}

fn bind_without_type(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let tree = Tree::new(ctx, NONE, NONE)?;
    bundle.push("/mounts", json!({"destination": "/mnt/a", "source": tree.dir, "options": ["bind"]}));
    bundle.push("/mounts", json!({"destination": "/mnt/b", "source": tree.dir, "type": "none", "options": ["rbind"]}));
    let seen = bundle.report()?;
    seen.mount("/mnt/a")?;
    seen.mount("/mnt/b/sub")?;
    Ok(())
}

fn bind_clears_flags(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let tree = Tree::new(ctx, flags, NONE)?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["bind", "rw", "suid", "dev", "exec"]);
    expect(&bundle.report()?.mount("/mnt/t")?, &[Has("rw"), Lacks("nosuid"), Lacks("nodev"), Lacks("noexec")])
}

fn bind_keeps_flags(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let tree = Tree::new(ctx, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME, NONE)?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["bind"]);
    expect(&bundle.report()?.mount("/mnt/t")?, &[Has("nosuid"), Has("nodev"), Has("noexec"), Has("noatime")])
}

fn bind_writes_through(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let dir = ctx.new_dir("source")?;
    bundle.mount("/mnt/t", "bind", &dir, &["bind"]).guest(&["write", "/mnt/t/file", "from inside"]);
    bundle.run()?.ok()?;
    check_eq!(fs::read_to_string(dir.join("file"))?, "from inside", "the host's file");
    Ok(())
}

fn destination_is_made(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.mount("/not/there/yet", "tmpfs", "tmpfs", &[]);
    bundle.report()?.mount("/not/there/yet")?;
    let meta = fs::metadata(bundle.rootfs.join("not/there/yet"))?;
    check_eq!(meta.mode() & 0o777, 0o755, "mode of the directory that was made");
    Ok(())
}

fn destination_link_stays_inside(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let outside = ctx.new_dir("outside")?;
    symlink(&outside, bundle.rootfs.join("escape"))?;
    symlink("../../../../../../mnt", bundle.rootfs.join("up"))?;
    bundle.mount("/escape/in", "tmpfs", "one", &[]).mount("/up/in", "tmpfs", "two", &[]);
    let seen = bundle.report()?;
    let target = format!("{}/in", outside.display());
    check_eq!(seen.mount(&target)?.source, "one", "source of the mount where the link leads inside");
    check_eq!(seen.mount("/mnt/in")?.source, "two", "source of the mount where the second link leads");
    check_eq!(fs::read_dir(&outside)?.count(), 0, "files in the host's directory");
    Ok(())
}

fn destination_with_odd_characters(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let names = ["/mnt/with space", "/mnt/with,comma", "/mnt/with:colon", "/mnt/back\\slash", "/mnt/üñï"];
    for name in names {
        bundle.mount(name, "tmpfs", "tmpfs", &["size=64k"]);
    }
    let dir = ctx.new_dir("source, with: all")?;
    bundle.mount("/mnt/bound", "bind", &dir, &["bind"]);
    let seen = bundle.report()?;
    for name in names {
        seen.mount(name)?;
    }
    Ok(())
}

fn data_reaches_the_file_system(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.mount("/mnt/t", "tmpfs", "named", &["size=256k", "mode=0710", "uid=5", "gid=6", "nr_inodes=99", "noexec"]);
    let run = bundle.guest(&["report", ",", "stat", "/mnt/t"]).run()?.ok()?;
    let seen = run.report()?.mount("/mnt/t")?;
    check_eq!(seen.source, "named", "source");
    expect(&seen, &[SuperHas("size=256k"), SuperHas("nr_inodes=99"), Has("noexec")])?;
    let stat = run.said("stat")?;
    check_eq!((&stat["mode"], &stat["uid"], &stat["gid"]), (&json!(0o710), &json!(5), &json!(6)), "mode, user, group");
    Ok(())
}

/// runc and crun take the mode of the directory below; it matters for /tmp (runc#4971).
fn tmpfs_keeps_mode(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["nosuid"]).guest(&["stat", "/tmp"]);
    check_eq!(bundle.run()?.ok()?.said("stat")?["mode"], json!(0o1777), "mode of /tmp");
    Ok(())
}

fn file_systems(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.report()?;
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        check_eq!(seen.mount(target)?.fs_type, kind, "file system on {target}");
    }
    expect(&seen.mount("/sys")?, &[Has("ro"), Has("nosuid"), Has("nodev"), Has("noexec")])?;
    let pts = seen.mount("/dev/pts")?;
    expect(&pts, &[Has("nosuid"), Has("noexec"), SuperHas("ptmxmode=666"), SuperHas("mode=620")])
}

fn proc_with_options(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.without_mount("/proc");
    bundle.edit(|c| {
        let proc =
            json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "hidepid=2"]});
        if let Some(list) = c["mounts"].as_array_mut() {
            list.insert(0, proc);
        }
    });
    let seen = bundle.report()?.mount("/proc")?;
    check!(seen.super_options.iter().any(|o| o == "hidepid=invisible" || o == "hidepid=2"), "options: {seen:?}");
    expect(&seen, &[Has("nosuid")])
}

fn file_over_proc(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let file = ctx.dir.join("uptime");
    fs::write(&file, "1.00 1.00\n")?;
    bundle.mount("/proc/uptime", "bind", &file, &["bind", "ro"]).guest(&["read", "/proc/uptime"]);
    check_eq!(bundle.run()?.ok()?.said("read")?["text"], json!("1.00 1.00\n"), "content of /proc/uptime");
    Ok(())
}

fn cgroup_path(ctx: &Context) -> PathBuf {
    if ctx.is_v2() { "/sys/fs/cgroup".into() } else { Path::new("/sys/fs/cgroup").join("pids") }
}

fn cgroup_is_read_only(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let new = cgroup_path(ctx).join("new").to_string_lossy().into_owned();
    let procs = cgroup_path(ctx).join("cgroup.procs").to_string_lossy().into_owned();
    let run = bundle.privileged().guest(&["mkdir", &new, ",", "read", &procs]).run()?.ok()?;
    check_eq!(run.said("mkdir")?["errno"], json!(libc::EROFS), "errno of mkdir in the cgroup mount");
    check_eq!(run.said("read")?["errno"], json!(0), "errno of reading {procs}");
    // On v1 the container's own cgroup is shown; on v2 that needs a cgroup namespace.
    if !ctx.is_v2() {
        check_eq!(run.said("read")?["text"], json!("1\n"), "processes in {procs}");
    }
    Ok(())
}

fn cgroup_in_a_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let procs = cgroup_path(ctx).join("cgroup.procs").to_string_lossy().into_owned();
    let run = bundle.namespace("cgroup", None).guest(&["report", ",", "read", &procs]).run()?.ok()?;
    check_eq!(run.said("read")?["text"], json!("1\n"), "processes in {procs}");
    let lines = run.report()?["cgroup"].clone();
    for line in lines.as_array().into_iter().flatten().filter_map(|l| l.as_str()) {
        // On a hybrid host the runtimes leave the unified hierarchy alone.
        let ok = line.ends_with(":/") || line.starts_with("0::") != ctx.is_v2();
        check!(ok, "the cgroup is not the root of its namespace: {line}");
    }
    Ok(())
}

fn no_mounts_at_all(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/mounts", json!([])).remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    bundle.guest(&["ls", "/proc", ",", "exit", "5"]);
    check_eq!(bundle.run()?.exits(5)?.said("ls")?, json!([]), "entries of /proc");
    Ok(())
}

fn sysfs_in_a_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    check_eq!(bundle.report()?.mount("/sys")?.fs_type, "sysfs", "file system on /sys");
    Ok(())
}

/// Filters that are older than the calls answer EPERM in place of ENOSYS.
fn denied_calls(ctx: &Context) -> Outcome {
    let calls = [
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
    ];
    let filter = || sys::BeforeExec::Seccomp(sys::hide_calls(&calls, libc::EPERM));
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = ctx.bundle()?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["rbind", "ro", "nosuid"]).mount("/mnt/n", "tmpfs", "tmpfs", &["ro"]);
    bundle.mount("/mnt/t", "none", "none", &["remount", "sync"]).set("/root/readonly", true);
    let seen = bundle.run_command()?.before_exec(filter()).run()?.ok()?.report()?;
    expect(&seen.mount("/mnt/t")?, &[Has("ro"), Has("nosuid"), SuperHas("sync"), SuperLacks("ro")])?;
    expect(&seen.mount("/mnt/n")?, &[Has("ro")])?;
    expect(&seen.mount("/")?, &[Has("ro")])?;
    let mut bundle = with_tree(ctx, &tree, &["rbind", "ro"])?;
    shows_both(bundle.run_command()?.before_exec(filter()).run()?)
}

fn recursion_needs(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    for option in ["rro", "rnosuid", "rdev", "rnoatime"] {
        let change = |b: &mut Bundle| -> Outcome {
            b.mount("/mnt/t", "bind", &tree.dir, &["rbind", option]);
            Ok(())
        };
        no_fallback(ctx, change, NO_RECURSION).map_err(|e| e.during(option))?;
    }
    Ok(())
}

fn idmap_needs_calls(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let mount = |map: &crate::harness::Value, options: &[&str]| json!({"destination": "/mnt/t", "source": tree.dir, "options": options, "uidMappings": map, "gidMappings": map});
    let none = json!([]);
    for (mount, has_user_namespace) in [
        (mount(&map, &["rbind"]), false),
        (mount(&map, &["rbind", "ridmap"]), false),
        (mount(&none, &["bind", "idmap"]), true),
        (mount(&none, &["rbind", "ridmap=uids=0-1-5;gids=0-1-5"]), false),
    ] {
        let change = |b: &mut Bundle| -> Outcome {
            if has_user_namespace {
                b.user_namespace(&[(0, 100_000, 65536)])?;
            }
            b.push("/mounts", mount.clone());
            Ok(())
        };
        no_fallback(ctx, change, NO_IDMAP).map_err(|e| e.during(&mount.to_string()))?;
    }
    Ok(())
}

/// Linux 5.10 has no mount_setattr(2), an older filter not even open_tree(2): what mount(2) cannot do is refused by name.
fn no_fallback(ctx: &Context, change: impl Fn(&mut Bundle) -> Outcome, words: &[&str]) -> Outcome {
    let words = if ctx.peer == Peer::Kelson { words } else { &[] };
    for missing in [&[libc::SYS_mount_setattr][..], &[libc::SYS_mount_setattr, libc::SYS_open_tree]] {
        let filter = || sys::BeforeExec::Seccomp(sys::hide_calls(missing, libc::ENOSYS));
        let mut bundle = ctx.bundle()?;
        change(&mut bundle)?;
        bundle.run_command()?.before_exec(filter()).run()?.fails_saying(words)?;
        let mut container = bundle.container()?;
        let mut run = container.create_command()?.before_exec(filter()).run()?;
        run.stderr = container.stderr().into_bytes();
        run.fails_saying(words)?;
        check!(ctx.state_entries().is_empty(), "left: {:?}", ctx.state_entries());
    }
    Ok(())
}

/// A container in a user namespace with the tree at /mnt/t.
fn with_tree<'c>(ctx: &'c Context, tree: &Tree, options: &[&str]) -> Outcome<Bundle<'c>> {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.mount("/mnt/t", "bind", &tree.dir, options).guest(&["read", "/mnt/t/file", ",", "read", "/mnt/t/sub/file"]);
    Ok(bundle)
}

fn shows_both(run: crate::harness::Run) -> Outcome {
    let texts: Vec<_> = run.ok()?.lines().iter().map(|line| line["read"]["text"].clone()).collect();
    check_eq!(texts, [json!("top"), json!("below")], "files of the tree");
    Ok(())
}

fn closed_source(ctx: &Context) -> Outcome {
    let tree = Tree::closed(ctx, NONE)?;
    shows_both(with_tree(ctx, &tree, &["rbind"])?.run()?)
}

/// Group 0 opens the directory to the caller, not to the container's root.
fn closed_source_and_groups(ctx: &Context) -> Outcome {
    let tree = Tree::closed(ctx, NONE)?;
    let before = nix::unistd::getgroups()?;
    nix::unistd::setgroups(&[0.into()])?;
    let run = with_tree(ctx, &tree, &["rbind"])?.run();
    nix::unistd::setgroups(&before)?;
    shows_both(run?)
}

/// Linux 5.2 to 5.11.
fn closed_source_without_mount_setattr(ctx: &Context) -> Outcome {
    let tree = Tree::closed(ctx, NONE)?;
    let filter = sys::hide_calls(&[libc::SYS_mount_setattr], libc::ENOSYS);
    shows_both(with_tree(ctx, &tree, &["rbind"])?.run_command()?.before_exec(sys::BeforeExec::Seccomp(filter)).run()?)
}

/// What the container gets of a restricted tree: all restrictions, none of which it can lift.
fn keeps_its_locks(ctx: &Context, options: &[&str]) -> Outcome {
    let tree = Tree::closed(ctx, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    let mut bundle = with_tree(ctx, &tree, options)?;
    bundle.privileged().guest(&["report", ",", "attack", "lift", "/mnt/t"]);
    let run = bundle.run()?.ok()?;
    expect(&run.report()?.mount("/mnt/t")?, &[Has("ro"), Has("nosuid"), Has("nodev"), Has("noexec")])?;
    let errnos = json!({"remount": libc::EPERM, "umount": libc::EINVAL});
    check_eq!(run.said("attack")?, errnos, "what the container can do about it");
    let mut bundle = with_tree(ctx, &tree, &[options, &["exec"]].concat())?;
    bundle.guest(&["report"]);
    let run = bundle.run()?;
    if run.code == 0 {
        expect(&run.report()?.mount("/mnt/t")?, &[Has("noexec")])?;
    }
    Ok(())
}

fn closed_source_keeps_its_locks(ctx: &Context) -> Outcome {
    keeps_its_locks(ctx, &["rbind"])
}

fn idmap_keeps_the_locks(ctx: &Context) -> Outcome {
    idmap_needs(ctx)?;
    keeps_its_locks(ctx, &["rbind", "idmap"])?;
    // Without what is mounted below it, too.
    keeps_its_locks(ctx, &["bind", "idmap"])
}

fn closed_source_of_a_joined_user_namespace(ctx: &Context) -> Outcome {
    let tree = Tree::closed(ctx, NONE)?;
    let mut bundle = with_tree(ctx, &tree, &["rbind"])?;
    let holder = super::namespaces::Holder::new(libc::CLONE_NEWUSER)?;
    super::namespaces::map_ids(&holder, 100_000)?;
    bundle.namespace("user", Some(&holder.path("user")));
    shows_both(bundle.run()?)
}

/// `rslave` of a tree that the host shares: it has a master.
fn is_slave(ctx: &Context, options: &[&str]) -> Outcome {
    let tree = Tree::closed(ctx, NONE)?;
    mount(None::<&str>, &tree.dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)?;
    let mut bundle = with_tree(ctx, &tree, &[options, &["rslave"]].concat())?;
    bundle.guest(&["report"]);
    let seen = bundle.report()?;
    expect(&seen.mount("/mnt/t")?, &[Propagates("master:")])?;
    expect(&seen.mount("/mnt/t/sub")?, &[Propagates("master:")])?;
    if ctx.peer != Peer::Kelson {
        return Ok(());
    }
    // And without the option it has none; runc's have.
    let mut bundle = with_tree(ctx, &tree, options)?;
    bundle.guest(&["report"]);
    let seen = bundle.report()?;
    expect(&seen.mount("/mnt/t")?, &[Propagates("")])?;
    expect(&seen.mount("/mnt/t/sub")?, &[Propagates("")])
}

fn closed_source_receives(ctx: &Context) -> Outcome {
    is_slave(ctx, &["rbind"])
}

fn idmap_receives(ctx: &Context) -> Outcome {
    idmap_needs(ctx)?;
    is_slave(ctx, &["rbind", "idmap"])
}

fn idmap_is_not_shared(ctx: &Context) -> Outcome {
    idmap_needs(ctx)?;
    let tree = Tree::new(ctx, NONE, NONE)?;
    let mut bundle = with_tree(ctx, &tree, &["rbind", "idmap", "rshared"])?;
    bundle.set("/linux/rootfsPropagation", "rshared");
    bundle.refused(&["id-mapped", "options"])
}

/// More than fit into one message.
fn closed_sources(ctx: &Context) -> Outcome {
    let tree = Tree::closed(ctx, NONE)?;
    let mut bundle = with_tree(ctx, &tree, &["rbind"])?;
    for number in 0..300 {
        bundle.mount(&format!("/mnt/m{number}"), "bind", tree.dir.join("file"), &["bind"]);
    }
    bundle.guest(&["read", "/mnt/m299"]);
    check_eq!(bundle.run()?.ok()?.said("read")?["text"], json!("top"), "the last of the files");
    Ok(())
}

/// Without a network namespace a user namespace may not mount sysfs and gets the host's (CVE-2023-25809).
fn sysfs_of_the_host(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.without_namespace("network").without_mount("/sys/fs/cgroup").guest(&["report", ",", "ls", "/sys/fs/cgroup"]);
    if ctx.filter.is_some() {
        return bundle.refused(&["mounts[5]", "sysfs", "only mount_setattr(2)"]);
    }
    let run = bundle.run()?.ok()?;
    let mounts = run.report()?.mounts();
    let below: Vec<&MountInfo> =
        mounts.iter().filter(|m| m.target == "/sys" || m.target.starts_with("/sys/")).collect();
    check!(!below.is_empty(), "no sysfs");
    for mount in below {
        expect(mount, &[Has("ro"), Has("nosuid"), Has("nodev"), Has("noexec")])?;
    }
    check_eq!(run.said("ls")?, json!([]), "files in /sys/fs/cgroup");
    Ok(())
}

fn two_on_one_destination(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.mount("/mnt/t", "tmpfs", "lower", &[]).mount("/mnt/t", "tmpfs", "upper", &["ro"]);
    let seen = bundle.report()?;
    check_eq!(seen.mounts().iter().filter(|m| m.target == "/mnt/t").count(), 2, "mounts on /mnt/t");
    check_eq!(seen.mount("/mnt/t")?.source, "upper", "the topmost");
    Ok(())
}

fn many_submounts(ctx: &Context) -> Outcome {
    let tree = Tree::new(ctx, NONE, NONE)?;
    for i in 0..40 {
        let dir = tree.dir.join(format!("m{i}"));
        fs::create_dir(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    }
    let mut bundle = ctx.bundle()?;
    bundle.mount("/mnt/t", "bind", &tree.dir, &["rbind", "rprivate", "nosuid"]);
    let seen = bundle.report()?;
    check_eq!(seen.mounts().iter().filter(|m| m.target.starts_with("/mnt/t/m")).count(), 40, "mounts below");
    Ok(())
}
