//! Every way in which config.json must be refused: an error that names the property, and nothing left
//! (runtime-spec's MUSTs; runc 1.5 lets 13 of these through, crun 1.28 17).

use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::harness::{Bundle, Context, Outcome, Peer, Test, Value, json};
use crate::{check, skip};

/// A change of the base configuration that makes it wrong, and the words that Kelson's error must hold.
struct Case {
    name: &'static str,
    change: fn(&mut Bundle) -> Outcome,
    words: &'static [&'static str],
}

/// Sets one value.
macro_rules! case {
    ($name:literal, $pointer:literal = $value:tt, $($word:literal),+) => {
        Case { name: $name, change: |b| { b.set($pointer, json!($value)); Ok(()) }, words: &[$($word),+] }
    };
    ($name:literal, remove $pointer:literal, $($word:literal),+) => {
        Case { name: $name, change: |b| { b.remove($pointer); Ok(()) }, words: &[$($word),+] }
    };
    ($name:literal, push $pointer:literal = $value:tt, $($word:literal),+) => {
        Case { name: $name, change: |b| { b.push($pointer, json!($value)); Ok(()) }, words: &[$($word),+] }
    };
    ($name:literal, |$b:ident| $change:expr, $($word:literal),+) => {
        Case { name: $name, change: |$b| { $change; Ok(()) }, words: &[$($word),+] }
    };
}

const CASES: &[Case] = &[
    // config.md
    case!("oci_version_garbage", "/ociVersion" = "garbage", "ociVersion"),
    case!("oci_version_missing", remove "/ociVersion", "ociVersion"),
    case!("oci_version_empty", "/ociVersion" = "", "ociVersion"),
    case!("oci_version_of_an_unknown_major", "/ociVersion" = "9.9.9", "ociVersion"),
    case!("oci_version_a_number", "/ociVersion" = 1, "ociVersion"),
    case!("root_missing", remove "/root", "root"),
    case!("root_path_missing", remove "/root/path", "root.path"),
    case!("root_path_empty", "/root/path" = "", "root.path"),
    case!("root_path_not_there", "/root/path" = "nothing-here", "root.path", "nothing-here"),
    case!("root_path_a_file", "/root/path" = "config.json", "root.path"),
    case!("root_readonly_a_string", "/root/readonly" = "yes", "root.readonly"),
    case!("cwd_missing", remove "/process/cwd", "process.cwd"),
    case!("cwd_relative", "/process/cwd" = "tmp", "process.cwd"),
    case!("cwd_empty", "/process/cwd" = "", "process.cwd"),
    case!("cwd_a_number", "/process/cwd" = 5, "process.cwd"),
    case!("args_missing", remove "/process/args", "process.args"),
    case!("args_empty", "/process/args" = [], "process.args"),
    case!("args_with_a_nul", "/process/args" = ["/bin/guest", "a\u{0}b"], "process.args"),
    case!("args_a_string", "/process/args" = "/bin/guest", "process.args"),
    case!("env_with_a_nul", "/process/env" = ["A=b\u{0}c"], "process.env"),
    case!("rlimit_unknown", push "/process/rlimits" = {"type": "RLIMIT_FUN", "soft": 1, "hard": 1}, "process.rlimits", "RLIMIT_FUN"),
    case!("rlimit_twice", push "/process/rlimits" = {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}, "process.rlimits", "RLIMIT_NOFILE"),
    case!("rlimit_soft_above_hard", "/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": 10, "hard": 1}], "process.rlimits"),
    case!("rlimit_without_hard", "/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": 10}], "process.rlimits"),
    case!("rlimit_negative", "/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": (-1), "hard": 1}], "process.rlimits"),
    case!("capabilities_a_string", "/process/capabilities/bounding" = "CAP_KILL", "process.capabilities"),
    case!("umask_too_large", "/process/user/umask" = 99999, "process.user.umask"),
    case!("uid_negative", "/process/user/uid" = (-1), "process.user.uid"),
    case!("uid_over_32_bits", "/process/user/uid" = 4294967296u64, "process.user.uid"),
    case!("uid_minus_one", "/process/user/uid" = 4294967295u64, "process.user.uid"),
    case!("gid_over_32_bits", "/process/user/gid" = 4294967296u64, "process.user.gid"),
    case!("gid_minus_one", "/process/user/gid" = 4294967295u64, "process.user.gid"),
    case!(
        "additional_gid_over_32_bits",
        "/process/user/additionalGids" = [4294967296u64],
        "process.user.additionalGids"
    ),
    case!("scheduler_policy_unknown", "/process/scheduler" = {"policy": "SCHED_LAZY"}, "process.scheduler.policy"),
    case!("scheduler_policy_missing", "/process/scheduler" = {"nice": 1}, "process.scheduler.policy"),
    case!("scheduler_flag_unknown", "/process/scheduler" = {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_FUN"]}, "process.scheduler.flags"),
    case!("scheduler_nice_too_large", "/process/scheduler" = {"policy": "SCHED_OTHER", "nice": 99}, "process.scheduler"),
    case!("scheduler_priority_too_large", "/process/scheduler" = {"policy": "SCHED_FIFO", "priority": 100}, "process.scheduler"),
    case!("io_priority_class_unknown", "/process/ioPriority" = {"class": "IOPRIO_CLASS_FUN", "priority": 1}, "process.ioPriority.class"),
    case!("io_priority_too_large", "/process/ioPriority" = {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority"),
    case!("exec_cpu_affinity_bad_list", "/process/execCPUAffinity" = {"initial": "0-x"}, "process.execCPUAffinity.initial"),
    case!("exec_cpu_affinity_reversed", "/process/execCPUAffinity" = {"final": "5-2"}, "process.execCPUAffinity.final"),
    case!("oom_score_adj_too_large", "/process/oomScoreAdj" = 2000, "process.oomScoreAdj"),
    case!(
        "console_size_too_large",
        |b| b.set("/process/terminal", true).set("/process/consoleSize", json!({"height": 70000, "width": 80})),
        "process.consoleSize"
    ),
    case!("hostname_without_uts", |b| b.without_namespace("uts"), "hostname", "uts"),
    case!(
        "domainname_without_uts",
        |b| b.without_namespace("uts").remove("/hostname").set("/domainname", "x"),
        "domainname",
        "uts"
    ),
    case!("hostname_too_long", |b| b.set("/hostname", "x".repeat(65)), "hostname"),
    case!("annotation_with_an_empty_key", "/annotations" = {"": "x"}, "annotations"),
    case!("annotation_that_is_a_number", "/annotations" = {"a.b": 5}, "annotations"),
    // mounts
    case!("mount_option_unknown", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "type": "bind", "options": ["bnid"]},
        "mounts[7]", "bnid"),
    case!("mount_without_destination", push "/mounts" = {"source": "tmpfs", "type": "tmpfs"}, "mounts[7].destination"),
    case!("mount_source_missing", push "/mounts" = {"destination": "/mnt", "source": "/no/such/source", "options": ["bind"]},
        "mounts[7]", "/no/such/source"),
    case!("mount_file_system_unknown", push "/mounts" = {"destination": "/mnt", "source": "x", "type": "nofs"}, "mounts[7]", "nofs"),
    case!("mount_with_one_kind_of_mappings", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap"],
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}, "mounts[7]", "gidMappings"),
    case!("mount_idmap_without_any_mappings", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap"]},
        "mounts[7]", "idmap"),
    case!("mount_over_proc", push "/mounts" = {"destination": "/proc/sys", "source": "/tmp", "options": ["bind"]}, "mounts[7]", "/proc"),
    case!(
        "mount_of_a_directory_as_proc",
        |b| b.without_mount("/proc").mount("/proc", "bind", "/tmp", &["bind"]),
        "mounts[6]",
        "/proc"
    ),
    case!("mount_options_a_string", push "/mounts" = {"destination": "/mnt", "type": "tmpfs", "options": "ro"}, "mounts[7].options"),
    // hooks
    case!("hook_path_relative", "/hooks" = {"poststop": [{"path": "bin/true"}]}, "hooks.poststop[0].path"),
    case!("hook_path_missing", "/hooks" = {"poststart": [{"args": ["x"]}]}, "hooks.poststart[0].path"),
    case!("hook_timeout_zero", "/hooks" = {"createRuntime": [{"path": "/bin/true", "timeout": 0}]}, "hooks.createRuntime[0].timeout"),
    case!("hook_timeout_negative", "/hooks" = {"prestart": [{"path": "/bin/true", "timeout": (-5)}]}, "hooks.prestart[0].timeout"),
    // namespaces and mappings
    case!("namespace_unknown", push "/linux/namespaces" = {"type": "space"}, "linux.namespaces", "space"),
    case!("namespace_twice", push "/linux/namespaces" = {"type": "pid"}, "linux.namespaces", "pid"),
    case!("namespace_path_relative", |b| b.namespace("network", Some("proc/self/ns/net")), "linux.namespaces"),
    case!("namespace_path_missing", |b| b.namespace("network", Some("/no/such/ns")), "linux.namespaces", "/no/such/ns"),
    case!("namespace_path_of_another_type", |b| b.namespace("network", Some("/proc/self/ns/ipc")), "linux.namespaces"),
    case!("namespace_path_of_no_namespace", |b| b.namespace("network", Some("/etc/passwd")), "linux.namespaces"),
    case!("user_namespace_without_mappings", push "/linux/namespaces" = {"type": "user"}, "linux.uidMappings"),
    case!(
        "mappings_without_user_namespace",
        |b| b
            .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]))
            .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}])),
        "linux.uidMappings"
    ),
    case!("mapping_of_size_zero", |b| b.user_namespace(&[(0, 100_000, 0)])?, "linux.uidMappings"),
    case!(
        "mappings_that_overlap",
        |b| b.user_namespace(&[(0, 100_000, 100), (50, 200_000, 100)])?,
        "linux.uidMappings"
    ),
    case!(
        "mappings_for_the_user_are_missing",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.set("/process/user/uid", 50),
        "process.user.uid"
    ),
    case!("time_offsets_without_time_namespace", "/linux/timeOffsets" = {"boottime": {"secs": 1}}, "linux.timeOffsets"),
    case!(
        "time_offsets_with_a_joined_namespace",
        |b| b.namespace("time", Some("/proc/self/ns/time")).set("/linux/timeOffsets", json!({"boottime": {"secs": 1}})),
        "linux.timeOffsets"
    ),
    case!(
        "time_offsets_of_an_unknown_clock",
        |b| b.namespace("time", None).set("/linux/timeOffsets", json!({"realtime": {"secs": 1}})),
        "linux.timeOffsets"
    ),
    case!(
        "time_offsets_too_many_nanoseconds",
        |b| b
            .namespace("time", None)
            .set("/linux/timeOffsets", json!({"boottime": {"secs": 1, "nanosecs": 1_000_000_000}})),
        "linux.timeOffsets"
    ),
    case!(
        "net_devices_without_network_namespace",
        |b| b.without_namespace("network").set("/linux/netDevices", json!({"lo": {}})),
        "linux.netDevices"
    ),
    case!("net_device_name_too_long", "/linux/netDevices" = {"eth0": {"name": "a-name-of-16-chr"}}, "linux.netDevices"),
    case!("net_device_name_with_a_slash", "/linux/netDevices" = {"eth0": {"name": "a/b"}}, "linux.netDevices"),
    case!("net_device_without_a_name", "/linux/netDevices" = {"": {}}, "linux.netDevices"),
    case!("net_devices_of_one_name", "/linux/netDevices" = {"eth0": {"name": "x"}, "eth1": {"name": "x"}}, "linux.netDevices"),
    // devices, paths, sysctl
    case!("device_type_unknown", "/linux/devices" = [{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}], "linux.devices[0].type"),
    case!("device_type_missing", "/linux/devices" = [{"path": "/dev/x", "major": 1, "minor": 3}], "linux.devices[0].type"),
    case!("device_path_missing", "/linux/devices" = [{"type": "c", "major": 1, "minor": 3}], "linux.devices[0].path"),
    case!("device_path_relative", "/linux/devices" = [{"path": "dev/x", "type": "c", "major": 1, "minor": 3}], "linux.devices[0].path"),
    case!("device_without_numbers", "/linux/devices" = [{"path": "/dev/x", "type": "c"}], "linux.devices[0]"),
    case!("device_number_negative", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": (-1), "minor": 3}], "linux.devices[0].major"),
    case!("device_over_another_file", "/linux/devices" = [{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}],
        "linux.devices[0]", "/etc/passwd"),
    case!("masked_path_relative", "/linux/maskedPaths" = ["proc/kcore"], "linux.maskedPaths"),
    case!("readonly_path_relative", "/linux/readonlyPaths" = ["proc/sys"], "linux.readonlyPaths"),
    case!("sysctl_of_the_whole_host", "/linux/sysctl" = {"kernel.panic": "5"}, "linux.sysctl", "kernel.panic"),
    case!("sysctl_vm", "/linux/sysctl" = {"vm.swappiness": "5"}, "linux.sysctl", "vm.swappiness"),
    case!(
        "sysctl_with_the_hosts_network",
        |b| b.without_namespace("network").set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        "linux.sysctl",
        "net.ipv4.ip_forward"
    ),
    case!(
        "sysctl_with_the_hosts_ipc",
        |b| b
            .without_namespace("ipc")
            .without_mount("/dev/mqueue")
            .set("/linux/sysctl", json!({"kernel.msgmax": "1000"})),
        "linux.sysctl",
        "kernel.msgmax"
    ),
    case!(
        "sysctl_with_the_hosts_uts",
        |b| b.without_namespace("uts").remove("/hostname").set("/linux/sysctl", json!({"kernel.domainname": "x"})),
        "linux.sysctl",
        "kernel.domainname"
    ),
    case!("sysctl_that_climbs", "/linux/sysctl" = {"net/../kernel/panic": "1"}, "linux.sysctl"),
    case!("sysctl_that_is_a_number", "/linux/sysctl" = {"net.ipv4.ip_forward": 1}, "linux.sysctl"),
    case!("rootfs_propagation_unknown", "/linux/rootfsPropagation" = "sideways", "linux.rootfsPropagation"),
    case!("personality_domain_unknown", "/linux/personality" = {"domain": "SOLARIS"}, "linux.personality.domain"),
    case!("personality_flags", "/linux/personality" = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, "linux.personality.flags"),
    case!("memory_policy_mode_unknown", "/linux/memoryPolicy" = {"mode": "MPOL_FUN"}, "linux.memoryPolicy.mode"),
    case!("memory_policy_nodes_bad", "/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": "x"}, "linux.memoryPolicy.nodes"),
    case!("memory_policy_without_nodes", "/linux/memoryPolicy" = {"mode": "MPOL_BIND"}, "linux.memoryPolicy"),
    case!("memory_policy_flag_unknown", "/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_FUN"]}, "linux.memoryPolicy.flags"),
    case!("memory_policy_flags_that_exclude_each_other", "/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": "0",
        "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}, "linux.memoryPolicy"),
    case!("intel_rdt", "/linux/intelRdt" = {"closID": "x"}, "linux.intelRdt"),
    // resources
    case!("device_rule_type_unknown", "/linux/resources/devices" = [{"allow": true, "type": "z", "access": "r"}], "linux.resources.devices[0]"),
    case!("device_rule_access_unknown", "/linux/resources/devices" = [{"allow": true, "type": "c", "access": "rx"}], "linux.resources.devices[0]"),
    case!("device_rule_without_allow", "/linux/resources/devices" = [{"access": "rwm"}], "linux.resources.devices[0].allow"),
    case!("memory_swap_below_the_limit", "/linux/resources/memory" = {"limit": 100_000_000, "swap": 50_000_000}, "linux.resources.memory.swap"),
    case!("memory_swap_without_a_limit", "/linux/resources/memory" = {"swap": 50_000_000}, "linux.resources.memory.swap"),
    case!("memory_limit_negative", "/linux/resources/memory" = {"limit": (-2)}, "linux.resources.memory.limit"),
    case!("memory_swappiness_too_large", "/linux/resources/memory" = {"swappiness": 500}, "linux.resources.memory.swappiness"),
    case!("cpu_list_bad", "/linux/resources/cpu" = {"cpus": "0-x"}, "linux.resources.cpu.cpus"),
    case!("cpu_list_of_missing_cpus", "/linux/resources/cpu" = {"cpus": "4000"}, "linux.resources.cpu.cpus"),
    case!("cpu_idle_out_of_range", "/linux/resources/cpu" = {"idle": 5}, "linux.resources.cpu.idle"),
    case!("pids_limit_a_string", "/linux/resources/pids" = {"limit": "many"}, "linux.resources.pids.limit"),
    case!("block_io_weight_out_of_range", "/linux/resources/blockIO" = {"weight": 5}, "linux.resources.blockIO.weight"),
    case!("block_io_weight_device_without_weight", "/linux/resources/blockIO" = {"weightDevice": [{"major": 7, "minor": 7}]},
        "linux.resources.blockIO.weightDevice[0]"),
    case!("block_io_throttle_without_rate", "/linux/resources/blockIO" = {"throttleReadBpsDevice": [{"major": 7, "minor": 7}]},
        "linux.resources.blockIO.throttleReadBpsDevice[0]"),
    case!("hugepage_size_bad", "/linux/resources/hugepageLimits" = [{"pageSize": "large", "limit": 0}], "linux.resources.hugepageLimits[0].pageSize"),
    case!("rdma_without_controller", "/linux/resources/rdma" = {"mlx0": {"hcaHandles": 1}}, "linux.resources.rdma"),
    case!("unified_key_with_a_slash", "/linux/resources/unified" = {"../memory.max": "1"}, "linux.resources.unified"),
    case!("unified_of_an_unknown_controller", "/linux/resources/unified" = {"nothing.max": "1"}, "linux.resources.unified"),
    // seccomp
    case!("seccomp_errno_on_kill", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 5}]}, "linux.seccomp.syscalls[0].errnoRet"),
    case!("seccomp_default_errno_on_allow", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5},
        "linux.seccomp.defaultErrnoRet"),
    case!("seccomp_errno_too_large", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}]}, "linux.seccomp.syscalls[0].errnoRet"),
    case!("seccomp_without_names", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}, "linux.seccomp.syscalls[0].names"),
    case!("seccomp_default_action_missing", "/linux/seccomp" = {"syscalls": []}, "linux.seccomp.defaultAction"),
    case!("seccomp_action_unknown", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_SHRUG"}, "linux.seccomp.defaultAction"),
    case!("seccomp_architecture_unknown", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]},
        "linux.seccomp.architectures"),
    case!("seccomp_flag_unknown", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FUN"]},
        "linux.seccomp.flags"),
    case!("seccomp_operator_unknown", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"],
        "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_XX"}]}]}, "linux.seccomp.syscalls[0].args[0].op"),
    case!("seccomp_argument_out_of_range", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"],
        "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}, "linux.seccomp.syscalls[0].args[0].index"),
    case!("seccomp_metadata_without_listener", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"},
        "linux.seccomp.listenerMetadata"),
    case!("seccomp_notify_without_listener", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}, "linux.seccomp", "listenerPath"),
    case!("seccomp_notify_as_default", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/tmp/x.sock"},
        "linux.seccomp.defaultAction"),
    case!("seccomp_a_list", "/linux/seccomp" = [], "linux.seccomp"),
];

const OTHERS: &[Test] = &[
    Test { name: "apparmor_where_there_is_none", run: apparmor },
    Test { name: "selinux_where_there_is_none", run: selinux },
    Test { name: "mount_label_where_there_is_none", run: mount_label },
    Test { name: "network_class_on_v2", run: network_class },
    Test { name: "unified_on_v1", run: unified_on_v1 },
    Test { name: "v1_only_limits_on_v2", run: v1_only_limits },
    Test { name: "seccomp_program_too_large", run: seccomp_too_large },
    Test { name: "overlay_annotation_that_is_no_list", run: overlay_annotation },
    Test { name: "unknown_property_is_a_warning", run: unknown_property },
    Test { name: "misspelt_property_gets_a_suggestion", run: misspelt_property },
    Test { name: "input_missing", run: input_missing },
    Test { name: "input_empty", run: input_empty },
    Test { name: "input_truncated", run: input_truncated },
    Test { name: "input_over_64_mib", run: input_large },
    Test { name: "input_200000_levels_deep", run: input_deep },
    Test { name: "input_deep_in_an_unknown_property", run: input_deep_unknown },
    Test { name: "input_not_utf8", run: input_not_utf8 },
    Test { name: "input_a_fifo", run: input_fifo },
    Test { name: "input_a_directory", run: input_directory },
    Test { name: "input_full_of_nuls", run: input_nuls },
    Test { name: "input_a_list", run: input_list },
    Test { name: "input_with_something_after_it", run: input_trailing },
    Test { name: "error_is_one_line_with_the_way_out", run: error_form },
];

const LIST: [Test; CASES.len() + OTHERS.len()] = {
    let mut list = [Test { name: "", run: one_case }; CASES.len() + OTHERS.len()];
    let mut i = 0;
    while i < CASES.len() {
        list[i].name = CASES[i].name;
        i += 1;
    }
    while i < list.len() {
        list[i] = OTHERS[i - CASES.len()];
        i += 1;
    }
    list
};

pub const TESTS: &[Test] = &LIST;

fn one_case(ctx: &Context) -> Outcome {
    let name = ctx.name.rsplit("::").next().unwrap_or_default();
    let case = CASES.iter().find(|c| c.name == name).ok_or("no such case")?;
    if name == "rdma_without_controller" && ctx.cgroups.has("rdma") {
        skip!("this host has the rdma controller");
    }
    let mut bundle = ctx.bundle()?;
    (case.change)(&mut bundle)?;
    // The property's name is Kelson's promise; the others must only refuse.
    let words = if ctx.peer == Peer::Kelson { case.words } else { &[] };
    bundle.refused(words)?;
    check!(bundle.context.state_entries().is_empty(), "a state directory is left");
    Ok(())
}

fn words_for<'w>(ctx: &Context, words: &'w [&'w str]) -> &'w [&'w str] {
    if ctx.peer == Peer::Kelson { words } else { &[] }
}

fn apparmor(ctx: &Context) -> Outcome {
    if fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y')) {
        skip!("AppArmor is enabled");
    }
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/apparmorProfile", "some-profile").refused(words_for(ctx, &["process.apparmorProfile"]))
}

fn selinux(ctx: &Context) -> Outcome {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        skip!("SELinux is enabled");
    }
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/selinuxLabel", "system_u:system_r:svirt_lxc_net_t:s0:c1,c2");
    bundle.refused(words_for(ctx, &["process.selinuxLabel"]))
}

fn mount_label(ctx: &Context) -> Outcome {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        skip!("SELinux is enabled");
    }
    let mut bundle = ctx.bundle()?;
    bundle
        .set("/linux/mountLabel", "system_u:object_r:svirt_sandbox_file_t:s0")
        .refused(words_for(ctx, &["linux.mountLabel"]))
}

fn network_class(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    let mut bundle = ctx.bundle()?;
    bundle
        .set("/linux/resources/network", json!({"classID": 1}))
        .refused(words_for(ctx, &["linux.resources.network.classID"]))
}

fn unified_on_v1(ctx: &Context) -> Outcome {
    ctx.need_v1()?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/unified", json!({"memory.max": "100000000"}));
    bundle.refused(words_for(ctx, &["linux.resources.unified"]))
}

fn v1_only_limits(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    for (pointer, value, word) in [
        ("/linux/resources/memory", json!({"swappiness": 5}), "linux.resources.memory.swappiness"),
        ("/linux/resources/memory", json!({"disableOOMKiller": true}), "linux.resources.memory.disableOOMKiller"),
        ("/linux/resources/memory", json!({"kernel": 50_000_000}), "linux.resources.memory.kernel"),
        ("/linux/resources/cpu", json!({"realtimeRuntime": 1000}), "linux.resources.cpu.realtimeRuntime"),
        ("/linux/resources/blockIO", json!({"leafWeight": 100}), "linux.resources.blockIO.leafWeight"),
    ] {
        let mut bundle = ctx.bundle()?;
        bundle.set(pointer, value).refused(words_for(ctx, &[word]))?;
    }
    Ok(())
}

/// The kernel takes 4096 instructions; the error says how many there would be.
fn seccomp_too_large(ctx: &Context) -> Outcome {
    ctx.need_kelson("the count of instructions in an error")?;
    let mut bundle = ctx.bundle()?;
    let rules: Vec<Value> = (0..3000u32)
        .map(|i| {
            let args = json!([{"index": 0, "value": u64::from(i) << 33 | 5, "op": "SCMP_CMP_EQ"}]);
            json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": i % 100 + 1, "args": args})
        })
        .collect();
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    bundle.refused(&["linux.seccomp", "instructions", "4096"])
}

fn overlay_annotation(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    for (value, word) in
        [("not json", "lower"), ("[]", "lower"), ("[\"/no/such/layer\"]", "/no/such/layer"), ("[1]", "lower")]
    {
        let mut bundle = ctx.bundle()?;
        bundle
            .set("/annotations", json!({"org.kelson.overlay.lower": value}))
            .refused(&["org.kelson.overlay", word])?;
    }
    let mut bundle = ctx.bundle()?;
    let lower = json!([bundle.rootfs]).to_string();
    let upper = ctx.new_dir("upper")?;
    bundle.set("/annotations", json!({"org.kelson.overlay.lower": lower, "org.kelson.overlay.upper": upper}));
    bundle.refused(&["org.kelson.overlay.work"])
}

fn unknown_property(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/vendorThing", json!({"a": [1, 2]})).set("/process/sparkle", true);
    let run = bundle.run()?.ok()?;
    if ctx.peer == Peer::Kelson {
        for word in ["vendorThing", "process.sparkle"] {
            check!(run.err().contains(word), "no warning names {word:?}: {:?}", run.err());
        }
    }
    Ok(())
}

fn misspelt_property(ctx: &Context) -> Outcome {
    ctx.need_kelson("a suggestion for a misspelt property")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/rootPropagation", "private").set("/process/capabilites", json!({}));
    let run = bundle.run()?.ok()?;
    for word in ["linux.rootPropagation", "rootfsPropagation", "process.capabilites", "capabilities"] {
        check!(run.err().contains(word), "no warning holds {word:?}: {:?}", run.err());
    }
    Ok(())
}

/// Refused with one clear line that names the file, quickly.
fn bad_input(ctx: &Context, content: Option<&[u8]>, words: &[&str]) -> Outcome {
    let bundle = ctx.bundle()?;
    if let Some(content) = content {
        fs::write(bundle.dir.join("config.json"), content)?;
    }
    refused_input(ctx, &bundle, words)
}

fn refused_input(ctx: &Context, bundle: &Bundle, words: &[&str]) -> Outcome {
    for verb in ["run", "create"] {
        let id = bundle.fresh_id();
        let run = ctx.runtime().arg(verb).arg("--bundle").arg(&bundle.dir).arg(&id).run()?.fails()?;
        if ctx.peer == Peer::Kelson {
            let run = run.fails_saying(&["config.json"])?.fails_saying(words)?;
            check!(run.err().trim_end().lines().count() == 1, "the error is not one line\n  {}", run.told());
            check!(run.err().len() < 1000, "the error is {} bytes long", run.err().len());
        }
    }
    check!(ctx.state_entries().is_empty(), "state directories are left: {:?}", ctx.state_entries());
    Ok(())
}

fn input_missing(ctx: &Context) -> Outcome {
    bad_input(ctx, None, &["no such file"])
}

fn input_empty(ctx: &Context) -> Outcome {
    bad_input(ctx, Some(b""), &[])
}

fn input_truncated(ctx: &Context) -> Outcome {
    let bundle = ctx.bundle()?;
    let whole = serde_json::to_vec(&bundle.config)?;
    bad_input(ctx, Some(&whole[..whole.len() / 2]), &["line"])
}

/// A good configuration, for a runtime that does not refuse what is done to it.
fn in_own_cgroup(ctx: &Context) -> Outcome<Value> {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/cgroupsPath", format!("{}/input", ctx.cgroup_parent));
    Ok(bundle.config)
}

fn input_large(ctx: &Context) -> Outcome {
    let mut config = in_own_cgroup(ctx)?;
    config["annotations"] = json!({"a": "x".repeat(65 << 20)});
    bad_input(ctx, Some(&serde_json::to_vec(&config)?), &["64"])
}

fn input_deep(ctx: &Context) -> Outcome {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    bad_input(ctx, Some(deep.as_bytes()), &[])
}

fn input_deep_unknown(ctx: &Context) -> Outcome {
    let text = in_own_cgroup(ctx)?.to_string();
    let deep = format!("{{\"x\":{}{},{}", "[".repeat(200_000), "]".repeat(200_000), &text[1..]);
    bad_input(ctx, Some(deep.as_bytes()), &[])
}

fn input_not_utf8(ctx: &Context) -> Outcome {
    let text = in_own_cgroup(ctx)?.to_string().replace("kelson-test\"", "kelson\u{fffd}\"");
    let bytes: Vec<u8> = text.as_bytes().to_vec();
    let mark = "\u{fffd}".as_bytes();
    let at = bytes.windows(mark.len()).position(|w| w == mark).ok_or("no mark")?;
    let mut bytes = bytes;
    bytes.splice(at..at + mark.len(), [0xff, 0xfe]);
    bad_input(ctx, Some(&bytes), &[])
}

fn input_fifo(ctx: &Context) -> Outcome {
    let bundle = ctx.bundle()?;
    nix::unistd::mkfifo(&bundle.dir.join("config.json"), nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    refused_input(ctx, &bundle, &["regular file"])
}

fn input_directory(ctx: &Context) -> Outcome {
    let bundle = ctx.bundle()?;
    fs::create_dir(bundle.dir.join("config.json"))?;
    refused_input(ctx, &bundle, &[])
}

fn input_nuls(ctx: &Context) -> Outcome {
    bad_input(ctx, Some(&[0; 4096]), &[])
}

fn input_list(ctx: &Context) -> Outcome {
    bad_input(ctx, Some(b"[1, 2]"), &[])
}

fn input_trailing(ctx: &Context) -> Outcome {
    bad_input(ctx, Some(format!("{} garbage", in_own_cgroup(ctx)?).as_bytes()), &[])
}

fn error_form(ctx: &Context) -> Outcome {
    ctx.need_kelson("the form of errors")?;
    ctx.need_new_syscalls("the name of an option that the kernel refuses")?;
    let mut bundle = ctx.bundle()?;
    let run = bundle.mount("/mnt", "tmpfs", "tmpfs", &["bnid"]).run()?.fails()?;
    let text = run.err();
    check!(text.starts_with("kelson: "), "the error does not start with the program's name: {text:?}");
    check!(text.trim_end().lines().count() == 1, "more than one line: {text:?}");
    check!(text.as_bytes().last() == Some(&b'\n'), "no newline at the end: {text:?}");
    check!(std::ffi::OsStr::new(text.trim_end()).as_bytes().is_ascii(), "not plain text: {text:?}");
    check!(text.matches("bnid").count() == 1, "said more than once: {text:?}");
    Ok(())
}
