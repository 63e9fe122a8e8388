use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use nix::sys::stat::{SFlag, mknod};

use super::*;
use crate::changes::archive::Archive;
use crate::unpack;

/// Directories below one that is removed at the end.
struct Dirs(PathBuf);

impl Dirs {
    /// Two layers and an upper directory, `1` above `0`.
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("kelson-changes-{name}-{}", std::process::id()));
        for dir in ["upper", "1", "0", "out"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        Self(root)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn whiteout(&self, path: &str) {
        mknod(&self.0.join(path), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }

    fn mark(&self, path: &str, name: &CStr, value: &[u8]) {
        mount::set_xattr(&self.0.join(path), name, value).unwrap();
    }

    /// The directories in which nothing but what tests make is to be seen.
    fn touch(&self, path: &str, like: &str) {
        let time = fs::metadata(self.0.join(like)).unwrap().modified().unwrap();
        fs::File::open(self.0.join(path)).unwrap().set_modified(time).unwrap();
    }

    fn container(&self, made: &[&str]) -> Container {
        let request = Request {
            upper: Some(self.0.join("upper")),
            lower: vec![self.0.join("1"), self.0.join("0")],
            mount_points: made.iter().map(PathBuf::from).collect::<HashSet<_>>(),
            ..Request::default()
        };
        Container::open(&request).unwrap()
    }

    fn shown(&self, made: &[&str]) -> String {
        String::from_utf8(show(self.container(made), false).unwrap()).unwrap()
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_line_is_one_line_whatever_the_name_is() {
    assert_eq!(line(b"/a b", Kind::Added), b"A /a b\n");
    assert_eq!(line(b"/a\nD /b\x1b\x7f", Kind::Deleted), b"D /a\\012D /b\\033\\177\n");
    assert_eq!(line("/\u{fc}".as_bytes(), Kind::Changed), "C /\u{fc}\n".as_bytes());
}

#[test]
fn an_upper_directory_says_what_changed() {
    let dirs = Dirs::new("upper");
    for file in ["0/d/gone", "0/d/same", "0/e/a", "1/e/b", "0/f", "0/hidden", "0/type/x"] {
        dirs.write(file, file);
    }
    dirs.whiteout("1/hidden");
    dirs.write("upper/d/new", "x");
    dirs.whiteout("upper/d/gone");
    // Nothing of it was to be seen before.
    dirs.whiteout("upper/hidden");
    dirs.whiteout("upper/never");
    dirs.write("upper/e/b", "x");
    dirs.mark("upper/e", c"user.overlay.opaque", b"y");
    dirs.write("upper/f/now-a-directory", "x");
    dirs.write("upper/type", "now a file");
    dirs.write("upper/.wh.x", "x");
    assert_eq!(
        dirs.shown(&[]),
        "A /.wh.x\nC /d\nD /d/gone\nA /d/new\nC /e\nD /e/a\nC /e/b\nC /f\nA /f/now-a-directory\nC /type\n"
    );
}

/// Where fuse-overlayfs may make no devices, and in each directory that hides what is below it.
#[test]
fn marks_of_fuse_overlayfs_are_no_files() {
    let dirs = Dirs::new("fuse");
    for file in ["0/gone", "0/d/a", "0/d/b", "0/e/gone"] {
        dirs.write(file, file);
    }
    let mark = |path: &str| {
        dirs.write(path, "");
        fs::set_permissions(dirs.0.join(path), fs::Permissions::from_mode(0o700)).unwrap();
    };
    ["upper/.wh.gone", "upper/.wh.never", "upper/d/.wh..wh..opq", "upper/e/.wh.gone"].into_iter().for_each(mark);
    dirs.whiteout("upper/d/.wh..opq");
    dirs.write("upper/d/b", "new");
    // Not as it makes them.
    dirs.write("upper/.wh.x", "");
    assert_eq!(dirs.shown(&[]), "A /.wh.x\nC /d\nD /d/a\nC /d/b\nC /e\nD /e/gone\nD /gone\n");
}

#[test]
fn directories_without_a_change_of_their_own_are_not_told() {
    let dirs = Dirs::new("directories");
    dirs.write("0/d/sub/file", "x");
    dirs.write("upper/d/sub/other", "x");
    fs::remove_file(dirs.0.join("upper/d/sub/other")).unwrap();
    // As overlayfs copies them up.
    for dir in ["d/sub", "d"] {
        dirs.touch(&format!("upper/{dir}"), &format!("0/{dir}"));
    }
    assert_eq!(dirs.shown(&[]), "");
    // Made by a runtime to mount something on, which is no change of the directory either.
    dirs.write("upper/d/hosts", "");
    fs::create_dir(dirs.0.join("upper/proc")).unwrap();
    assert_eq!(dirs.shown(&["d/hosts", "proc"]), "");
    assert_eq!(dirs.shown(&[]), "C /d\nA /d/hosts\nA /proc\n");
    dirs.write("upper/d/hosts", "written");
    assert_eq!(dirs.shown(&["d/hosts", "proc"]), "C /d\nA /d/hosts\n");
    fs::set_permissions(dirs.0.join("upper/d/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(dirs.shown(&["d/hosts", "proc"]), "C /d\nA /d/hosts\nC /d/sub\n");
}

#[test]
fn parts_of_files_are_refused() {
    for (name, mark) in [("redirect", c"user.overlay.redirect"), ("metacopy", c"user.overlay.metacopy")] {
        let dirs = Dirs::new(name);
        dirs.write("0/file", "x");
        dirs.write("upper/file", "");
        dirs.mark("upper/file", mark, b"");
        let error = show(dirs.container(&[]), false).unwrap_err().to_string();
        assert!(error.contains("/file") && error.contains(name), "{error}");
    }
}

#[test]
fn links_in_place_of_directories_lead_nowhere() {
    let dirs = Dirs::new("links");
    dirs.write("0/d/file", "x");
    dirs.write("outside/secret", "x");
    symlink("../outside", dirs.0.join("upper/d")).unwrap();
    symlink(dirs.0.join("outside"), dirs.0.join("upper/e")).unwrap();
    assert_eq!(dirs.shown(&[]), "C /d\nA /e\n");
}

/// Through an archive and back again.
#[test]
fn files_come_back_as_they_were() {
    let dirs = Dirs::new("archive");
    dirs.write("0/gone", "x");
    dirs.whiteout("upper/gone");
    dirs.write("upper/d/file", "text");
    let at = |root: &str, path: &str| dirs.0.join(root).join(path);
    fs::set_permissions(at("upper", "d/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(at("upper", "d/file"), at("upper", "second")).unwrap();
    dirs.mark("upper/d/file", c"user.test", b"a=b\nc");
    dirs.mark("upper/d", c"user.overlay.origin", b"x");
    let long = "name/".repeat(60) + "end";
    dirs.write(&format!("upper/{long}"), "long");
    symlink(&long, at("upper", "link")).unwrap();
    let sparse = fs::File::create(at("upper", "sparse")).unwrap();
    sparse.write_all_at(b"middle", 1 << 20).unwrap();
    sparse.set_len(3 << 20).unwrap();
    nix::unistd::mkfifo(&at("upper", "pipe"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("upper", "socket")).unwrap();

    let mut archive = Archive::new(vec![], 64 << 20, true, Owners::default());
    dirs.container(&[]).changes(&mut |change| archive.add(change)).unwrap();
    let bytes = archive.finish().unwrap();
    let out = fs::File::open(dirs.0.join("out")).unwrap();
    let options = unpack::Options { user_xattr: true, ids: unpack::Ids::Squash, ..unpack::Options::default() };
    let unpacked = unpack::unpack(&bytes[..], None, out.as_fd(), &options).unwrap();
    assert_eq!(unpacked.skipped, unpack::Skipped::default());

    let look = |root: &str, path: &str| fs::symlink_metadata(at(root, path)).unwrap();
    for path in ["d", "d/file", &long, "sparse", "pipe", "name/name"] {
        let (before, after) = (look("upper", path), look("out", path));
        assert_eq!(before.mode(), after.mode(), "{path}");
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()), "{path}");
    }
    assert_eq!(look("out", "d/file").ino(), look("out", "second").ino());
    assert_eq!(fs::read_to_string(at("out", "second")).unwrap(), "text");
    assert_eq!(fs::read_link(at("out", "link")).unwrap(), PathBuf::from(&long));
    assert_eq!(fs::read(at("upper", "sparse")).unwrap(), fs::read(at("out", "sparse")).unwrap());
    assert_eq!((look("out", "gone").file_type().is_file(), look("out", "gone").rdev()), (false, 0));
    assert!(!at("out", "socket").exists());
    let file = fs::File::open(at("out", "d/file")).unwrap();
    assert_eq!(attributes(&file).unwrap(), [(c"user.test".to_owned(), b"a=b\nc".to_vec())]);

    let mut archive = Archive::new(vec![], 1 << 20, true, Owners::default());
    let error = dirs.container(&[]).changes(&mut |change| archive.add(change)).unwrap_err().to_string();
    assert!(error.contains("/sparse") && error.contains("bytes"), "{error}");
}
