//! The host's cgroup hierarchies, as the test sees them in its own mount namespace.

use std::path::{Path, PathBuf};

/// Where hierarchies are mounted.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Controllers and the mount point of their hierarchy; on v2 all have the same.
    controllers: Vec<(String, PathBuf)>,
    /// Every hierarchy's mount point once, named ones too.
    pub mounts: Vec<PathBuf>,
    v2: bool,
}

impl Layout {
    /// Reads /proc/self/mountinfo.
    pub fn read() -> Layout {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut layout = Layout { controllers: vec![], mounts: vec![], v2: false };
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let point = PathBuf::from(left.split(' ').nth(4).unwrap_or_default());
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
            if !point.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match kind {
                "cgroup" => {
                    for word in options.split(',') {
                        layout.controllers.push((word.to_owned(), point.clone()));
                    }
                }
                "cgroup2" => {
                    // What the unified hierarchy of a hybrid layout has is out of a v1 runtime's reach.
                    if point == Path::new("/sys/fs/cgroup") {
                        layout.v2 = true;
                        let names = std::fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
                        for name in names.split_whitespace() {
                            layout.controllers.push((name.to_owned(), point.clone()));
                        }
                    }
                }
                _ => continue,
            }
            layout.mounts.push(point);
        }
        layout
    }

    /// Pure cgroup v2.
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// The hierarchy that the runtime uses has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.dir(controller).is_some()
    }

    /// Mount point of a controller's hierarchy; on v2 `freezer` and `devices` are always there.
    pub fn dir(&self, controller: &str) -> Option<PathBuf> {
        if self.v2 && matches!(controller, "freezer" | "devices") {
            return self.mounts.first().cloned();
        }
        self.controllers.iter().find(|(n, _)| n == controller).map(|(_, p)| p.clone())
    }

    /// Directory of cgroup `path` (as in cgroupsPath) in a controller's hierarchy.
    pub fn path(&self, controller: &str, path: &str) -> PathBuf {
        self.dir(controller).unwrap_or_else(|| "/nonexistent".into()).join(path.trim_start_matches('/'))
    }

    /// Every directory of cgroup `path` that exists.
    pub fn existing(&self, path: &str) -> Vec<PathBuf> {
        let all = self.mounts.iter().map(|m| m.join(path.trim_start_matches('/')));
        let mut found: Vec<PathBuf> = all.filter(|p| p.exists()).collect();
        found.dedup();
        found
    }
}

/// PIDs in a cgroup, without those below.
pub fn processes_in(dir: &Path) -> Vec<i32> {
    let own = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    own.lines().filter_map(|l| l.parse().ok()).collect()
}

/// PIDs in a cgroup and all below it.
pub fn processes(dir: &Path) -> Vec<i32> {
    let mut pids = processes_in(dir);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            pids.extend(processes(&entry.path()));
        }
    }
    pids
}

/// Removes a cgroup and all below it, thawing and killing what is inside.
pub fn remove(dir: &Path) {
    // Whatever can be written is; the removal below tells whether it helped.
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let _ = std::fs::write(dir.join(file), value);
    }
    for pid in processes(dir) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let _ = super::eventually(std::time::Duration::from_secs(5), "the cgroup is empty", || {
        processes(dir).is_empty().then_some(())
    });
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}
