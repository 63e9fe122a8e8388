//! One file per verb, each a straight line from the command's options to its effect.

pub mod bundle;
pub mod changes;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod explain;
pub mod features;
mod foreground;
mod fuse;
mod image;
pub mod inspect;
mod kept;
pub mod kill;
mod listen;
mod made;
pub mod pause;
mod pid_file;
mod remover;
pub mod spec;
pub mod start;
mod steps;
mod stores;
pub mod top;
pub mod update;
pub mod wait;
mod watch;

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::cgroup::Driver;
use crate::cli::Global;
use crate::error::{Context, Error, Result};
use crate::plan::Host;
use crate::state::{self, State};
use crate::sys::fd::read_short;
use crate::sys::process;

/// What every command works with: where state is kept, and what the caller and the host are.
pub struct Runtime {
    /// Directory that holds one directory a container.
    pub root: PathBuf,
    /// `--root` was given.
    pub is_explicit_root: bool,
    pub driver: Driver,
    /// The caller is not root of the host.
    pub rootless: bool,
}

/// This process is root of less than the whole host (user_namespaces(7)).
fn is_in_user_namespace() -> bool {
    let map = read_short("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

impl Runtime {
    /// What the global options and the caller's identity say.
    pub fn new(global: &Global) -> Result<Self> {
        let euid = nix::unistd::geteuid();
        let has_runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| !dir.is_empty());
        let in_user_ns = has_runtime_dir && is_in_user_namespace();
        // Not root, or root of a user namespace that a user's session made.
        let rootless = global.rootless.unwrap_or(!euid.is_root() || in_user_ns);
        let root = match &global.root {
            Some(root) => std::path::absolute(root).doing(|| "find the state directory")?,
            None => state::default_root(rootless),
        };
        if root == Path::new("/") {
            return Err(Error::usage("--root /: not a directory for state"));
        }
        Ok(Self { root, is_explicit_root: global.root.is_some(), driver: global.driver, rootless })
    }

    /// What a plan depends on.
    fn host(&self) -> Host {
        Host {
            rootless: self.rootless,
            last_capability: process::last_capability(),
            apparmor: || read_short("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y"),
            selinux: || Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    /// Does `act` for every container whose id the regular expression `pattern` matches (crun's `--regex`).
    ///
    /// # Errors
    /// Some containers refused, which keeps none of the others from it.
    fn for_each_matching(&self, pattern: &str, act: impl Fn(&str) -> Result<()>) -> Result<()> {
        let regex = crate::sys::regex::Regex::new(pattern)
            .map_err(|reason| Error::usage(format!("regular expression {pattern:?}: {reason}")))?;
        let mut ids = state::ids(&self.root).doing(|| format!("list {}", self.root.display()))?;
        // What has no record is no container, or is nothing but the name of one.
        ids.retain(|id| regex.matches(id) && self.load(id).is_ok());
        let refused = ids.iter().filter(|id| {
            let result = act(id);
            if let Err(error) = &result {
                log::warn!("container {id}: {error}");
            }
            result.is_err()
        });
        match refused.count() {
            0 => Ok(()),
            count => Err(Error::other(format!("{count} of {} containers refused", ids.len()))
                .hint("the warnings tell which and why")),
        }
    }

    /// Ids of the root's containers, and names of what may be none.
    fn ids(&self) -> Result<Vec<String>> {
        match state::ids(&self.root) {
            // A default root is made by the first container; a given one that is not there is a mistake.
            Err(error) if error.errno() == Some(Errno::ENOENT) && !self.is_explicit_root => Ok(vec![]),
            other => other.doing(|| format!("list {}", self.root.display())),
        }
    }

    fn load(&self, id: &str) -> Result<State> {
        state::load(&self.root, id)
    }
}
