//! Trees as GNU tar and umoci unpack them, and layers as the kernel's overlay shows them. Needs Debian's tar, umoci, attr, libcap2-bin.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kelson_image::unpack::Options;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

mod trees;

use trees::{Node, Scratch, assert_equal, has, shell, told, tree};

/// All kinds of files, and names and numbers that do not fit in a header.
const MAKE_TREE: &str = r#"
mkdir -p tree/deep/"$(printf 'd%.0s' {1..120})"/"$(printf 'e%.0s' {1..120})" tree/modes/{sticky,setgid,closed}
long=tree/deep/"$(printf 'd%.0s' {1..120})"/"$(printf 'e%.0s' {1..120})"
echo long >"$long/file"
ln -s "$(printf 'target/%.0s' {1..30})" "$long/link"
echo setuid >tree/modes/setuid && chown 1:2 tree/modes/setuid && chmod 6755 tree/modes/setuid
echo closed >tree/modes/closed/file && chmod 0 tree/modes/closed/file
chmod 1777 tree/modes/sticky && chmod 2750 tree/modes/setgid && chown 3:4 tree/modes/setgid && chmod 0 tree/modes/closed
touch tree/modes/setgid/file && chown 2000000:3000000 tree/modes/setgid/file
mkfifo -m 620 tree/fifo && mknod -m 660 tree/disk b 259 300 && mknod -m 666 tree/null c 1 3
ln tree/modes/setuid tree/again && ln -s again tree/link && ln -P tree/link tree/link-again && chown -h 5:6 tree/link
truncate -s 3M tree/sparse && printf x | dd of=tree/sparse bs=1 seek=1M conv=notrunc status=none
truncate -s 1M tree/hole
head -c 700000 /dev/urandom >tree/large
printf 'name with \n and \\ and \303\251' >"tree/$(printf 'odd \n \\ \303\251')"
setfattr -n user.a -v value tree/large && setfattr -n user.b -v dir tree/deep
setcap cap_net_raw+ep tree/large
touch -d '1969-12-31 23:59:58.25 UTC' tree/hole
touch -h -d '2021-02-03 04:05:06.789012345 UTC' tree/link
touch -d '2040-01-01 00:00:00.5 UTC' tree/modes/closed tree/deep tree
"#;

#[test]
fn trees_are_as_tar_unpacks_them() {
    if !has(&["tar", "setfattr", "setcap"]) {
        return;
    }
    let scratch = Scratch::new();
    shell(&scratch.0, MAKE_TREE);
    let at_seconds = |tree: BTreeMap<PathBuf, Node>| -> BTreeMap<PathBuf, Node> {
        tree.into_iter().map(|(path, node)| (path, node.at_seconds())).collect()
    };
    for (number, (create, extract)) in [
        ("--format=pax --xattrs --xattrs-include=*", "--xattrs --xattrs-include=*"),
        ("--format=pax --xattrs --xattrs-include=* --sparse", "--xattrs --xattrs-include=*"),
        ("--format=pax --sparse --sparse-version=0.0", ""),
        ("--format=pax --sparse --sparse-version=0.1", ""),
        ("--format=gnu", ""),
        ("--format=gnu --sparse", ""),
    ]
    .into_iter()
    .enumerate()
    {
        shell(
            &scratch.0,
            &format!(
                "tar {create} --numeric-owner -C tree -cf {number}.tar . && mkdir tar-{number} && \
                 tar {extract} --numeric-owner --preserve-permissions -C tar-{number} -xf {number}.tar"
            ),
        );
        scratch.unpack(&format!("{number}.tar"), &format!("ours-{number}"), &Options::default());
        let (ours, theirs) =
            (tree(&scratch.at(&format!("ours-{number}"))), tree(&scratch.at(&format!("tar-{number}"))));
        assert!(ours.len() > 20);
        assert_equal(&ours, &theirs, "tar");
        if number < 2 {
            assert_equal(&ours, &tree(&scratch.at("tree")), "tree");
        } else if create.contains("gnu") {
            let bare = |tree| at_seconds(tree).into_iter().map(|(path, node)| (path, node.without_xattrs())).collect();
            assert_equal(&bare(ours), &bare(tree(&scratch.at("tree"))), "tree");
        }
    }
}

/// What the host has: programs, links and hard links of Debian's.
const REAL: &str = "usr/share/zoneinfo etc/alternatives usr/share/perl5";

#[test]
fn a_real_tree_is_as_tar_and_umoci_unpack_it() {
    if !has(&["tar", "umoci", "gzip", "zstd"]) {
        return;
    }
    let scratch = Scratch::new();
    shell(
        &scratch.0,
        &format!(
            "tar --format=pax --numeric-owner -C / -cf real.tar {REAL} && gzip -k real.tar && zstd -q real.tar
             mkdir tar && tar --numeric-owner --preserve-permissions -C tar -xf real.tar"
        ),
    );
    umoci(&scratch.0, &["real.tar"]);
    let ours: Vec<_> = ["real.tar", "real.tar.gz", "real.tar.zst"]
        .iter()
        .map(|archive| scratch.unpack(archive, &format!("ours-{archive}"), &Options::default()))
        .collect();
    assert!(ours.iter().all(|unpacked| unpacked.diff_id == ours[0].diff_id && unpacked.entries > 1000));
    // Parents that no entry describes are as whoever unpacks thinks right.
    let described = |path: &Path| {
        let mut tree = tree(path);
        tree.retain(|path, _| REAL.split(' ').any(|below| path.starts_with(below)));
        tree
    };
    let expected = described(&scratch.at("ours-real.tar"));
    assert!(expected.len() > 1000);
    for archive in ["real.tar.gz", "real.tar.zst"] {
        assert_equal(&described(&scratch.at(&format!("ours-{archive}"))), &expected, "ours of tar");
    }
    assert_equal(&expected, &described(&scratch.at("tar")), "tar");
    assert_equal(&expected, &described(&scratch.at("umoci")), "umoci");
}

/// Unpacks the layers, lowest first, to umoci/ in the directory.
fn umoci(directory: &Path, layers: &[&str]) {
    let add: String = layers.iter().map(|layer| format!("umoci raw add-layer --image layout:t {layer}\n")).collect();
    shell(
        directory,
        &format!(
            "umoci init --layout layout\numoci new --image layout:t\n{add}umoci raw unpack --image layout:t umoci"
        ),
    );
}

/// Two layers: what the upper one hides, keeps and replaces of the lower one. A file of docker's has no whiteout for what is new.
const MAKE_LAYERS: &str = r#"
mkdir -p low/{dir/sub,opaque/sub,again,file_to_dir_later,deep/er} up/{dir,opaque,again,deep/er}
for file in dir/{gone,kept,replaced,sub/x} opaque/{old,sub/y} again/old gone deep/er/{gone,kept} to_dir; do echo low >low/$file; done
ln -s dir low/link && ln -s dir low/link_gone
echo up >up/dir/replaced && touch up/dir/.wh.gone up/dir/.wh.sub up/.wh.gone up/.wh.link_gone up/deep/er/.wh.gone
touch up/opaque/.wh..wh..opq && echo up >up/opaque/new
touch up/.wh.again && echo up >up/again/new
mkdir up/to_dir && echo up >up/to_dir/file
touch -d '2020-01-02 UTC' low up low/* up/* low/*/* up/*/*
tar --format=pax --owner=0 --group=0 -C low -cf low.tar .
# The whiteout of `again` before the directory, as docker has it.
tar --format=pax --owner=0 --group=0 -C up -cf up.tar ./.wh.again
tar --format=pax --owner=0 --group=0 -C up --append --exclude=./.wh.again -f up.tar .
"#;

/// What is to be seen of the two.
const SEEN: &[(&str, &str)] = &[
    ("again/new", "up\n"),
    ("deep/er/kept", "low\n"),
    ("dir/kept", "low\n"),
    ("dir/replaced", "up\n"),
    ("link", ""),
    ("opaque/new", "up\n"),
    ("to_dir/file", "up\n"),
];

#[test]
fn layers_are_what_the_kernel_and_umoci_make_of_them() {
    if !has(&["tar", "umoci"]) {
        return;
    }
    let scratch = Scratch::new();
    shell(&scratch.0, MAKE_LAYERS);
    scratch.unpack("low.tar", "ours-low", &Options::default());
    scratch.unpack("up.tar", "ours-up", &Options::default());
    umoci(&scratch.0, &["low.tar", "up.tar"]);
    fs::create_dir(scratch.at("merged")).unwrap();
    let (merged, layers) = (
        scratch.at("merged"),
        format!("lowerdir={}:{}", scratch.at("ours-up").display(), scratch.at("ours-low").display()),
    );
    // The namespace of the thread goes with it, and so does the mount.
    let seen = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(layers.as_str())).unwrap();
        tree(&merged)
    });
    let seen = seen.join().unwrap();
    for (path, content) in SEEN.iter().filter(|(_, content)| !content.is_empty()) {
        assert_eq!(fs::read_to_string(scratch.at("umoci").join(path)).unwrap(), *content, "{path}");
    }
    let files = |tree: &BTreeMap<PathBuf, Node>| -> Vec<PathBuf> {
        tree.iter().filter(|(_, node)| !node.is_dir()).map(|(path, _)| path.clone()).collect()
    };
    assert_eq!(files(&seen), SEEN.iter().map(|(path, _)| PathBuf::from(path)).collect::<Vec<_>>());
    let bare =
        |tree: BTreeMap<PathBuf, Node>| tree.into_iter().map(|(path, node)| (path, node.without_xattrs())).collect();
    assert_equal(&bare(seen), &bare(tree(&scratch.at("umoci"))), "umoci");
}

/// An ordinary user, Debian's nobody.
const USER: u32 = 65534;

#[test]
fn an_ordinary_user_unpacks_and_mounts_layers() {
    if !has(&["tar", "setpriv", "unshare"]) {
        return;
    }
    let scratch = Scratch::new();
    shell(&scratch.0, MAKE_LAYERS);
    // What no ordinary user may make, and directories that its owner may not write.
    shell(
        &scratch.0,
        "mknod up/device c 1 3; mkdir -p up/closed/deep; echo closed >up/closed/deep/file; chmod 400 up/closed/deep/file
         chmod 500 up/closed/deep; chmod 0 up/closed; chown 1:2 up/dir/replaced
         tar --format=pax -C up --append -f up.tar ./device ./closed",
    );
    let example = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join("unpack");
    fs::copy(example, scratch.at("unpack")).unwrap();
    fs::create_dir(scratch.at("user")).unwrap();
    fs::set_permissions(&scratch.0, PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(scratch.at("user"), Some(USER), Some(USER)).unwrap();
    let as_user = |script: &str| {
        let (id, directory) = (USER.to_string(), scratch.at("user"));
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "bash", "-euo", "pipefail", "-c", script]);
        told(command.current_dir(directory).output().unwrap())
    };
    as_user("../unpack ../low.tar low");
    let told = as_user("../unpack ../up.tar up");
    assert!(told.contains("devices: 1"), "{told}");
    let listed = as_user(
        "mkdir merged
         unshare --user --map-root-user --mount bash -euc '
            mount -t overlay overlay -o userxattr,lowerdir=up:low merged
            cd merged && find . ! -type d -printf \"%P\\n\" && cat dir/replaced && stat -c %a closed && cat closed/deep/file'",
    );
    let mut lines: Vec<_> = listed.lines().collect();
    let rest = lines.split_off(SEEN.len() + 1);
    lines.sort_unstable();
    let mut expected: Vec<_> = SEEN.iter().map(|(path, _)| *path).chain(["closed/deep/file"]).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert_eq!(rest, ["up", "0", "closed"]);
    // Though nobody but its owner may do so: the layer can be removed.
    let user = fs::File::open(scratch.at("user")).unwrap();
    kelson_image::unpack::remove(std::os::fd::AsFd::as_fd(&user), "up".as_ref()).unwrap();
}
