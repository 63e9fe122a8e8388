//! Reads a config.json that has every property of runtime-spec 1.3.0 through Kelson's own structs and through oci-spec, and
//! explains each difference (docs/decisions/0001-own-config-structs.md).

use std::path::Path;

use kelson::plan::{Host, Overrides, Plan, plan};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

const HOST: Host = Host { rootless: false, last_capability: 40, apparmor: || true, selinux: || true };

/// Every property that Kelson supports, none with its default.
fn full() -> Value {
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    let hook = json!([{"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": 5}]);
    let throttle = json!([{"major": 8, "minor": 1, "rate": 600}]);
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "usr", "readonly": true},
        "mounts": [
            {"destination": "/tmp", "type": "tmpfs", "source": "swap", "options": ["nosuid", "size=1m"]},
            {"destination": "/data", "source": "/usr", "options": ["rbind"], "uidMappings": ids, "gidMappings": ids},
        ],
        "process": {
            "terminal": true,
            "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]},
            "args": ["sh", "-c"],
            "env": ["A=1"],
            "cwd": "/tmp",
            "capabilities": {
                "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
            "noNewPrivileges": true,
            "oomScoreAdj": 7,
            "scheduler": {
                "policy": "SCHED_DEADLINE", "nice": 1, "flags": ["SCHED_FLAG_KEEP_POLICY"],
                "runtime": 1, "deadline": 2, "period": 3,
            },
            "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 3},
            "execCPUAffinity": {"initial": "0-1", "final": "1"},
            "apparmorProfile": "profile",
            "selinuxLabel": "a:b:c",
        },
        "hostname": "host",
        "domainname": "domain",
        "hooks": {
            "prestart": hook, "createRuntime": hook, "createContainer": hook,
            "startContainer": hook, "poststart": hook, "poststop": hook,
        },
        "annotations": {"key": "value"},
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network", "path": "/run/netns/x"}, {"type": "mount"}, {"type": "ipc"},
                {"type": "uts"}, {"type": "user"}, {"type": "cgroup"}, {"type": "time"},
            ],
            "uidMappings": ids,
            "gidMappings": ids,
            "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}, "boottime": {"secs": 3}},
            "devices": [
                {"path": "/dev/x", "type": "c", "major": 10, "minor": 229, "fileMode": 384, "uid": 4, "gid": 5},
            ],
            "netDevices": {"eth0": {"name": "net0"}},
            "cgroupsPath": "/a/b",
            "resources": {
                "devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
                "memory": {
                    "limit": 1, "reservation": 2, "swap": 3, "kernel": 4, "kernelTCP": 5, "swappiness": 6,
                    "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true,
                },
                "cpu": {
                    "shares": 2, "quota": 3, "burst": 4, "period": 5, "realtimeRuntime": 6, "realtimePeriod": 7,
                    "cpus": "0", "mems": "0", "idle": 1,
                },
                "pids": {"limit": 0},
                "blockIO": {
                    "weight": 10, "leafWeight": 11,
                    "weightDevice": [{"major": 8, "minor": 1, "weight": 12, "leafWeight": 13}],
                    "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
                    "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle,
                },
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
                "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 2}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
                "unified": {"memory.high": "1"},
            },
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "sysctl": {"net.core.somaxconn": "256"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": 38,
                // The native one is always there.
                "architectures": ["SCMP_ARCH_X86"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/run/agent.sock",
                "listenerMetadata": "data",
                "syscalls": [
                    {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"},
                    {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2},
                    {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                        {"index": 1, "value": 255, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"},
                    ]},
                ],
            },
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "d:e:f",
            "personality": {"domain": "LINUX32"},
        },
    })
}

fn kelson(config: &Value) -> Result<Plan, String> {
    plan(&config.to_string(), Path::new("/"), &HOST, &Overrides::default()).map_err(|error| error.to_string())
}

/// The pointers of all values below `value`, objects and arrays too.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    let mut visit = |key: String, child: &Value| {
        let pointer = format!("{at}/{key}");
        pointers(child, &pointer, out);
        out.push(pointer);
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, child)| visit(key.clone(), child)),
        Value::Array(array) => array.iter().enumerate().for_each(|(i, child)| visit(i.to_string(), child)),
        _ => {}
    }
}

fn remove(config: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap() {
        Value::Object(object) => drop(object.remove(key)),
        Value::Array(array) => drop(array.remove(key.parse().unwrap())),
        other => panic!("{pointer}: {other}"),
    }
}

#[test]
fn no_property_is_read_for_nothing() {
    let full = full();
    let plan = format!("{:?}", kelson(&full).unwrap());
    let mut all = vec![];
    pointers(&full, "", &mut all);
    for pointer in all {
        let mut less = full.clone();
        remove(&mut less, &pointer);
        // Without it the plan is another one, or an error says that it is needed.
        if let Ok(other) = kelson(&less) {
            assert!(plan != format!("{other:?}"), "{pointer} changes nothing");
        }
    }
}

#[test]
fn the_full_config_has_every_property_of_the_structs() {
    let mut all = vec![];
    pointers(&full(), "", &mut all);
    let names: Vec<&str> = include_str!("../src/plan/spec.rs")
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\",")?.rsplit_once(" = \"").map(|(_, name)| name))
        .collect();
    assert!(names.len() > 130, "{}", names.len());
    for name in names {
        // Only SCHED_FIFO and SCHED_RR take a scheduler priority; intelRdt is refused.
        if !all.iter().any(|pointer| pointer.ends_with(&format!("/{name}"))) {
            assert_eq!(name, "intelRdt");
        }
    }
}

#[test]
fn both_read_the_same_values() {
    let full = full();
    let spec: Spec = serde_json::from_value(full.clone()).unwrap();
    let theirs = serde_json::to_value(&spec).unwrap();
    let mut all = vec![];
    pointers(&full, "", &mut all);
    let differences: Vec<_> = all
        .iter()
        .filter(|pointer| !full.pointer(pointer).is_some_and(|value| value.is_object() || value.is_array()))
        .filter(|pointer| full.pointer(pointer) != theirs.pointer(pointer))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Where oci-spec reads another thing than runtime-spec says, and Kelson does not.
#[test]
fn known_differences() {
    let change = |pointer: &str, value: Value| {
        let mut config = full();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        config
    };
    let oci = |config: &Value| serde_json::from_value::<Spec>(config.clone());

    // config.md#linux-process has these names; oci-spec wants SCHED_RESET_ON_FORK and SCHED_FLAG_D_L_OVERRUN.
    for (flag, bit) in [("SCHED_FLAG_RESET_ON_FORK", 0x01), ("SCHED_FLAG_DL_OVERRUN", 0x04)] {
        let config = change("/process/scheduler/flags", json!([flag]));
        assert!(oci(&config).is_err());
        assert_eq!(kelson(&config).unwrap().process.unwrap().scheduler.unwrap().flags, bit);
    }

    // A capability that the runtime does not know is a warning (config.md#linux-process).
    let config = change("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_TOMORROW"]));
    assert!(oci(&config).is_err());
    assert_eq!(kelson(&config).unwrap().process.unwrap().capabilities.bounding, 1 << 5);

    // Since 1.3.0 an absent limit is no limit, and 0 is one (config-linux.md#pids).
    let config = change("/linux/resources/pids", json!({}));
    let theirs = serde_json::to_value(oci(&config).unwrap()).unwrap();
    assert_eq!(theirs.pointer("/linux/resources/pids/limit"), Some(&json!(0)));
    assert_eq!(kelson(&config).unwrap().resources.pids_limit, None);

    // A device without numbers is an error (config-linux.md#devices), not 0:0.
    let config = change("/linux/devices", json!([{"path": "/dev/x", "type": "c"}]));
    let theirs = serde_json::to_value(oci(&config).unwrap()).unwrap();
    assert_eq!(theirs.pointer("/linux/devices/0/major"), Some(&json!(0)));
    assert_eq!(kelson(&config).unwrap_err(), "linux.devices[0].major: required property is missing");

    // A misspelt property is gone without a word; Kelson warns about it.
    let config = change("/linux/rootPropagation", json!("shared"));
    let theirs = serde_json::to_value(oci(&config).unwrap()).unwrap();
    assert_eq!(theirs.pointer("/linux/rootPropagation"), None);
}
