//! Every way in which config.json must be refused: an error that names the property and the cause, and nothing left.
//! One row a refusal of src/plan; known.toml lists what runc and crun let through.

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
    case!("args_with_an_empty_name", "/process/args" = [""], "process.args[0]", "empty"),
    case!("env_without_a_name", "/process/env" = ["A=b", "=x"], "process.env[1]", "no name"),
    case!("env_empty", "/process/env" = [""], "process.env[0]", "no name"),
    case!("rlimit_unknown", push "/process/rlimits" = {"type": "RLIMIT_FUN", "soft": 1, "hard": 1}, "process.rlimits", "RLIMIT_FUN"),
    case!("rlimit_twice", push "/process/rlimits" = {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}, "process.rlimits", "RLIMIT_NOFILE"),
    case!("rlimit_soft_above_hard", "/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": 10, "hard": 1}], "process.rlimits"),
    case!("rlimit_without_hard", "/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": 10}], "process.rlimits"),
    case!("rlimit_without_soft", "/process/rlimits" = [{"type": "RLIMIT_CORE", "hard": 10}], "process.rlimits[0].soft", "missing"),
    case!("rlimit_without_type", "/process/rlimits" = [{"soft": 1, "hard": 10}], "process.rlimits[0].type", "missing"),
    case!("rlimit_negative", "/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": (-1), "hard": 1}], "process.rlimits"),
    case!("capabilities_a_string", "/process/capabilities/bounding" = "CAP_KILL", "process.capabilities"),
    case!("umask_too_large", "/process/user/umask" = 99999, "process.user.umask"),
    case!("uid_negative", "/process/user/uid" = (-1), "process.user.uid"),
    case!("uid_over_32_bits", "/process/user/uid" = 4294967296u64, "process.user.uid"),
    case!("uid_minus_one", "/process/user/uid" = 4294967295u64, "process.user.uid"),
    case!("gid_over_32_bits", "/process/user/gid" = 4294967296u64, "process.user.gid"),
    case!("gid_minus_one", "/process/user/gid" = 4294967295u64, "process.user.gid"),
    case!("uid_missing", remove "/process/user/uid", "process.user.uid", "missing"),
    case!("gid_missing", remove "/process/user/gid", "process.user.gid", "missing"),
    case!(
        "additional_gid_minus_one",
        "/process/user/additionalGids" = [5, 4294967295u64],
        "process.user.additionalGids[1]",
        "no id"
    ),
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
    case!("scheduler_fifo_without_priority", "/process/scheduler" = {"policy": "SCHED_FIFO"}, "process.scheduler.priority", "1 to 99"),
    case!("scheduler_priority_of_another_policy", "/process/scheduler" = {"policy": "SCHED_OTHER", "priority": 5},
        "process.scheduler.priority", "SCHED_FIFO"),
    case!("scheduler_runtime_of_another_policy", "/process/scheduler" = {"policy": "SCHED_OTHER", "runtime": 5},
        "process.scheduler.runtime", "SCHED_DEADLINE"),
    case!("scheduler_deadline_of_another_policy", "/process/scheduler" = {"policy": "SCHED_OTHER", "deadline": 5},
        "process.scheduler.deadline", "SCHED_DEADLINE"),
    case!("scheduler_period_of_another_policy", "/process/scheduler" = {"policy": "SCHED_OTHER", "period": 5},
        "process.scheduler.period", "SCHED_DEADLINE"),
    case!("io_priority_class_unknown", "/process/ioPriority" = {"class": "IOPRIO_CLASS_FUN", "priority": 1}, "process.ioPriority.class"),
    case!("io_priority_too_large", "/process/ioPriority" = {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority"),
    case!("io_priority_negative", "/process/ioPriority" = {"class": "IOPRIO_CLASS_BE", "priority": (-1)}, "process.ioPriority.priority", "0 and 7"),
    case!("io_priority_without_class", "/process/ioPriority" = {"priority": 1}, "process.ioPriority.class", "missing"),
    case!("io_priority_without_priority", "/process/ioPriority" = {"class": "IOPRIO_CLASS_BE"}, "process.ioPriority.priority", "missing"),
    case!("exec_cpu_affinity_bad_list", "/process/execCPUAffinity" = {"initial": "0-x"}, "process.execCPUAffinity.initial"),
    case!("exec_cpu_affinity_reversed", "/process/execCPUAffinity" = {"final": "5-2"}, "process.execCPUAffinity.final"),
    case!("exec_cpu_affinity_of_no_cpu", "/process/execCPUAffinity" = {"initial": "0,9000"}, "process.execCPUAffinity.initial", "8191"),
    case!("oom_score_adj_too_large", "/process/oomScoreAdj" = 2000, "process.oomScoreAdj"),
    case!("oom_score_adj_too_small", "/process/oomScoreAdj" = (-2000), "process.oomScoreAdj", "-1000"),
    case!(
        "console_size_a_number",
        |b| b.set("/process/terminal", true).set("/process/consoleSize", 5),
        "process.consoleSize",
        "no object"
    ),
    case!(
        "console_size_without_height",
        |b| b.set("/process/terminal", true).set("/process/consoleSize", json!({"width": 80})),
        "process.consoleSize.height",
        "missing"
    ),
    case!(
        "console_size_negative",
        |b| b.set("/process/terminal", true).set("/process/consoleSize", json!({"height": 25, "width": -1})),
        "process.consoleSize.width",
        "no positive number"
    ),
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
    case!("domainname_too_long", |b| b.set("/domainname", "x".repeat(65)), "domainname", "65 bytes"),
    case!("annotation_with_an_empty_key", "/annotations" = {"": "x"}, "annotations"),
    case!("annotation_that_is_a_number", "/annotations" = {"a.b": 5}, "annotations"),
    // mounts
    case!("mount_option_unknown", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "type": "bind", "options": ["bnid"]},
        "mounts[7]", "bnid"),
    case!("mount_without_destination", push "/mounts" = {"source": "tmpfs", "type": "tmpfs"}, "mounts[7].destination"),
    case!("mount_with_an_empty_destination", push "/mounts" = {"destination": "", "source": "tmpfs", "type": "tmpfs"},
        "mounts[7].destination", "empty"),
    case!("mount_without_type", push "/mounts" = {"destination": "/mnt", "source": "/tmp"}, "mounts[7].type", "missing", "bind"),
    case!("mount_of_type_none", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "type": "none"}, "mounts[7].type", "no file system"),
    case!("mount_option_unknown_without_type", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["ro", "bnid"]},
        "mounts[7].options[1]", "bnid", "\"bind\""),
    case!("mount_bind_without_source", push "/mounts" = {"destination": "/mnt", "options": ["bind"]}, "mounts[7].source", "needs a source"),
    case!("mount_tmpcopyup_of_no_tmpfs", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "tmpcopyup"]},
        "mounts[7].options", "tmpcopyup"),
    case!("mount_source_missing", push "/mounts" = {"destination": "/mnt", "source": "/no/such/source", "options": ["bind"]},
        "mounts[7]", "/no/such/source"),
    case!("mount_file_system_unknown", push "/mounts" = {"destination": "/mnt", "source": "x", "type": "nofs"}, "mounts[7]", "nofs"),
    case!("mount_with_one_kind_of_mappings", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap"],
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}, "mounts[7]", "gidMappings"),
    case!("mount_idmap_without_any_mappings", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap"]},
        "mounts[7]", "idmap"),
    case!("mount_with_the_other_kind_of_mappings", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap"],
        "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}, "mounts[7].gidMappings", "needs uidMappings"),
    case!("mount_mapping_without_size", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind"],
        "uidMappings": [{"containerID": 0, "hostID": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]},
        "mounts[7].uidMappings[0].size", "missing"),
    case!("mount_with_mappings_given_twice", push "/mounts" = {"destination": "/mnt", "source": "/tmp",
        "options": ["bind", "idmap=uids=0-1-1;gids=0-1-1"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}, "mounts[7].uidMappings", "already"),
    case!("mount_with_mappings_of_no_bind", push "/mounts" = {"destination": "/mnt", "source": "tmpfs", "type": "tmpfs",
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]},
        "mounts[7].uidMappings", "only a bind mount"),
    case!("mount_idmap_of_no_bind", push "/mounts" = {"destination": "/mnt", "source": "tmpfs", "type": "tmpfs",
        "options": ["idmap=uids=0-1-1;gids=0-1-1"]}, "mounts[7].options", "only a bind mount"),
    case!("idmap_of_other_ids", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap=pids=0-1-1"]},
        "mounts[7].options[1]", "neither uids"),
    case!("idmap_without_a_size", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap=uids=0-1;gids=0-1-1"]},
        "mounts[7].options[1]", "\"0-1\"", "ID-ID-SIZE"),
    case!("idmap_of_no_number", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "ridmap=uids=0-x-1;gids=0-1-1"]},
        "mounts[7].options[1]", "\"0-x-1\"", "ID-ID-SIZE"),
    case!("idmap_of_one_kind", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap=uids=0-1-1"]},
        "mounts[7].options[1]", "needs both"),
    case!("idmap_of_size_zero", push "/mounts" = {"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap=uids=0-1-0;gids=0-1-1"]},
        "mounts[7].options[1]", "must not be 0"),
    case!("idmap_that_overlaps", push "/mounts" = {"destination": "/mnt", "source": "/tmp",
        "options": ["bind", "idmap=uids=0-1-5#4-10-5;gids=0-1-1"]}, "mounts[7].options[1]", "overlaps"),
    case!("idmap_of_ids_that_are_not_the_containers", push "/mounts" = {"destination": "/mnt", "source": "/tmp",
        "options": ["bind", "idmap=uids=@0-5-1;gids=@0-5-1"]}, "mounts[7].options[1]", "id 5 of the container"),
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
    case!("hook_env_without_a_name", "/hooks" = {"prestart": [{"path": "/bin/true", "env": ["A=b", "=x"]}]}, "hooks.prestart[0].env[1]", "no name"),
    case!("hook_timeout_zero", "/hooks" = {"createRuntime": [{"path": "/bin/true", "timeout": 0}]}, "hooks.createRuntime[0].timeout"),
    case!("hook_timeout_negative", "/hooks" = {"prestart": [{"path": "/bin/true", "timeout": (-5)}]}, "hooks.prestart[0].timeout"),
    // namespaces and mappings
    case!("namespace_unknown", push "/linux/namespaces" = {"type": "space"}, "linux.namespaces", "space"),
    case!("namespace_without_type", push "/linux/namespaces" = {"path": ""}, "linux.namespaces[5].type", "missing"),
    case!("namespace_twice", push "/linux/namespaces" = {"type": "pid"}, "linux.namespaces", "pid"),
    case!("namespace_path_relative", |b| b.namespace("network", Some("proc/self/ns/net")), "linux.namespaces"),
    case!("namespace_path_missing", |b| b.namespace("network", Some("/no/such/ns")), "linux.namespaces", "/no/such/ns"),
    case!("namespace_path_of_another_type", |b| b.namespace("network", Some("/proc/self/ns/ipc")), "linux.namespaces"),
    case!("namespace_path_of_no_namespace", |b| b.namespace("network", Some("/etc/passwd")), "linux.namespaces"),
    case!("user_namespace_without_mappings", push "/linux/namespaces" = {"type": "user"}, "linux.uidMappings"),
    case!(
        "user_namespace_without_uid_mappings",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.remove("/linux/uidMappings"),
        "linux.uidMappings",
        "needs both"
    ),
    case!(
        "user_namespace_without_gid_mappings",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.remove("/linux/gidMappings"),
        "linux.gidMappings",
        "needs both"
    ),
    case!(
        "joined_user_namespace_with_uid_mappings_only",
        |b| b
            .namespace("user", Some("/proc/self/ns/user"))
            .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}])),
        "linux.uidMappings",
        "needs gidMappings"
    ),
    case!(
        "joined_user_namespace_with_gid_mappings_only",
        |b| b
            .namespace("user", Some("/proc/self/ns/user"))
            .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}])),
        "linux.gidMappings",
        "needs uidMappings"
    ),
    case!(
        "gid_mappings_without_user_namespace",
        |b| b.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}])),
        "linux.gidMappings",
        "user namespace"
    ),
    case!(
        "mapping_without_container_id",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.set("/linux/uidMappings", json!([{"hostID": 100_000, "size": 10}])),
        "linux.uidMappings[0].containerID",
        "missing"
    ),
    case!(
        "mapping_without_host_id",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.set("/linux/uidMappings", json!([{"containerID": 0, "size": 10}])),
        "linux.uidMappings[0].hostID",
        "missing"
    ),
    case!(
        "mapping_without_size",
        |b| b
            .user_namespace(&[(0, 100_000, 10)])?
            .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 100_000}])),
        "linux.gidMappings[0].size",
        "missing"
    ),
    case!(
        "mappings_over_340",
        |b| b.user_namespace(&(0..341).map(|i| (i, 100_000 + 2 * i, 1)).collect::<Vec<_>>())?,
        "linux.uidMappings",
        "341 mappings",
        "340"
    ),
    case!(
        "mapping_beyond_the_last_id",
        |b| b.user_namespace(&[(0, u32::MAX - 5, 6)])?,
        "linux.uidMappings[0].hostID",
        "4294967294"
    ),
    case!(
        "mapping_beyond_the_last_id_of_the_container",
        |b| b.user_namespace(&[(0, 100_000, 5), (u32::MAX - 5, 200_000, 6)])?,
        "linux.uidMappings[1].containerID",
        "4294967294"
    ),
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
        "mappings_that_overlap_on_the_host",
        |b| b.user_namespace(&[(0, 100_000, 100), (200, 100_050, 100)])?,
        "linux.uidMappings[1].hostID",
        "overlaps linux.uidMappings[0]"
    ),
    case!(
        "mappings_for_the_user_are_missing",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.set("/process/user/uid", 50),
        "process.user.uid"
    ),
    case!(
        "mappings_for_the_group_are_missing",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.set("/process/user/gid", 50),
        "process.user.gid",
        "50 is not mapped"
    ),
    case!(
        "mappings_for_an_additional_group_are_missing",
        |b| b.user_namespace(&[(0, 100_000, 10)])?.set("/process/user/additionalGids", json!([5, 50])),
        "process.user.additionalGids[1]",
        "50 is not mapped"
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
    case!("net_device_name_of_two_templates", "/linux/netDevices" = {"eth0": {"name": "a%d%d"}}, "linux.netDevices", "only one %d"),
    case!("net_devices_of_one_name", "/linux/netDevices" = {"eth0": {"name": "x"}, "eth1": {"name": "x"}}, "linux.netDevices"),
    // devices, paths, sysctl
    case!("device_type_unknown", "/linux/devices" = [{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}], "linux.devices[0].type"),
    case!("device_type_missing", "/linux/devices" = [{"path": "/dev/x", "major": 1, "minor": 3}], "linux.devices[0].type"),
    case!("device_path_missing", "/linux/devices" = [{"type": "c", "major": 1, "minor": 3}], "linux.devices[0].path"),
    case!("device_path_relative", "/linux/devices" = [{"path": "dev/x", "type": "c", "major": 1, "minor": 3}], "linux.devices[0].path"),
    case!("device_without_numbers", "/linux/devices" = [{"path": "/dev/x", "type": "c"}], "linux.devices[0]"),
    case!("device_number_negative", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": (-1), "minor": 3}], "linux.devices[0].major"),
    case!("device_without_minor", "/linux/devices" = [{"path": "/dev/x", "type": "b", "major": 1}], "linux.devices[0].minor", "missing"),
    case!("device_major_too_large", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": 4096, "minor": 3}], "linux.devices[0].major", "4095"),
    case!("device_minor_too_large", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 1_048_576}],
        "linux.devices[0].minor", "1048575"),
    case!("device_path_of_no_file", "/linux/devices" = [{"path": "/", "type": "c", "major": 1, "minor": 3}], "linux.devices[0].path", "name a file"),
    case!("device_mode_of_no_permissions", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o200_666}],
        "linux.devices[0].fileMode", "no permissions"),
    case!("device_uid_minus_one", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 4294967295u64}],
        "linux.devices[0].uid", "no id"),
    case!("device_gid_minus_one", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "gid": 4294967295u64}],
        "linux.devices[0].gid", "no id"),
    case!("devices_of_one_path", "/linux/devices" = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/./x", "type": "c", "major": 1, "minor": 5}], "linux.devices[1].path", "linux.devices[0]"),
    case!("device_over_another_file", "/linux/devices" = [{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}],
        "linux.devices[0]", "/etc/passwd"),
    case!("masked_path_relative", "/linux/maskedPaths" = ["proc/kcore"], "linux.maskedPaths"),
    case!("readonly_path_relative", "/linux/readonlyPaths" = ["proc/sys"], "linux.readonlyPaths"),
    case!(
        "masked_paths_without_mount_namespace",
        |b| b.without_namespace("mount").set("/mounts", json!([])).remove("/linux/readonlyPaths"),
        "linux.maskedPaths",
        "mount namespace"
    ),
    case!(
        "readonly_paths_without_mount_namespace",
        |b| b.without_namespace("mount").set("/mounts", json!([])).remove("/linux/maskedPaths"),
        "linux.readonlyPaths",
        "mount namespace"
    ),
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
    case!("sysctl_of_other_characters", "/linux/sysctl" = {"net.ipv4.ip forward": "1"}, "linux.sysctl", "only letters"),
    // With the value that it has: a runtime that takes it changes nothing.
    case!(
        "sysctl_with_the_hosts_users",
        |b| b.set(
            "/linux/sysctl/user.max_time_namespaces",
            fs::read_to_string("/proc/sys/user/max_time_namespaces")?.trim_end()
        ),
        "linux.sysctl[\"user.max_time_namespaces\"]",
        "user namespace"
    ),
    case!("sysctl_beside_hostname", "/linux/sysctl" = {"kernel.hostname": "x"}, "linux.sysctl", "conflicts with hostname"),
    case!("sysctl_in_both_notations", "/linux/sysctl" = {"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "0"}, "linux.sysctl", "same as"),
    case!("sysctl_that_is_a_number", "/linux/sysctl" = {"net.ipv4.ip_forward": 1}, "linux.sysctl"),
    case!("rootfs_propagation_unknown", "/linux/rootfsPropagation" = "sideways", "linux.rootfsPropagation"),
    case!("personality_domain_unknown", "/linux/personality" = {"domain": "SOLARIS"}, "linux.personality.domain"),
    case!("personality_flags", "/linux/personality" = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, "linux.personality.flags"),
    case!("personality_without_domain", "/linux/personality" = {}, "linux.personality.domain", "missing"),
    case!("memory_policy_mode_unknown", "/linux/memoryPolicy" = {"mode": "MPOL_FUN"}, "linux.memoryPolicy.mode"),
    case!("memory_policy_nodes_bad", "/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": "x"}, "linux.memoryPolicy.nodes"),
    case!("memory_policy_without_nodes", "/linux/memoryPolicy" = {"mode": "MPOL_BIND"}, "linux.memoryPolicy"),
    case!("memory_policy_without_mode", "/linux/memoryPolicy" = {"nodes": "0"}, "linux.memoryPolicy.mode", "missing"),
    case!("memory_policy_of_no_node", "/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": "2000"}, "linux.memoryPolicy.nodes", "1023"),
    case!("memory_policy_default_with_nodes", "/linux/memoryPolicy" = {"mode": "MPOL_DEFAULT", "nodes": "0"}, "linux.memoryPolicy.nodes", "takes none"),
    case!("memory_policy_local_with_flags", "/linux/memoryPolicy" = {"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]},
        "linux.memoryPolicy.flags", "takes none"),
    case!("memory_policy_preferred_with_flags_alone", "/linux/memoryPolicy" = {"mode": "MPOL_PREFERRED", "flags": ["MPOL_F_STATIC_NODES"]},
        "linux.memoryPolicy.flags", "without nodes"),
    case!("memory_policy_balancing_of_another_mode", "/linux/memoryPolicy" = {"mode": "MPOL_INTERLEAVE", "nodes": "0",
        "flags": ["MPOL_F_NUMA_BALANCING"]}, "linux.memoryPolicy.flags", "MPOL_INTERLEAVE"),
    case!("memory_policy_flag_unknown", "/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_FUN"]}, "linux.memoryPolicy.flags"),
    case!("memory_policy_flags_that_exclude_each_other", "/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": "0",
        "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}, "linux.memoryPolicy"),
    case!("intel_rdt", "/linux/intelRdt" = {"closID": "x"}, "linux.intelRdt"),
    // resources
    case!("device_rule_type_unknown", "/linux/resources/devices" = [{"allow": true, "type": "z", "access": "r"}], "linux.resources.devices[0]"),
    case!("device_rule_access_unknown", "/linux/resources/devices" = [{"allow": true, "type": "c", "access": "rx"}], "linux.resources.devices[0]"),
    case!("device_rule_without_allow", "/linux/resources/devices" = [{"access": "rwm"}], "linux.resources.devices[0].allow"),
    case!("device_rule_without_access", "/linux/resources/devices" = [{"allow": true}], "linux.resources.devices[0].access", "missing"),
    case!("device_rule_major_negative", "/linux/resources/devices" = [{"allow": true, "type": "c", "major": (-2), "access": "r"}],
        "linux.resources.devices[0].major", "no device number"),
    case!("device_rule_minor_negative", "/linux/resources/devices" = [{"allow": true, "type": "c", "minor": (-2), "access": "r"}],
        "linux.resources.devices[0].minor", "no device number"),
    case!("memory_swap_below_the_limit", "/linux/resources/memory" = {"limit": 100_000_000, "swap": 50_000_000}, "linux.resources.memory.swap"),
    case!("memory_swap_without_a_limit", "/linux/resources/memory" = {"swap": 50_000_000}, "linux.resources.memory.swap"),
    case!("memory_limit_negative", "/linux/resources/memory" = {"limit": (-2)}, "linux.resources.memory.limit"),
    case!("memory_reservation_negative", "/linux/resources/memory" = {"reservation": (-2)}, "linux.resources.memory.reservation", "-1 is unlimited"),
    case!("memory_swap_negative", "/linux/resources/memory" = {"limit": 100_000_000, "swap": (-2)}, "linux.resources.memory.swap", "-1 is unlimited"),
    case!("memory_kernel_negative", "/linux/resources/memory" = {"kernel": (-2)}, "linux.resources.memory.kernel", "-1 is unlimited"),
    case!("memory_kernel_tcp_negative", "/linux/resources/memory" = {"kernelTCP": (-2)}, "linux.resources.memory.kernelTCP", "-1 is unlimited"),
    case!("memory_swappiness_too_large", "/linux/resources/memory" = {"swappiness": 500}, "linux.resources.memory.swappiness"),
    case!("cpu_list_bad", "/linux/resources/cpu" = {"cpus": "0-x"}, "linux.resources.cpu.cpus"),
    case!("cpu_list_of_missing_cpus", "/linux/resources/cpu" = {"cpus": "4000"}, "linux.resources.cpu.cpus"),
    case!("cpu_idle_out_of_range", "/linux/resources/cpu" = {"idle": 5}, "linux.resources.cpu.idle"),
    case!("cpu_quota_negative", "/linux/resources/cpu" = {"quota": (-2)}, "linux.resources.cpu.quota", "-1 is unlimited"),
    case!("cpu_realtime_runtime_negative", "/linux/resources/cpu" = {"realtimeRuntime": (-2)}, "linux.resources.cpu.realtimeRuntime", "-1 is unlimited"),
    case!("cpu_realtime_runtime_above_its_period", "/linux/resources/cpu" = {"realtimeRuntime": 20_000, "realtimePeriod": 10_000},
        "linux.resources.cpu.realtimeRuntime", "period of 10000"),
    case!("pids_limit_negative", "/linux/resources/pids" = {"limit": (-2)}, "linux.resources.pids.limit", "-1 is unlimited"),
    case!("pids_limit_a_string", "/linux/resources/pids" = {"limit": "many"}, "linux.resources.pids.limit"),
    case!("block_io_weight_out_of_range", "/linux/resources/blockIO" = {"weight": 5}, "linux.resources.blockIO.weight"),
    case!("block_io_leaf_weight_out_of_range", "/linux/resources/blockIO" = {"leafWeight": 1001}, "linux.resources.blockIO.leafWeight", "10 and 1000"),
    case!("block_io_weight_device_out_of_range", "/linux/resources/blockIO" = {"weightDevice": [{"major": 7, "minor": 7, "weight": 5}]},
        "linux.resources.blockIO.weightDevice[0].weight", "10 and 1000"),
    case!("block_io_weight_device_without_major", "/linux/resources/blockIO" = {"weightDevice": [{"minor": 7, "weight": 50}]},
        "linux.resources.blockIO.weightDevice[0].major", "missing"),
    case!("block_io_weight_device_minor_negative", "/linux/resources/blockIO" = {"weightDevice": [{"major": 7, "minor": (-7), "weight": 50}]},
        "linux.resources.blockIO.weightDevice[0].minor", "no device number"),
    case!("block_io_throttle_without_minor", "/linux/resources/blockIO" = {"throttleWriteIOPSDevice": [{"major": 7, "rate": 7}]},
        "linux.resources.blockIO.throttleWriteIOPSDevice[0].minor", "missing"),
    case!("block_io_throttle_major_negative", "/linux/resources/blockIO" = {"throttleReadIOPSDevice": [{"major": (-7), "minor": 7, "rate": 7}]},
        "linux.resources.blockIO.throttleReadIOPSDevice[0].major", "no device number"),
    case!("block_io_weight_device_without_weight", "/linux/resources/blockIO" = {"weightDevice": [{"major": 7, "minor": 7}]},
        "linux.resources.blockIO.weightDevice[0]"),
    case!("block_io_throttle_without_rate", "/linux/resources/blockIO" = {"throttleReadBpsDevice": [{"major": 7, "minor": 7}]},
        "linux.resources.blockIO.throttleReadBpsDevice[0]"),
    case!("hugepage_size_bad", "/linux/resources/hugepageLimits" = [{"pageSize": "large", "limit": 0}], "linux.resources.hugepageLimits[0].pageSize"),
    case!("hugepage_size_missing", "/linux/resources/hugepageLimits" = [{"limit": 0}], "linux.resources.hugepageLimits[0].pageSize", "missing"),
    case!("hugepage_limit_missing", "/linux/resources/hugepageLimits" = [{"pageSize": "2MB"}], "linux.resources.hugepageLimits[0].limit", "missing"),
    case!("hugepage_size_twice", "/linux/resources/hugepageLimits" = [{"pageSize": "2MB", "limit": 0}, {"pageSize": "2MB", "limit": 1}],
        "linux.resources.hugepageLimits[1].pageSize", "twice"),
    case!("network_priority_without_name", "/linux/resources/network" = {"priorities": [{"priority": 1}]},
        "linux.resources.network.priorities[0].name", "missing"),
    case!("network_priority_of_no_interface", "/linux/resources/network" = {"priorities": [{"name": "lo 5", "priority": 1}]},
        "linux.resources.network.priorities[0].name", "no name"),
    case!("network_priority_without_priority", "/linux/resources/network" = {"priorities": [{"name": "lo"}]},
        "linux.resources.network.priorities[0].priority", "missing"),
    case!("rdma_of_no_device", "/linux/resources/rdma" = {"mlx 0": {"hcaHandles": 1}}, "linux.resources.rdma[\"mlx 0\"]", "name of a device"),
    case!("rdma_without_limits", "/linux/resources/rdma" = {"mlx0": {}}, "linux.resources.rdma[\"mlx0\"]", "hcaHandles or hcaObjects"),
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
    case!("seccomp_trace_number_too_large", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_TRACE", "errnoRet": 70_000}]}, "linux.seccomp.syscalls[0].errnoRet", "65535"),
    case!("seccomp_with_an_empty_name", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", ""], "action": "SCMP_ACT_ERRNO"}]}, "linux.seccomp.syscalls[0].names[1]", "empty"),
    case!("seccomp_rule_action_missing", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"]}]},
        "linux.seccomp.syscalls[0].action", "missing"),
    case!("seccomp_rule_action_unknown", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERNO"}]}, "linux.seccomp.syscalls[0].action", "SCMP_ACT_ERRNO"),
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
    case!("seccomp_argument_without_index", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"],
        "action": "SCMP_ACT_ERRNO", "args": [{"value": 1, "op": "SCMP_CMP_EQ"}]}]}, "linux.seccomp.syscalls[0].args[0].index", "missing"),
    case!("seccomp_argument_without_value", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"],
        "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "op": "SCMP_CMP_EQ"}]}]}, "linux.seccomp.syscalls[0].args[0].value", "missing"),
    case!("seccomp_argument_without_operator", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"],
        "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 1}]}]}, "linux.seccomp.syscalls[0].args[0].op", "missing"),
    case!("seccomp_metadata_without_listener", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"},
        "linux.seccomp.listenerMetadata"),
    case!("seccomp_notify_without_listener", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}, "linux.seccomp", "listenerPath"),
    case!("seccomp_notify_as_default", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/tmp/x.sock"},
        "linux.seccomp.defaultAction"),
    case!("seccomp_notify_of_write", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/tmp/x.sock",
        "syscalls": [{"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"}]}, "linux.seccomp.syscalls[0].names[1]", "write cannot"),
    case!("seccomp_wait_killable_without_listener", "/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, "linux.seccomp.flags[0]", "SCMP_ACT_NOTIFY"),
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
    Test { name: "overlay_annotations", run: overlay_annotation },
    Test { name: "mounts_over_100000", run: too_many_mounts },
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
    Test { name: "input_with_a_property_twice", run: input_twice },
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
    let run = bundle.run()?.fails()?;
    let count = run.err().split_whitespace().filter_map(|word| word.parse::<u32>().ok()).find(|count| *count > 4096);
    check!(count.is_some(), "no count above 4096 in the error: {}", run.err());
    bundle.refused(&["linux.seccomp", "instructions", "4096"])
}

fn overlay_annotation(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    let dir = ctx.new_dir("layers")?;
    for name in ["upper", "upper/work", "work"] {
        fs::create_dir(dir.join(name))?;
    }
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let [upper, inside, work] = ["upper", "upper/work", "work"].map(path);
    let keys = ["lower", "upper", "work"].map(|name| format!("org.kelson.overlay.{name}"));
    let [lower_key, upper_key, work_key] = keys.each_ref().map(String::as_str);
    let list = |layers: &[&str]| json!(layers).to_string();
    let many = list(&vec!["/tmp"; 501]);
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Pairs, &[&str])] = &[
        (&[(lower_key, "not json")], &[lower_key, "not a JSON array"]),
        (&[(lower_key, "[1]")], &[lower_key, "not a JSON array"]),
        (&[(lower_key, "[]")], &[lower_key, "needs a lower directory"]),
        (&[(lower_key, &list(&["/no/such/layer"]))], &[lower_key, "[0]", "/no/such/layer"]),
        (&[(lower_key, &list(&["/tmp", "tmp"]))], &[lower_key, "[1]", "not an absolute path"]),
        (&[(lower_key, &list(&["/etc/passwd"]))], &[lower_key, "not a directory"]),
        (&[(lower_key, &list(&["/tmp\0"]))], &[lower_key, "NUL"]),
        (&[(lower_key, &many)], &[lower_key, "501 layers", "500"]),
        (&[(upper_key, &upper)], &[upper_key, "needs org.kelson.overlay.work"]),
        (&[(work_key, &work)], &[work_key, "needs org.kelson.overlay.upper"]),
        (&[(upper_key, &upper), (work_key, &inside)], &[work_key, "inside each other"]),
        (&[(upper_key, &inside), (work_key, &upper)], &[work_key, "inside each other"]),
        (&[(upper_key, &upper), (work_key, "/no/such/work")], &[work_key, "/no/such/work"]),
        (&[("org.kelson.overlay.lowr", "[]")], &["org.kelson.overlay.lowr", "unknown annotation", lower_key]),
    ];
    for (annotations, words) in cases {
        let mut bundle = ctx.bundle()?;
        for (key, value) in *annotations {
            bundle.set(&format!("/annotations/{key}"), *value);
        }
        bundle.refused(words).map_err(|e| e.during(&format!("{annotations:?}")))?;
    }
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("mount").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    bundle.option("--overlay").refused(&["linux.namespaces", "overlay"])
}

/// More than any mount namespace can hold.
fn too_many_mounts(ctx: &Context) -> Outcome {
    ctx.need_kelson("a bound on the number of mounts")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/mounts", vec![json!({"destination": "/mnt", "type": "tmpfs"}); 100_001]);
    bundle.refused(&["mounts: 100001 mounts"])
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
    refused_text(ctx, bundle, &[words, &["config.json"]].concat())
}

fn refused_text(ctx: &Context, bundle: &Bundle, words: &[&str]) -> Outcome {
    for verb in ["run", "create"] {
        let id = bundle.fresh_id();
        let run = ctx.runtime().arg(verb).arg("--bundle").arg(&bundle.dir).arg(&id).run()?.fails()?;
        if ctx.peer == Peer::Kelson {
            let run = run.fails_saying(words)?;
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
    bad_input(ctx, Some(b""), &["empty"])
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
    bad_input(ctx, Some(&serde_json::to_vec(&config)?), &["64 MiB"])
}

fn input_deep(ctx: &Context) -> Outcome {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    bad_input(ctx, Some(deep.as_bytes()), &["expected an object"])
}

fn input_deep_unknown(ctx: &Context) -> Outcome {
    let text = in_own_cgroup(ctx)?.to_string();
    let deep = format!("{{\"x\":{}{},{}", "[".repeat(200_000), "]".repeat(200_000), &text[1..]);
    bad_input(ctx, Some(deep.as_bytes()), &["128 levels"])
}

fn input_not_utf8(ctx: &Context) -> Outcome {
    let text = in_own_cgroup(ctx)?.to_string().replace("kelson-test\"", "kelson\u{fffd}\"");
    let bytes: Vec<u8> = text.as_bytes().to_vec();
    let mark = "\u{fffd}".as_bytes();
    let at = bytes.windows(mark.len()).position(|w| w == mark).ok_or("no mark")?;
    let mut bytes = bytes;
    bytes.splice(at..at + mark.len(), [0xff, 0xfe]);
    bad_input(ctx, Some(&bytes), &["not UTF-8", "byte"])
}

fn input_fifo(ctx: &Context) -> Outcome {
    let bundle = ctx.bundle()?;
    nix::unistd::mkfifo(&bundle.dir.join("config.json"), nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    refused_input(ctx, &bundle, &["not a regular file"])
}

fn input_directory(ctx: &Context) -> Outcome {
    let bundle = ctx.bundle()?;
    fs::create_dir(bundle.dir.join("config.json"))?;
    refused_input(ctx, &bundle, &["not a regular file"])
}

fn input_nuls(ctx: &Context) -> Outcome {
    bad_input(ctx, Some(&[0; 4096]), &["NUL"])
}

fn input_list(ctx: &Context) -> Outcome {
    bad_input(ctx, Some(b"[1, 2]"), &["expected an object"])
}

fn input_trailing(ctx: &Context) -> Outcome {
    bad_input(ctx, Some(format!("{} garbage", in_own_cgroup(ctx)?).as_bytes()), &["trailing"])
}

fn input_twice(ctx: &Context) -> Outcome {
    let text = in_own_cgroup(ctx)?.to_string();
    let twice = format!("{{\"hostname\":\"a\",{}", &text[1..]);
    let bundle = ctx.bundle()?;
    fs::write(bundle.dir.join("config.json"), twice)?;
    refused_text(ctx, &bundle, &["hostname: property is given twice"])
}

fn error_form(ctx: &Context) -> Outcome {
    ctx.need_kelson("the form of errors")?;
    let mut bundle = ctx.bundle()?;
    let run = bundle.mount("/mnt", "tmpfs", "tmpfs", &["bnid"]).run()?.fails()?;
    let text = run.err();
    check!(text.starts_with("kelson: "), "the error does not start with the program's name: {text:?}");
    check!(text.trim_end().lines().count() == 1, "more than one line: {text:?}");
    check!(text.as_bytes().last() == Some(&b'\n'), "no newline at the end: {text:?}");
    check!(std::ffi::OsStr::new(text.trim_end()).as_bytes().is_ascii(), "not plain text: {text:?}");
    // Without fsopen(2) the kernel does not tell which option it is.
    let word = if ctx.filter.is_some() { "mounts[7]" } else { "bnid" };
    check!(text.matches(word).count() == 1, "{word} is not said once: {text:?}");
    Ok(())
}
