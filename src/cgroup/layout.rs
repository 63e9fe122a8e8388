//! Where the host has its cgroup hierarchies.
//!
//! Looks where every distribution mounts them, with statfs(2), and reads /proc/self/mountinfo, which grows with the
//! containers of the host, only if they are not there.

use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::error::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// A mounted cgroup v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// As in /proc/PID/cgroup: `cpu,cpuacct`, `name=systemd`.
    pub controllers: String,
    pub mount_point: PathBuf,
    /// The caller's own cgroup, as in /proc/self/cgroup.
    own: PathBuf,
}

/// The cgroup file systems of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Pure v1, or hybrid if `unified` is there.
    V1 {
        hierarchies: Vec<Hierarchy>,
        unified: Option<Unified>,
    },
    V2(Unified),
    /// None is mounted.
    None,
}

/// The cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    pub mount_point: PathBuf,
    own: Option<PathBuf>,
}

impl Hierarchy {
    /// The caller's own cgroup, as a path below the mount point.
    pub fn own(&self) -> Result<PathBuf> {
        below_mount(&self.own, &self.mount_point)
    }
}

impl Unified {
    /// The caller's own cgroup, as a path below the mount point.
    pub fn own(&self) -> Result<PathBuf> {
        let own = match &self.own {
            Some(own) => own.clone(),
            None => read_own()?.into_iter().find(|line| line.is_unified()).map_or("/".into(), |line| line.path),
        };
        below_mount(&own, &self.mount_point)
    }
}

/// A line of /proc/self/cgroup (cgroups(7)).
struct Own {
    controllers: String,
    path: PathBuf,
}

impl Own {
    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

fn parse_own(text: &str) -> Vec<Own> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some(Own { controllers: fields.next()?.into(), path: fields.next()?.into() })
    };
    text.lines().filter_map(line).collect()
}

fn read_own() -> Result<Vec<Own>> {
    let text = super::files::read(Path::new("/proc/self/cgroup")).doing(|| "read /proc/self/cgroup")?;
    Ok(parse_own(&text))
}

/// A mount of a cgroup hierarchy from /proc/self/mountinfo (proc_pid_mountinfo(5)).
struct Mounted {
    /// The directory of the hierarchy that is seen at the mount point.
    root: PathBuf,
    mount_point: PathBuf,
    is_v2: bool,
    /// Controllers and name, among other options.
    options: String,
}

fn parse_mounts(text: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let is_v2 = match after.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let mut before = before.split(' ').skip(3);
        Some(Mounted {
            root: unescape(before.next()?),
            mount_point: unescape(before.next()?),
            is_v2,
            options: after.nth(1)?.into(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Space, tab, newline and backslash are octal in mountinfo.
fn unescape(text: &str) -> PathBuf {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

fn read_mounts() -> Result<Vec<Mounted>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo")?;
    Ok(parse_mounts(&text))
}

/// /proc/self/cgroup counts from the root of the cgroup namespace, a mount may show only a part below that (a container
/// without a cgroup namespace of its own): the part of `own` that can be seen at `mount_point`.
fn below_mount(own: &Path, mount_point: &Path) -> Result<PathBuf> {
    if own == Path::new("/") {
        return Ok(own.into());
    }
    let mounts = read_mounts()?;
    let root = mounts.iter().rev().find(|mount| mount.mount_point == mount_point).map(|mount| &mount.root);
    let seen = root.and_then(|root| own.strip_prefix(root).ok()).unwrap_or(own);
    Ok(clean(seen))
}

/// `path` as seen from a root directory: absolute, without `.`; `..` stops at the root.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

fn is_mounted(path: &Path, magic: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
}

/// Finds the cgroup hierarchies of the host.
pub fn host_layout() -> Result<Layout> {
    let root = Path::new(ROOT);
    if is_mounted(root, CGROUP2_SUPER_MAGIC) {
        return Ok(Layout::V2(Unified { mount_point: root.into(), own: None }));
    }
    let lines = read_own()?;
    // Read at most once, and only if something is not where it is expected.
    let mut mounts: Option<Vec<Mounted>> = None;
    let mut hierarchies = Vec::new();
    let mut unified = None;
    for line in lines {
        if line.is_unified() {
            let mount_point = root.join("unified");
            if is_mounted(&mount_point, CGROUP2_SUPER_MAGIC) {
                unified = Some(Unified { mount_point, own: Some(line.path) });
            }
            continue;
        }
        let directory = line.controllers.strip_prefix("name=").unwrap_or(&line.controllers);
        let expected = root.join(directory);
        let found = if is_mounted(&expected, CGROUP_SUPER_MAGIC) {
            Some(expected)
        } else {
            let known = match &mounts {
                Some(known) => known,
                None => mounts.insert(read_mounts()?),
            };
            known.iter().find(|mount| !mount.is_v2 && mount.has(&line.controllers)).map(|m| m.mount_point.clone())
        };
        if let Some(mount_point) = found {
            hierarchies.push(Hierarchy { controllers: line.controllers, mount_point, own: line.path });
        }
    }
    if !hierarchies.is_empty() || unified.is_some() {
        return Ok(Layout::V1 { hierarchies, unified });
    }
    // No v1 and nothing in the usual places: cgroup2 may be mounted elsewhere.
    let known = match mounts {
        Some(known) => known,
        None => read_mounts()?,
    };
    let found = known.into_iter().find(|mount| mount.is_v2);
    Ok(found.map_or(Layout::None, |mount| Layout::V2(Unified { mount_point: mount.mount_point, own: None })))
}

impl Mounted {
    fn has(&self, controllers: &str) -> bool {
        controllers.split(',').all(|controller| self.options.split(',').any(|option| option == controller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned_paths_cannot_leave() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("a/./b//c/", "/a/b/c"),
            ("../../../../../tmp/x", "/tmp/x"),
            ("/a/../../b", "/b"),
            ("/", "/"),
            ("", "/"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn own_cgroups_are_parsed() {
        let own = parse_own("12:name=systemd:/\n5:cpu,cpuacct:/a:b\n0::/user.slice\n");
        let found: Vec<_> = own.iter().map(|own| (own.controllers.as_str(), own.path.to_str().unwrap())).collect();
        assert_eq!(found, [("name=systemd", "/"), ("cpu,cpuacct", "/a:b"), ("", "/user.slice")]);
    }

    #[test]
    fn mounts_are_parsed_and_found_in_any_order_of_controllers() {
        let mounts = parse_mounts(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 /docker/x /sys/fs/cgroup/cpu\\040acct rw,relatime shared:9 - cgroup cgroup rw,cpuacct,cpu\n\
             33 31 0:30 / /cg2 rw - cgroup2 none rw,nsdelegate\n",
        );
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].mount_point, Path::new("/sys/fs/cgroup/cpu acct"));
        assert_eq!(mounts[0].root, Path::new("/docker/x"));
        assert!(mounts[0].has("cpu,cpuacct") && !mounts[0].has("memory"));
        assert!(mounts[1].is_v2);
    }
}
