//! `kelson-image overlay`: becomes fuse-overlayfs(1) for one container, at `kelson`'s wish (lifecycle::fuse).
//!
//! ```text
//!   stdin    the socket on which the mount, or an error, is told
//!   stdout   the user namespace to join, with --userns
//!   stderr   open until it can serve
//! ```

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use kelson::error::{Context, Error, Result};
use kelson::plan::{Capabilities, Overlay};
use kelson::rootfs::fuse::{self, Unserved};
use kelson::sandbox::init::become_root;
use kelson::sandbox::message::{Ask, ChildEnd};
use kelson::sandbox::process::close_all_but;
use kelson::security::capabilities::drop_bounding;
use kelson::signals;
use kelson::sys::fd::{copy, copy_over, keep_on_exec, open, standard_stream};
use kelson::sys::process::{exit_now, last_capability, set_no_new_privileges, set_umask};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};

/// The word that starts this.
pub const COMMAND: &str = "overlay";

/// What it needs of root's capabilities: files of all owners and kinds, `trusted.*` attributes (CAP_SYS_ADMIN).
const KEPT: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SYS_ADMIN",
];

/// What the words say.
struct Wanted {
    id: OsString,
    label: Option<String>,
    /// Bytes that a private writable layer may hold.
    limit: Option<u64>,
    joins_user_ns: bool,
    program: OsString,
    overlay: Overlay,
}

/// Becomes fuse-overlayfs, or tells why not.
pub fn serve(words: impl Iterator<Item = OsString>) -> ! {
    let told = copy(standard_stream(0)).map(ChildEnd::from);
    if let Ok(parent) = told {
        let Err(error) = parse(words).and_then(|wanted| wanted.become_server(&parent));
        // A parent that is gone has nobody to tell.
        let _ = parent.tell(&Ask::Failed(error.encode()));
    }
    exit_now(1)
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Wanted> {
    let text = |word: OsString| word.into_string().map_err(|_| Error::usage("overlay: a value is not valid UTF-8"));
    let (mut id, mut label, mut limit, mut joins_user_ns) = (OsString::new(), None, None, false);
    let (mut upper, mut work) = (None, None);
    let program = loop {
        let mut next = || words.next().ok_or_else(|| Error::usage("overlay: a word is missing"));
        let word = next()?;
        match word.to_str() {
            Some("--id") => id = next()?,
            Some("--label") => label = Some(text(next()?)?),
            Some("--limit") => limit = text(next()?)?.parse().ok(),
            Some("--upper") => upper = Some(PathBuf::from(next()?)),
            Some("--work") => work = Some(PathBuf::from(next()?)),
            Some("--userns") => joins_user_ns = true,
            _ => break word,
        }
    };
    let lower = words.map(PathBuf::from).collect();
    let overlay = Overlay { lower, upper: upper.zip(work), id_mapped: false, is_by_fuse: true };
    Ok(Wanted { id, label, limit, joins_user_ns, program, overlay })
}

impl Wanted {
    fn become_server(self, parent: &ChildEnd) -> Result<Infallible> {
        // Neither the caller's terminal nor its signals.
        nix::unistd::setsid().doing(|| "start a session")?;
        signals::reset()?;
        set_umask(0o022);
        if self.joins_user_ns {
            setns(standard_stream(1), CloneFlags::CLONE_NEWUSER).doing(|| "join the container's user namespace")?;
            become_root()?;
        }
        let Unserved { mount, device, options } = fuse::mount(&self.overlay, self.label.as_deref(), self.limit)?;
        parent.tell_with_fd(&Ask::Overlay(vec![]), mount.as_fd())?;
        drop(mount);
        let null = open("/dev/null", OFlag::O_RDWR).doing(|| "open /dev/null")?;
        copy_over(null.as_fd(), 0)?;
        copy_over(null.as_fd(), 1)?;
        close_all_but(3, &[parent.as_fd(), device.as_fd()])?;
        keep_on_exec(device.as_raw_fd())?;
        let bounding = kelson::plan::CAPABILITIES.iter().zip(0..).filter(|(name, _)| KEPT.contains(name));
        let bounding = bounding.fold(0, |mask, (_, number): (_, u32)| mask | 1 << number);
        drop_bounding(&Capabilities { bounding, ..Capabilities::default() }, last_capability())?;
        set_no_new_privileges()?;
        self.execute(options, device.as_raw_fd())
    }

    fn execute(self, options: Vec<u8>, device: i32) -> Result<Infallible> {
        // In place of its name: for whom it is.
        let name = [b"fuse-overlayfs[", self.id.as_bytes(), b"]"].concat();
        let arguments = [name, b"-o".to_vec(), options, format!("/dev/fd/{device}").into_bytes()];
        let arguments: Vec<CString> =
            arguments.into_iter().filter_map(|argument| CString::new(argument).ok()).collect();
        let program = CString::new(self.program.into_vec()).map_err(|_| Error::other("a path has a NUL in it"))?;
        // Without an environment: some of its variables change what it does.
        nix::unistd::execve(&program, &arguments, &[] as &[CString]).doing(|| "execute it")
    }
}
