//! config.json as runtime-spec 1.3.0 writes it (config.md, config-linux.md): the same names, all optional, text borrowed.

use super::json::{Anything, List, Loose, Map, Text, object};

object! {
    /// The whole of config.json.
    struct Config<'a> {
        oci_version: Text<'a> = "ociVersion",
        root: Root<'a> = "root",
        mounts: List<Mount<'a>> = "mounts",
        process: Process<'a> = "process",
        hostname: Text<'a> = "hostname",
        domainname: Text<'a> = "domainname",
        hooks: Hooks<'a> = "hooks",
        annotations: Map<'a, Text<'a>> = "annotations",
        linux: Linux<'a> = "linux",
    }

    struct Root<'a> {
        path: Text<'a> = "path",
        readonly: bool = "readonly",
    }

    struct Mount<'a> {
        destination: Text<'a> = "destination",
        fs_type: Text<'a> = "type",
        source: Text<'a> = "source",
        options: List<Text<'a>> = "options",
        uid_mappings: List<IdMapping<'a>> = "uidMappings",
        gid_mappings: List<IdMapping<'a>> = "gidMappings",
    }

    struct IdMapping<'a> {
        container_id: u32 = "containerID",
        host_id: u32 = "hostID",
        size: u32 = "size",
    }

    struct Hooks<'a> {
        prestart: List<Hook<'a>> = "prestart",
        create_runtime: List<Hook<'a>> = "createRuntime",
        create_container: List<Hook<'a>> = "createContainer",
        start_container: List<Hook<'a>> = "startContainer",
        poststart: List<Hook<'a>> = "poststart",
        poststop: List<Hook<'a>> = "poststop",
    }

    struct Hook<'a> {
        path: Text<'a> = "path",
        args: List<Text<'a>> = "args",
        env: List<Text<'a>> = "env",
        timeout: i64 = "timeout",
    }

    struct Process<'a> ignores("commandLine") {
        terminal: bool = "terminal",
        console_size: Loose<ConsoleSize<'a>> = "consoleSize",
        user: User<'a> = "user",
        args: List<Text<'a>> = "args",
        env: List<Text<'a>> = "env",
        cwd: Text<'a> = "cwd",
        capabilities: Capabilities<'a> = "capabilities",
        rlimits: List<Rlimit<'a>> = "rlimits",
        no_new_privileges: bool = "noNewPrivileges",
        oom_score_adj: i32 = "oomScoreAdj",
        scheduler: Scheduler<'a> = "scheduler",
        io_priority: IoPriority<'a> = "ioPriority",
        exec_cpu_affinity: ExecCpuAffinity<'a> = "execCPUAffinity",
        apparmor_profile: Text<'a> = "apparmorProfile",
        selinux_label: Text<'a> = "selinuxLabel",
    }

    struct ConsoleSize<'a> {
        height: Loose<u64> = "height",
        width: Loose<u64> = "width",
    }

    struct User<'a> ignores("username") {
        uid: u32 = "uid",
        gid: u32 = "gid",
        umask: u32 = "umask",
        additional_gids: List<u32> = "additionalGids",
    }

    struct Capabilities<'a> {
        bounding: List<Text<'a>> = "bounding",
        effective: List<Text<'a>> = "effective",
        permitted: List<Text<'a>> = "permitted",
        inheritable: List<Text<'a>> = "inheritable",
        ambient: List<Text<'a>> = "ambient",
    }

    struct Rlimit<'a> {
        kind: Text<'a> = "type",
        soft: u64 = "soft",
        hard: u64 = "hard",
    }

    struct Scheduler<'a> {
        policy: Text<'a> = "policy",
        nice: i32 = "nice",
        priority: i32 = "priority",
        flags: List<Text<'a>> = "flags",
        runtime: u64 = "runtime",
        deadline: u64 = "deadline",
        period: u64 = "period",
    }

    struct IoPriority<'a> {
        class: Text<'a> = "class",
        priority: i64 = "priority",
    }

    struct ExecCpuAffinity<'a> {
        initial: Text<'a> = "initial",
        finally: Text<'a> = "final",
    }

    struct Linux<'a> {
        namespaces: List<Namespace<'a>> = "namespaces",
        uid_mappings: List<IdMapping<'a>> = "uidMappings",
        gid_mappings: List<IdMapping<'a>> = "gidMappings",
        time_offsets: Map<'a, TimeOffset<'a>> = "timeOffsets",
        devices: List<Device<'a>> = "devices",
        net_devices: Map<'a, NetDevice<'a>> = "netDevices",
        cgroups_path: Text<'a> = "cgroupsPath",
        resources: Resources<'a> = "resources",
        intel_rdt: Anything = "intelRdt",
        memory_policy: MemoryPolicy<'a> = "memoryPolicy",
        sysctl: Map<'a, Text<'a>> = "sysctl",
        seccomp: Seccomp<'a> = "seccomp",
        rootfs_propagation: Text<'a> = "rootfsPropagation",
        masked_paths: List<Text<'a>> = "maskedPaths",
        readonly_paths: List<Text<'a>> = "readonlyPaths",
        mount_label: Text<'a> = "mountLabel",
        personality: Personality<'a> = "personality",
    }

    struct Namespace<'a> {
        kind: Text<'a> = "type",
        path: Text<'a> = "path",
    }

    struct TimeOffset<'a> {
        secs: i64 = "secs",
        nanosecs: u32 = "nanosecs",
    }

    struct Device<'a> {
        kind: Text<'a> = "type",
        path: Text<'a> = "path",
        major: i64 = "major",
        minor: i64 = "minor",
        file_mode: u32 = "fileMode",
        uid: u32 = "uid",
        gid: u32 = "gid",
    }

    struct NetDevice<'a> {
        name: Text<'a> = "name",
    }

    struct MemoryPolicy<'a> {
        mode: Text<'a> = "mode",
        nodes: Text<'a> = "nodes",
        flags: List<Text<'a>> = "flags",
    }

    struct Personality<'a> {
        domain: Text<'a> = "domain",
        flags: List<Text<'a>> = "flags",
    }

    struct Resources<'a> {
        devices: List<DeviceRule<'a>> = "devices",
        memory: Memory<'a> = "memory",
        cpu: Cpu<'a> = "cpu",
        pids: Pids<'a> = "pids",
        block_io: BlockIo<'a> = "blockIO",
        hugepage_limits: List<HugepageLimit<'a>> = "hugepageLimits",
        network: Network<'a> = "network",
        rdma: Map<'a, Rdma<'a>> = "rdma",
        unified: Map<'a, Text<'a>> = "unified",
    }

    struct DeviceRule<'a> {
        allow: bool = "allow",
        kind: Text<'a> = "type",
        major: i64 = "major",
        minor: i64 = "minor",
        access: Text<'a> = "access",
    }

    struct Memory<'a> {
        limit: i64 = "limit",
        reservation: i64 = "reservation",
        swap: i64 = "swap",
        kernel: i64 = "kernel",
        kernel_tcp: i64 = "kernelTCP",
        swappiness: u64 = "swappiness",
        disable_oom_killer: bool = "disableOOMKiller",
        use_hierarchy: bool = "useHierarchy",
        check_before_update: bool = "checkBeforeUpdate",
    }

    struct Cpu<'a> {
        shares: u64 = "shares",
        quota: i64 = "quota",
        burst: u64 = "burst",
        period: u64 = "period",
        realtime_runtime: i64 = "realtimeRuntime",
        realtime_period: u64 = "realtimePeriod",
        cpus: Text<'a> = "cpus",
        mems: Text<'a> = "mems",
        idle: i64 = "idle",
    }

    struct Pids<'a> {
        limit: i64 = "limit",
    }

    struct BlockIo<'a> {
        weight: u16 = "weight",
        leaf_weight: u16 = "leafWeight",
        weight_device: List<WeightDevice<'a>> = "weightDevice",
        throttle_read_bps_device: List<ThrottleDevice<'a>> = "throttleReadBpsDevice",
        throttle_write_bps_device: List<ThrottleDevice<'a>> = "throttleWriteBpsDevice",
        throttle_read_iops_device: List<ThrottleDevice<'a>> = "throttleReadIOPSDevice",
        throttle_write_iops_device: List<ThrottleDevice<'a>> = "throttleWriteIOPSDevice",
    }

    struct WeightDevice<'a> {
        major: i64 = "major",
        minor: i64 = "minor",
        weight: u16 = "weight",
        leaf_weight: u16 = "leafWeight",
    }

    struct ThrottleDevice<'a> {
        major: i64 = "major",
        minor: i64 = "minor",
        rate: u64 = "rate",
    }

    struct HugepageLimit<'a> {
        page_size: Text<'a> = "pageSize",
        limit: u64 = "limit",
    }

    struct Network<'a> {
        class_id: u32 = "classID",
        priorities: List<InterfacePriority<'a>> = "priorities",
    }

    struct InterfacePriority<'a> {
        name: Text<'a> = "name",
        priority: u32 = "priority",
    }

    struct Rdma<'a> {
        hca_handles: u32 = "hcaHandles",
        hca_objects: u32 = "hcaObjects",
    }

    struct Seccomp<'a> {
        default_action: Text<'a> = "defaultAction",
        default_errno_ret: u32 = "defaultErrnoRet",
        architectures: List<Text<'a>> = "architectures",
        flags: List<Text<'a>> = "flags",
        listener_path: Text<'a> = "listenerPath",
        listener_metadata: Text<'a> = "listenerMetadata",
        syscalls: List<Syscall<'a>> = "syscalls",
    }

    struct Syscall<'a> {
        names: List<Text<'a>> = "names",
        action: Text<'a> = "action",
        errno_ret: u32 = "errnoRet",
        args: List<SyscallArg<'a>> = "args",
    }

    struct SyscallArg<'a> {
        index: u32 = "index",
        value: u64 = "value",
        value_two: u64 = "valueTwo",
        op: Text<'a> = "op",
    }
}
