//! Whose the files are: of root's store, and of an ordinary user's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Output};

use nix::unistd::geteuid;
use serde_json::Value;
use tar::{Builder, Header};

use crate::support::{Image, Scratch, archive, error_of, need, same};

/// The user of these tests, who has no name outside of them, and the first of the ids that are given to that user.
const USER: u32 = 54_321;
const FIRST: u32 = 7_000_000;

/// An image with a file of user 1000, group 1001.
fn owned() -> Image {
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o640);
    header.set_uid(1000);
    header.set_gid(1001);
    let mut builder = Builder::new(vec![]);
    builder.append_data(&mut header, "a", &b"x"[..]).unwrap();
    Image::of(vec![builder.into_inner().unwrap()], "amd64")
}

struct User {
    scratch: Scratch,
}

impl User {
    /// A directory of the user's with the archive in it; `None` with a reason where that cannot be made.
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        need("setpriv")?;
        let scratch = Scratch::new();
        scratch.write("owned.tar", &archive(&owned().docker(&["owned:1"], same)));
        // The build directory may be out of the user's reach.
        let program = scratch.join("kelson-image");
        fs::copy(env!("CARGO_BIN_EXE_kelson-image"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&scratch.path, Some(USER), Some(USER)).unwrap();
        Some(Self { scratch })
    }

    /// The program as the user; `given` is what /etc/subuid and /etc/subgid have.
    fn run(&self, given: &str, words: &str) -> Output {
        let directory = self.scratch.path.display();
        let files = format!(
            "set -e; cd {directory}; mount --make-rprivate /
             for file in passwd group subuid subgid; do touch /etc/$file; cp /etc/$file etc-$file; done
             echo 'kelimage:x:{USER}:{USER}::/:/bin/sh' >>etc-passwd; echo 'kelimage:x:{USER}:' >>etc-group
             echo '{given}' >etc-subuid; echo '{given}' >etc-subgid
             for file in passwd group subuid subgid; do mount --bind etc-$file /etc/$file; done
             exec setpriv --reuid {USER} --regid {USER} --clear-groups env HOME=/ ./kelson-image --store st {words}"
        );
        Command::new("unshare").args(["-m", "sh", "-c", &files]).output().unwrap()
    }

    fn is_run(&self, given: &str, words: &str) -> String {
        let output = self.run(given, words);
        assert!(output.status.success(), "{}", error_of(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Owner and group of the file in the layer.
    fn owner(&self) -> (u32, u32) {
        let hex = self.scratch.entries("layers").remove(0);
        let info = fs::metadata(self.scratch.join("st/layers").join(hex).join("fs/a")).unwrap();
        (info.uid(), info.gid())
    }

    fn ids(&self) -> Value {
        serde_json::from_slice(&fs::read(self.scratch.join("st/ids")).unwrap()).unwrap()
    }
}

#[test]
fn root_gives_files_their_owners() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can");
        return;
    }
    let scratch = Scratch::new();
    scratch.write("owned.tar", &archive(&owned().docker(&["owned:1"], same)));
    scratch.ensure("owned.tar");
    let hex = scratch.entries("layers").remove(0);
    let info = fs::metadata(scratch.join("st/layers").join(hex).join("fs/a")).unwrap();
    assert_eq!((info.uid(), info.gid(), info.mode() & 0o7777), (1000, 1001, 0o640));
    for directory in ["st", "st/layers", "st/blobs", "st/tmp"] {
        let mode = fs::metadata(scratch.join(directory)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{directory}: files of images can be setuid");
    }
    assert!(scratch.fails(&["--squash", "ensure", "owned.tar", "--platform", "linux/amd64"]).contains("--squash"));
}

#[test]
fn a_user_with_further_ids_gives_files_their_owners() {
    let Some(user) = User::new() else { return };
    if need("newuidmap").is_none() {
        return;
    }
    let given = format!("kelimage:{FIRST}:65536");
    user.is_run(&given, "import owned.tar");
    assert_eq!(user.owner(), (FIRST + 999, FIRST + 1000));
    assert_eq!(user.ids()["uid"], serde_json::json!([[0, USER, 1], [1, FIRST, 65536]]));
    assert_eq!(user.ids()["user_xattr"], true);
    // Ids that were taken away are told, and nothing is written with others.
    let output = user.run("", "prune --all");
    assert!(!output.status.success() && error_of(&output).contains("subuid"), "{output:?}");
    user.is_run(&given, "prune --all");
    assert!(user.scratch.entries("layers").is_empty() && user.scratch.entries("tmp").is_empty());
}

#[test]
fn a_user_with_one_id_has_all_files() {
    let Some(user) = User::new() else { return };
    let output = user.run("", "import owned.tar");
    assert!(output.status.success() && error_of(&output).contains("will all be yours"), "{output:?}");
    assert_eq!(user.owner(), (USER, USER));
    assert_eq!((&user.ids()["squash"], &user.ids()["uid"]), (&true.into(), &serde_json::json!([[0, USER, 1]])));
    // What was decided stays, whatever the user is given later.
    user.is_run(&format!("kelimage:{FIRST}:65536"), "ensure ./owned.tar --platform linux/amd64");
    assert_eq!(user.ids()["squash"], true);
    // Root is another one, and does not mix its files with the user's.
    assert!(user.scratch.fails(&["prune"]).contains("other user ids"));
}
