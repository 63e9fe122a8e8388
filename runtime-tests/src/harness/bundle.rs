//! A bundle on disk: config.json edited as a JSON value, and a rootfs that holds the guest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Cmd, Container, Context, Outcome, Run};

/// Where the guest is in the container.
pub const GUEST: &str = "/bin/guest";

pub struct Bundle<'c> {
    pub context: &'c Context,
    pub dir: PathBuf,
    pub rootfs: PathBuf,
    /// Written to config.json by what runs or creates.
    pub config: Value,
    /// Options for create and run, before the id.
    pub options: Vec<String>,
}

impl<'c> Bundle<'c> {
    pub(super) fn new(context: &'c Context) -> Outcome<Self> {
        let dir = context.new_dir("bundle")?;
        let rootfs = dir.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "mnt"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        fs::copy(&context.guest, rootfs.join("bin/guest"))?;
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000::/home/sailor:/bin/sh\n",
        )?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\nsailor:x:1000:\ncrew:x:2000:sailor\n")?;
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        let config = base_config(context);
        Ok(Bundle { context, dir, rootfs, config, options: vec![] })
    }

    /// Sets the value at a JSON pointer (`/process/user/umask`), making objects on the way.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        *slot(&mut self.config, pointer) = value.into();
        self
    }

    /// Appends to the array at a JSON pointer, which is made if it is missing.
    pub fn push(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        let slot = slot(&mut self.config, pointer);
        match slot {
            Value::Array(list) => list.push(value.into()),
            other => *other = json!([value.into()]),
        }
        self
    }

    /// Removes the value at a JSON pointer.
    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(Value::Object(map)) = self.config.pointer_mut(parent)
        {
            map.remove(key);
        }
        self
    }

    /// Anything else.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) -> &mut Self {
        change(&mut self.config);
        self
    }

    /// What the guest does; several commands are separated by `,` (see `guest help`).
    pub fn guest(&mut self, words: &[&str]) -> &mut Self {
        let mut args = vec![GUEST];
        args.extend(words);
        self.set("/process/args", json!(args))
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> &mut Self {
        let source = source.as_ref().to_string_lossy();
        self.push("/mounts", json!({"destination": destination, "type": kind, "source": source, "options": options}))
    }

    /// Takes the mount at `destination` out of the base configuration.
    pub fn without_mount(&mut self, destination: &str) -> &mut Self {
        if let Some(Value::Array(list)) = self.config.get_mut("mounts") {
            list.retain(|m| m["destination"] != destination);
        }
        self
    }

    /// Adds a namespace, or changes the one of this kind; `path` joins.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Self {
        self.without_namespace(kind);
        let entry = match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        };
        self.push("/linux/namespaces", entry)
    }

    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(Value::Array(list)) = self.config.pointer_mut("/linux/namespaces") {
            list.retain(|n| n["type"] != kind);
        }
        self
    }

    /// A new user namespace with these mappings: (container, host, size), the same for users and groups.
    ///
    /// The rootfs is given to the mapped root, so that mounts and files can be made in it.
    pub fn user_namespace(&mut self, maps: &[(u32, u32, u32)]) -> Outcome<&mut Self> {
        let list: Vec<Value> = maps.iter().map(|(c, h, s)| json!({"containerID": c, "hostID": h, "size": s})).collect();
        self.namespace("user", None);
        self.set("/linux/uidMappings", json!(list));
        self.set("/linux/gidMappings", json!(list));
        let root = maps.iter().find(|m| m.0 == 0).map_or(0, |m| m.1);
        give(&self.rootfs, root)?;
        Ok(self)
    }

    /// All capabilities that root has here, in all sets but ambient and inheritable.
    pub fn privileged(&mut self) -> &mut Self {
        let names: Vec<String> = all_capabilities();
        for set in ["bounding", "effective", "permitted"] {
            self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        self.remove("/process/capabilities/ambient").set("/process/noNewPrivileges", false)
    }

    /// A file in the rootfs.
    pub fn file(&mut self, path: &str, content: impl AsRef<[u8]>) -> Outcome<PathBuf> {
        let full = self.rootfs.join(path.trim_start_matches('/'));
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&full, content)?;
        Ok(full)
    }

    /// An executable file in the rootfs.
    pub fn executable(&mut self, path: &str, content: impl AsRef<[u8]>) -> Outcome<PathBuf> {
        let full = self.file(path, content)?;
        fs::set_permissions(&full, fs::Permissions::from_mode(0o755))?;
        Ok(full)
    }

    /// A directory in the rootfs.
    pub fn directory(&mut self, path: &str) -> Outcome<PathBuf> {
        let full = self.rootfs.join(path.trim_start_matches('/'));
        fs::create_dir_all(&full)?;
        Ok(full)
    }

    /// An option for create and run.
    pub fn option(&mut self, option: &str) -> &mut Self {
        self.options.push(option.into());
        self
    }

    /// Writes config.json.
    pub fn write(&self) -> Outcome {
        Ok(fs::write(self.dir.join("config.json"), serde_json::to_vec_pretty(&self.config)?)?)
    }

    /// An id that no other container of this run has; the cgroup gets the same name.
    pub fn fresh_id(&self) -> String {
        format!("{}{}", self.context.id_prefix(), self.context.next())
    }

    /// Prepares a container of this bundle: config.json is written with the container's cgroup; nothing runs yet.
    pub fn container(&mut self) -> Outcome<Container<'c>> {
        let id = self.fresh_id();
        if self.config["linux"].is_object() && self.config["linux"].get("cgroupsPath").is_none_or(is_ours) {
            let path = match self.context.slice() {
                Some(slice) => format!("{slice}:kelson-test:{id}"),
                None => format!("{}/{id}", self.context.cgroup_parent),
            };
            self.set("/linux/cgroupsPath", path);
        }
        self.write()?;
        Ok(Container::new(self.context, id, self.dir.clone(), self.options.clone()))
    }

    /// `run` in the foreground, to its end.
    pub fn run(&mut self) -> Outcome<Run> {
        self.container()?.run_command().run()
    }

    /// `run` as a command that can still be changed.
    pub fn run_command(&mut self) -> Outcome<Cmd<'c>> {
        Ok(self.container()?.run_command())
    }

    /// `run` of a bundle whose guest reports, and its report.
    pub fn report(&mut self) -> Outcome<super::Report> {
        self.run()?.ok()?.report()
    }

    /// `create`, which must succeed.
    pub fn create(&mut self) -> Outcome<Container<'c>> {
        let mut container = self.container()?;
        container.create()?.ok()?;
        Ok(container)
    }

    /// `create` and `start`, which must succeed.
    pub fn start(&mut self) -> Outcome<Container<'c>> {
        let container = self.create()?;
        container.start()?.ok()?;
        Ok(container)
    }

    /// Expects that both `create` and `run` refuse the bundle with an error that holds each of `words`,
    /// and that neither leaves anything.
    pub fn refused(&mut self, words: &[&str]) -> Outcome {
        let run = self.run()?.fails_saying(words)?;
        let mut container = self.container()?;
        let create = container.create()?.fails_saying(words).map_err(|e| e.during("create"))?;
        if self.context.peer == super::Peer::Kelson {
            // No code of a program (126, 127): none was asked for.
            crate::check_eq!((run.code, create.code), (1, 1), "exit codes\n  {}", run.told());
        }
        let left = self.context.state_entries();
        crate::check!(left.is_empty(), "state directories are left after a refusal: {left:?}\n  {}", run.told());
        container.forget();
        Ok(())
    }
}

/// A cgroupsPath that an earlier container of the same bundle was given.
fn is_ours(path: &Value) -> bool {
    path.as_str().is_some_and(|p| p.starts_with("/kelson-test-") || p.contains(":kelson-test:"))
}

fn slot<'v>(value: &'v mut Value, pointer: &str) -> &'v mut Value {
    let mut at = value;
    for key in pointer.split('/').skip(1) {
        let key = key.replace("~1", "/").replace("~0", "~");
        at = match at {
            Value::Array(list) => {
                let index = key.parse().unwrap_or(list.len());
                while list.len() <= index {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            other => {
                if !other.is_object() {
                    *other = json!({});
                }
                &mut other[key]
            }
        };
    }
    at
}

/// Gives a tree to a user and the group of the same number.
pub fn give(path: &Path, id: u32) -> Outcome {
    std::os::unix::fs::lchown(path, Some(id), Some(id))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), id)?;
        }
    }
    Ok(())
}

/// Names of the capabilities in this process's bounding set.
pub fn all_capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap_or("0");
    let bits = u64::from_str_radix(hex, 16).unwrap_or(0);
    CAPABILITIES.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, n)| format!("CAP_{n}")).collect()
}

/// Bit mask of capabilities by name.
pub fn capability_bits(names: &[&str]) -> u64 {
    let bit =
        |name: &&str| CAPABILITIES.iter().position(|n| name.strip_prefix("CAP_") == Some(n)).map_or(0, |i| 1 << i);
    names.iter().map(bit).fold(0, |a, b| a | b)
}

/// capabilities(7), in the order of their numbers.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What `runc spec` writes, without a terminal and with a writable root; the guest reports.
pub fn base_config(context: &Context) -> Value {
    let (key, value) = context.marker();
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [GUEST, "report"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
                format!("{key}={value}"),
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "kelson-test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
