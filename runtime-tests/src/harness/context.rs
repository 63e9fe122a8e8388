//! What a test is given: the runtime under test, a directory and a cgroup of its own, facts of the host.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::cgroup::Layout;
use super::{Bundle, Cmd, Failure, Outcome};

/// Whose conventions the runtime follows where runtimes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Kelson,
    Runc,
    Crun,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Kelson => "kelson",
            Peer::Runc => "runc",
            Peer::Crun => "crun",
        }
    }

    pub fn from_name(name: &str) -> Option<Peer> {
        [Peer::Kelson, Peer::Runc, Peer::Crun].into_iter().find(|p| p.name() == name)
    }
}

pub struct Context {
    pub runtime: PathBuf,
    pub peer: Peer,
    /// As `--version` prints it: `1.1.5+ds1`.
    pub version: String,
    /// The static guest.
    pub guest: PathBuf,
    /// Full name of the test: `process::umask`.
    pub name: String,
    /// The test's own directory; a private tmpfs that vanishes after the run.
    pub dir: PathBuf,
    /// `--root` of every command.
    pub root: PathBuf,
    /// Parent of the test's cgroups, as in cgroupsPath: `/kelson-test-<pid>-<n>`.
    pub cgroup_parent: String,
    pub cgroups: Layout,
    /// How long a command may take; `--slow` stretches it.
    pub patience: Duration,
    /// `--no-newer-syscalls`.
    pub filter: Option<Vec<(u16, u8, u8, u32)>>,
    pub counter: AtomicU32,
    /// The runtime runs as this ordinary user and group; 0 is root ([`Context::become_rootless`]).
    pub user: AtomicU32,
    /// create and run are given `--systemd-cgroup`, and no other command: a runtime remembers it ([`Context::use_systemd`]).
    pub systemd: AtomicBool,
}

impl Context {
    /// A bundle with the base configuration, ready to run; its guest prints a report.
    pub fn bundle(&self) -> Outcome<Bundle<'_>> {
        Bundle::new(self)
    }

    /// The runtime with its `--root`.
    pub fn runtime(&self) -> Cmd<'_> {
        self.runtime_without_root().arg("--root").arg(&self.root)
    }

    /// The runtime, its state where it is by default.
    pub fn runtime_without_root(&self) -> Cmd<'_> {
        let command = Cmd::new(self, &self.runtime);
        match self.user.load(Ordering::Relaxed) {
            0 => command,
            user if self.has_systemd() => command
                .user(user, user)
                .env("XDG_RUNTIME_DIR", self.dir.join("run"))
                .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path=/run/user/{user}/bus")),
            user => command.user(user, user).env("XDG_RUNTIME_DIR", self.dir.join("run")),
        }
    }

    /// From now on the runtime runs as an ordinary user, who owns the state directory and has an XDG_RUNTIME_DIR.
    pub fn become_rootless(&self, user: u32) -> Outcome {
        std::fs::create_dir_all(self.dir.join("run"))?;
        super::bundle::give(&self.dir.join("run"), user)?;
        super::bundle::give(&self.root, user)?;
        self.user.store(user, Ordering::Relaxed);
        Ok(())
    }

    /// The runtime with its `--root`, and with the driver where containers are made.
    pub fn maker(&self) -> Cmd<'_> {
        if self.has_systemd() { self.runtime().arg("--systemd-cgroup") } else { self.runtime() }
    }

    /// From now on containers are made by the systemd driver; leaves the test where no systemd runs the host.
    pub fn use_systemd(&self) -> Outcome {
        if !Path::new("/run/systemd/system").exists() {
            return Err(Failure::Skipped("systemd does not run this host".into()));
        }
        self.systemd.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Containers are made by the systemd driver.
    pub fn has_systemd(&self) -> bool {
        self.systemd.load(Ordering::Relaxed)
    }

    /// The slice of the test's containers, which are made by the systemd driver (crun needs it named).
    pub fn slice(&self) -> Option<&'static str> {
        let slice = if self.user.load(Ordering::Relaxed) == 0 { "system.slice" } else { "user.slice" };
        self.has_systemd().then_some(slice)
    }

    /// The unit of a container whose cgroupsPath [`Bundle::container`] chose.
    pub fn unit(&self, id: &str) -> String {
        format!("kelson-test-{id}.scope")
    }

    /// Any other program.
    pub fn command(&self, program: &str) -> Cmd<'_> {
        Cmd::new(self, program)
    }

    /// The guest, outside of any container.
    pub fn guest_command(&self) -> Cmd<'_> {
        Cmd::new(self, &self.guest)
    }

    /// Environment variable that marks what belongs to this test.
    pub fn marker(&self) -> (&'static str, &str) {
        ("KELSON_TEST_MARK", &self.cgroup_parent)
    }

    /// A number that is not given twice in a test.
    pub fn next(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// What the ids of the test's containers begin with, and no other's, of another run neither; a number follows.
    pub fn id_prefix(&self) -> String {
        let plain = self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        let run = self.cgroup_parent.trim_start_matches("/kelson-test-");
        format!("{}-{run}-", plain.take(40).collect::<String>())
    }

    /// Path without extension for one command's input and output.
    pub fn next_io(&self) -> PathBuf {
        self.dir.join("io").join(self.next().to_string())
    }

    /// A new directory in the test's own.
    pub fn new_dir(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.dir.join(format!("{name}{}", self.next()));
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Ids (or a pattern) of the containers that the runtime knows, read from its state directory.
    pub fn state_entries(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return vec![] };
        entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            // What crun keeps for itself.
            .filter(|n| self.peer == Peer::Kelson || !n.starts_with('.'))
            .collect()
    }

    pub fn is_v2(&self) -> bool {
        self.cgroups.is_v2()
    }

    /// Leaves the test where only Kelson has the feature.
    pub fn need_kelson(&self, feature: &str) -> Outcome {
        if self.peer == Peer::Kelson {
            return Ok(());
        }
        Err(Failure::Skipped(format!("{feature}: only kelson has it")))
    }

    pub fn need_v1(&self) -> Outcome {
        if self.is_v2() { Err(Failure::Skipped("needs cgroup v1".into())) } else { Ok(()) }
    }

    pub fn need_v2(&self) -> Outcome {
        if self.is_v2() { Ok(()) } else { Err(Failure::Skipped("needs cgroup v2".into())) }
    }

    /// Leaves the test where the hierarchy lacks a controller.
    pub fn need_controller(&self, name: &str) -> Outcome {
        if self.cgroups.has(name) {
            return Ok(());
        }
        Err(Failure::Skipped(format!("this host has no cgroup controller {name:?} here")))
    }

    /// Leaves the test under `--no-newer-syscalls`: `feature` has no fallback.
    pub fn need_new_syscalls(&self, feature: &str) -> Outcome {
        match self.filter {
            Some(_) => Err(Failure::Skipped(format!("{feature} has no fallback before Linux 5.12"))),
            None => Ok(()),
        }
    }

    /// Leaves the test where a program is not installed.
    pub fn need_program(&self, name: &str) -> Outcome<PathBuf> {
        let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        let found = dirs.iter().map(|d| Path::new(d).join(name)).find(|p| p.exists());
        found.ok_or_else(|| match std::env::var_os("CI") {
            // There it is installed beforehand: `make deps-runtime`.
            Some(_) => Failure::Failed(format!("{name} is not installed")),
            None => Failure::Skipped(format!("{name} is not installed")),
        })
    }

    /// Version of the running kernel: (6, 18).
    pub fn kernel(&self) -> (u32, u32) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut parts = release.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    pub fn need_kernel(&self, major: u32, minor: u32, feature: &str) -> Outcome {
        if self.kernel() >= (major, minor) {
            return Ok(());
        }
        Err(Failure::Skipped(format!("{feature} needs Linux {major}.{minor}")))
    }
}
