//! The Plan: config.json with every default applied, every string parsed and every contradiction refused.
//!
//! What reads a Plan only acts; after it only the kernel can refuse. Only plan/ makes one.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::security::seccomp::{Action, Arch, Program};

/// What plan/ must know about the host and the caller to decide.
#[derive(Clone, Debug)]
pub struct Host {
    /// The caller is not root of the initial user namespace (contract: euid ≠ 0, or a user namespace with XDG_RUNTIME_DIR).
    pub rootless: bool,
    /// Highest capability that the kernel knows (capabilities(7)).
    pub last_capability: u8,
    /// Whether AppArmor is enabled (/sys/module/apparmor/parameters/enabled says Y); asked only for a container that has a
    /// profile, as the next one for a label.
    pub apparmor: fn() -> bool,
    /// Whether SELinux is enabled (selinuxfs mounted).
    pub selinux: fn() -> bool,
}

/// Everything that create does, in the order-free form of the specification.
#[derive(Debug)]
pub struct Plan {
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// `annotations`, empty if there are none.
    pub annotations: BTreeMap<String, String>,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub root: Root,
    pub mounts: Vec<Mount>,
    pub namespaces: Namespaces,
    /// `linux.uidMappings` and `linux.gidMappings`; both empty without a new user namespace.
    pub id_maps: IdMaps,
    /// `linux.timeOffsets`: seconds and nanoseconds to add to a clock.
    pub time_offsets: TimeOffsets,
    pub net_devices: Vec<NetDevice>,
    /// `linux.devices`; the default devices are not in it.
    pub devices: Vec<Device>,
    /// `linux.maskedPaths`, absolute.
    pub masked_paths: Vec<PathBuf>,
    /// `linux.readonlyPaths`, absolute.
    pub readonly_paths: Vec<PathBuf>,
    /// `linux.sysctl`: key with dots or slashes turned into a path below /proc/sys ("net/ipv4/ip_forward"), value.
    pub sysctl: Vec<Sysctl>,
    /// `linux.mountLabel`.
    pub mount_label: Option<String>,
    pub personality: Option<Personality>,
    pub memory_policy: Option<MemoryPolicy>,
    pub seccomp: Option<Seccomp>,
    /// `linux.cgroupsPath` as written.
    pub cgroups_path: Option<String>,
    pub resources: Resources,
    pub hooks: Hooks,
    /// `None`: the container can be created but not started.
    pub process: Option<Process>,
}

impl Plan {
    /// The user of the host who gets the container's cgroup to manage (config-linux.md#cgroup-ownership): its own, if it has a new
    /// cgroup namespace and may write to /sys/fs/cgroup.
    pub fn cgroup_owner(&self) -> Option<u32> {
        let is_writable = |mount: &Mount| {
            matches!(mount.kind, MountKind::Cgroup { .. })
                && mount.destination == Path::new("/sys/fs/cgroup")
                && (mount.attributes.top.set | mount.attributes.recursive.set) & libc::MOUNT_ATTR_RDONLY == 0
        };
        if !self.namespaces.cgroup.is_new() || !self.mounts.iter().any(is_writable) {
            return None;
        }
        let user = self.process.as_ref()?.user.uid;
        if self.namespaces.user.is_own() { self.id_maps.host_uid(user) } else { Some(user) }
    }
}

#[derive(Debug)]
pub struct Root {
    /// Absolute path of `root.path`.
    pub path: PathBuf,
    pub readonly: bool,
    /// `linux.rootfsPropagation`.
    pub propagation: Option<Propagation>,
    pub overlay: Option<Overlay>,
}

/// An overlay as root file system, from the annotations `org.kelson.overlay.*` or `--overlay`.
#[derive(Debug)]
pub struct Overlay {
    /// Absolute lower directories, topmost first; never empty.
    pub lower: Vec<PathBuf>,
    /// Upper and work directory; `None` is a private tmpfs that vanishes with the container.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// All of them are seen through the id maps of the container's user namespace: on disk their files belong to the ids that are
    /// seen inside.
    pub id_mapped: bool,
    /// fuse-overlayfs makes it, and the kernel is not asked.
    pub is_by_fuse: bool,
}

/// Propagation of a mount (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub kind: PropagationKind,
    pub recursive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationKind {
    Shared,
    Slave,
    Private,
    Unbindable,
}

#[derive(Debug)]
pub struct Mount {
    /// Position in `mounts`, for errors: `mounts[index]`.
    pub index: usize,
    /// Absolute path in the container.
    pub destination: PathBuf,
    pub kind: MountKind,
    /// Attributes of the one mount (and of submounts where an option says so).
    pub attributes: MountAttributes,
    /// Superblock flags (MS_SYNCHRONOUS, MS_DIRSYNC, MS_LAZYTIME, MS_I_VERSION, MS_MANDLOCK, MS_SILENT) to set and to clear.
    pub superblock: FlagChange,
    /// In the order written; empty leaves the default (private).
    pub propagation: Vec<Propagation>,
    /// `tmpcopyup`: what is below the destination is copied into the new tmpfs.
    pub copy_up: bool,
    pub id_map: Option<MountIdMap>,
}

#[derive(Debug)]
pub enum MountKind {
    /// `bind` or `rbind`; the source is absolute (relative ones were joined to the bundle).
    Bind { source: PathBuf, recursive: bool },
    /// A new file system; `data` is what is not a flag: `size=64k`, `mode=755`, in order.
    FileSystem { fs_type: String, source: String, data: Vec<String> },
    /// Type `cgroup` or `cgroup2`: what the host has, seen from the container's cgroup.
    Cgroup { data: Vec<String> },
    /// Option `remount`: changes the mount that is there.
    Remount { data: Vec<String> },
}

/// MOUNT_ATTR_* (mount_setattr(2)); an access time option sets bits in `set` and MOUNT_ATTR__ATIME in `clear`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes {
    /// For the mount itself (`ro`, `nosuid`).
    pub top: FlagChange,
    /// For the mount and all below it (`rro`, `rnosuid`), mount_setattr(2) with AT_RECURSIVE.
    pub recursive: FlagChange,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagChange {
    pub set: u64,
    pub clear: u64,
}

/// `idmap` or `ridmap`: ids of a bind mount are shown through a user namespace's maps.
#[derive(Debug)]
pub struct MountIdMap {
    pub recursive: bool,
    /// `None`: the container's own user namespace.
    pub maps: Option<IdMaps>,
}

/// A line of uid_map or gid_map (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapping {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    pub uid: Vec<IdMapping>,
    pub gid: Vec<IdMapping>,
}

impl IdMaps {
    /// The user outside who is `uid` in the user namespace.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        self.uid.iter().find_map(|map| Some(map.host + uid.checked_sub(map.container).filter(|nth| *nth < map.size)?))
    }
}

/// What becomes of one kind of namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// Not in `linux.namespaces`: the caller's.
    #[default]
    Inherit,
    New,
    /// The namespace that this absolute path names.
    Join(PathBuf),
}

impl Namespace {
    pub fn is_new(&self) -> bool {
        *self == Namespace::New
    }
    /// The container is in a namespace that its config names, new or joined.
    pub fn is_own(&self) -> bool {
        *self != Namespace::Inherit
    }
}

#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    pub pid: Namespace,
    pub network: Namespace,
    pub mount: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub user: Namespace,
    pub cgroup: Namespace,
    pub time: Namespace,
}

#[derive(Clone, Debug, Default)]
pub struct TimeOffsets {
    pub monotonic: Option<(i64, u32)>,
    pub boottime: Option<(i64, u32)>,
}

impl TimeOffsets {
    pub fn is_empty(&self) -> bool {
        self.monotonic.is_none() && self.boottime.is_none()
    }
}

/// `linux.netDevices`: a host interface that moves into the container's network namespace.
#[derive(Debug)]
pub struct NetDevice {
    /// Name on the host.
    pub host: String,
    /// Name in the container; may be a template such as `eth%d`.
    pub container: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

#[derive(Debug)]
pub struct Device {
    /// Position in `linux.devices`.
    pub index: usize,
    /// Absolute path in the container.
    pub path: PathBuf,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits; `None` is 0o666, as in runc and crun, for one that is made, and leaves one that is there as it is. So does
    /// `None` as owner, which is 0.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug)]
pub struct Sysctl {
    /// As written in config.json.
    pub key: String,
    /// Below /proc/sys: components separated by `/`.
    pub path: String,
    pub value: String,
}

/// `linux.personality` (personality(2)): PER_LINUX or PER_LINUX32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Personality {
    Linux,
    Linux32,
}

/// `linux.memoryPolicy` for set_mempolicy(2): mode with its flags, node mask words.
#[derive(Debug)]
pub struct MemoryPolicy {
    pub mode: u32,
    pub node_mask: Vec<u64>,
}

/// A compiled filter and what seccomp(2) needs with it.
#[derive(Debug)]
pub struct Seccomp {
    pub program: Program,
    /// SECCOMP_FILTER_FLAG_*; NEW_LISTENER is not among them.
    pub flags: u64,
    /// Flags that nobody asked for: they are left out where the kernel does not know them.
    pub default_flags: u64,
    /// Where the notification descriptor goes; `Some` exactly when a rule notifies.
    pub listener: Option<SeccompListener>,
    /// Of the profile that the program is compiled from.
    pub default_action: Action,
    pub architectures: Vec<Arch>,
    /// How many entries `linux.seccomp.syscalls` has.
    pub rules: usize,
}

#[derive(Debug)]
pub struct SeccompListener {
    pub path: PathBuf,
    pub metadata: Option<String>,
}

#[derive(Debug, Default)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// There are hooks that create runs.
    pub fn run_in_create(&self) -> bool {
        !(self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// For errors: `hooks.createRuntime[0]`.
    pub property: String,
    pub path: PathBuf,
    /// argv, with args[0]; empty means argv[0] is the path.
    pub args: Vec<String>,
    /// `KEY=value`; exactly this environment.
    pub env: Vec<String>,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Process {
    pub terminal: bool,
    /// Height and width in characters; only with a terminal.
    pub console_size: Option<(u16, u16)>,
    pub user: User,
    /// Never empty.
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: PathBuf,
    pub capabilities: Capabilities,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    /// `None` leaves it as it is.
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    pub exec_cpu_affinity: ExecCpuAffinity,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
}

/// The five sets of capabilities(7), bit n for capability n; a config without the property has them all empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

#[derive(Clone, Debug)]
pub struct Rlimit {
    /// Position in `process.rlimits`.
    pub index: usize,
    /// RLIMIT_* number (getrlimit(2)).
    pub resource: u32,
    /// As written: `RLIMIT_NOFILE`.
    pub name: &'static str,
    pub soft: u64,
    pub hard: u64,
}

/// sched_setattr(2).
#[derive(Clone, Debug, Default)]
pub struct Scheduler {
    pub policy: u32,
    pub nice: i32,
    pub priority: u32,
    pub flags: u64,
    /// Nanoseconds.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// ioprio_set(2): class (1 real time, 2 best effort, 3 idle) and level 0 to 7.
#[derive(Clone, Copy, Debug)]
pub struct IoPriority {
    pub class: u16,
    pub level: u16,
}

/// CPU sets of `process.execCPUAffinity`, each a list of CPU numbers.
#[derive(Clone, Debug, Default)]
pub struct ExecCpuAffinity {
    pub initial: Option<Vec<u32>>,
    pub r#final: Option<Vec<u32>>,
}

/// `linux.resources`, values as in config.json; `None` leaves the kernel's default.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// In order; the default rules of the runtime are not among them.
    pub devices: Vec<DeviceRule>,
    pub memory: Memory,
    pub cpu: Cpu,
    /// `pids.limit`: -1 is unlimited, 0 a real limit.
    pub pids_limit: Option<i64>,
    pub block_io: BlockIo,
    pub hugepage_limits: Vec<HugepageLimit>,
    pub network: Network,
    pub rdma: Vec<Rdma>,
    /// File name to value, written verbatim (cgroup v2 only).
    pub unified: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceRuleKind {
    /// `a`: character and block devices.
    All,
    Char,
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceRuleKind,
    /// `None` is any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

/// Bytes; -1 is unlimited (config-linux.md#memory).
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    /// Memory and swap together, as in cgroup v1.
    pub swap: Option<i64>,
    pub kernel: Option<i64>,
    pub kernel_tcp: Option<i64>,
    pub swappiness: Option<u64>,
    pub disable_oom_killer: Option<bool>,
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit that is below the present use.
    pub check_before_update: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Cpu {
    pub shares: Option<u64>,
    /// Microseconds; -1 (or 0 in runc's reading) is unlimited.
    pub quota: Option<i64>,
    pub burst: Option<u64>,
    pub period: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
    pub idle: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct BlockIo {
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
    pub weight_device: Vec<WeightDevice>,
    pub throttle_read_bps: Vec<ThrottleDevice>,
    pub throttle_write_bps: Vec<ThrottleDevice>,
    pub throttle_read_iops: Vec<ThrottleDevice>,
    pub throttle_write_iops: Vec<ThrottleDevice>,
}

#[derive(Clone, Debug)]
pub struct WeightDevice {
    pub major: u32,
    pub minor: u32,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct ThrottleDevice {
    pub major: u32,
    pub minor: u32,
    pub rate: u64,
}

#[derive(Clone, Debug)]
pub struct HugepageLimit {
    /// `2MB`, `1GB`, as in the kernel's file names.
    pub page_size: String,
    pub limit: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Network {
    pub class_id: Option<u32>,
    /// Interface name and priority.
    pub priorities: Vec<(String, u32)>,
}

#[derive(Clone, Debug)]
pub struct Rdma {
    pub device: String,
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}
