//! Tables: one line for each way in which a config is refused, and what the accepted ones become.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

fn host() -> Host {
    Host { rootless: false, last_capability: 40, apparmor: || false, selinux: || false }
}

/// A complete, valid config; its root is the directory that the bundle is.
fn base() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": ".", "readonly": true},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", "true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "hostname": "web",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "hooks": {},
        "annotations": {},
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "time"},
            ],
            "resources": {},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        },
    })
}

/// `base()` with the value at a JSON pointer set (`-` appends to an array) or, where it is null, taken away.
fn with(changes: &[(&str, Value)]) -> String {
    let mut config = base();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(parent).unwrap() {
            Value::Object(object) if value.is_null() => drop(object.remove(key)),
            Value::Object(object) => drop(object.insert(key.to_string(), value.clone())),
            Value::Array(array) => array.push(value.clone()),
            other => panic!("{pointer}: {other}"),
        }
    }
    config.to_string()
}

fn planned(text: &str) -> Result<Plan> {
    plan(text, Path::new("/usr"), &host(), &Overrides::default())
}

fn accept(changes: &[(&str, Value)]) -> Plan {
    planned(&with(changes)).unwrap_or_else(|error| panic!("{changes:?}: {error}"))
}

#[track_caller]
fn refuse(changes: &[(&str, Value)], expected: &str) {
    match planned(&with(changes)) {
        Ok(_) => panic!("accepted, expected {expected:?}"),
        Err(error) => {
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.kind(), Kind::Config, "{expected}");
        }
    }
}

#[track_caller]
fn refuse_each(table: &[(&str, Value, &str)]) {
    for (pointer, value, expected) in table {
        refuse(&[(pointer, value.clone())], expected);
    }
}

/// The error of a config with one mount, and one user namespace.
#[track_caller]
fn refuse_mounts(table: &[(Value, &str)]) {
    for (mount, expected) in table {
        refuse(&[("/mounts", json!([mount]))], expected);
    }
}

fn mount(value: Value) -> Mount {
    accept(&[("/mounts", json!([value]))]).mounts.remove(0)
}

#[test]
fn the_base_is_accepted() {
    let plan = accept(&[]);
    assert_eq!(plan.root.path, Path::new("/usr/."));
    assert!(plan.root.readonly && plan.root.overlay.is_none());
    assert_eq!(plan.hostname.as_deref(), Some(c"web"));
    assert!(plan.namespaces.pid.is_new() && !plan.namespaces.user.is_own());
    let process = plan.process.unwrap();
    assert_eq!(process.args, [c"/bin/sh".into(), c"-c".into(), c"true".into()] as [CString; 3]);
    assert_eq!(process.capabilities, Capabilities::default());
}

#[test]
fn a_config_may_have_no_process_and_nulls() {
    assert!(accept(&[("/process", Value::Null)]).process.is_none());
    let text = with(&[]).replace("\"annotations\":{}", "\"annotations\":null");
    assert!(planned(&text).unwrap().annotations.is_empty());
}

#[test]
fn version() {
    for good in ["1.0.0", "1.3.0", "1.0.0-rc1", "1.2.0+dev", "1.0.2-dev", "1.99.0", "1.0.0-rc.1+b.7"] {
        accept(&[("/ociVersion", json!(good))]);
    }
    for bad in ["garbage", "1.0", "1", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "v1.0.0", " 1.0.0", "1.0.0+", ""] {
        refuse(&[("/ociVersion", json!(bad))], &format!("ociVersion: {bad:?} is not a SemVer 2.0.0 version"));
    }
    refuse_each(&[
        ("/ociVersion", json!("9.9.9"), "ociVersion: version \"9.9.9\" is not of the supported series 1.x"),
        ("/ociVersion", json!("0.9.0"), "ociVersion: version \"0.9.0\" is not of the supported series 1.x"),
        ("/ociVersion", Value::Null, "ociVersion: required property is missing"),
    ]);
}

#[test]
fn broken_json_is_one_clear_line() {
    let deep = |prefix: &str| format!("{prefix}{}", "[".repeat(200_000));
    for (text, expected) in [
        ("{\"root\": {".to_string(), "config.json is truncated: EOF while parsing an object at line 1 column 10"),
        (" ".into(), "config.json is truncated: EOF while parsing a value at line 1 column 1"),
        ("{} {}".into(), "config.json is not valid: trailing characters at line 1 column 4"),
        ("[]".into(), "config.json is not valid: invalid type: sequence, expected an object at line 1 column 0"),
        (deep("{\"unknown\": "), "config.json is nested more than 128 levels deep"),
        (
            format!("{{\"annotations\": {{\"a\": {}}}}}", "[".repeat(200_000)),
            "annotations.a: invalid type: sequence, expected a string at line 1 column 22",
        ),
        (
            format!("{{\"{}\": {{\"a\": 1, \"a\": {{}}}}, \"root\": {{\"path\": 1}}}}", "k".repeat(1_000)),
            "root.path: invalid type: integer `1`, expected a string at line 1 column 1042",
        ),
        (deep("{\"linux\": {\"intelRdt\": "), "config.json is nested more than 128 levels deep"),
        (
            "{\"process\": {\"cwd\": 5}}".into(),
            "process.cwd: invalid type: integer `5`, expected a string at line 1 column 21",
        ),
        (
            "{\"mounts\": [{}, {\"options\": [\"ro\", true]}]}".into(),
            "mounts[1].options[1]: invalid type: boolean `true`, expected a string at line 1 column 39",
        ),
        (
            "{\"linux\":\n{\"resources\": {\"memory\": {\"limit\": 1.5}}}}".into(),
            "linux.resources.memory.limit: invalid type: floating point `1.5`, expected i64 at line 2 column 38",
        ),
        (
            "{\"process\": {\"user\": {\"uid\": 4294967296}}}".into(),
            "process.user.uid: invalid value: integer `4294967296`, expected u32 at line 1 column 39",
        ),
        (
            "{\"linux\": {\"sysctl\": {\"net.a\": 1}}}".into(),
            "linux.sysctl[\"net.a\"]: invalid type: integer `1`, expected a string at line 1 column 32",
        ),
        ("{\"root\": {}, \"root\": {}}".into(), "root: property is given twice at line 1 column 19"),
        ("{\"root\": null, \"root\": {}}".into(), "root: property is given twice at line 1 column 21"),
        (
            "{\"annotations\": {\"a\": \"\", \"a\": \"\"}}".into(),
            "annotations.a: property is given twice at line 1 column 29",
        ),
        (
            "{\"process\": {\"args\": [\"a\\u0000\"]}}".into(),
            "process.args[0]: string contains a NUL character at line 1 column 31",
        ),
        (
            "{\"annotations\": {\"a\\u0000\": \"\"}}".into(),
            "annotations: string contains a NUL character at line 1 column 26",
        ),
    ] {
        assert_eq!(planned(&text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn root() {
    refuse_each(&[
        ("/root", Value::Null, "root: required property is missing"),
        ("/root", json!({}), "root.path: required property is missing"),
        ("/root", json!({"path": ""}), "root.path: required property is missing"),
        (
            "/linux/rootfsPropagation",
            json!("rsalve"),
            "linux.rootfsPropagation: unknown propagation \"rsalve\" (did you mean \"rslave\"?)",
        ),
        ("/linux/rootfsPropagation", json!("ro"), "linux.rootfsPropagation: unknown propagation \"ro\""),
    ]);
    for (path, expected) in [
        ("/none", "look at \"/none\": root.path: no such file or directory"),
        ("/proc/self/status", "root.path: \"/proc/self/status\" is not a directory"),
    ] {
        let error = planned(&with(&[("/root/path", json!(path))])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let shared = accept(&[("/linux/rootfsPropagation", json!("rshared"))]).root.propagation;
    assert_eq!(shared, Some(Propagation { kind: PropagationKind::Shared, recursive: true }));
}

#[test]
fn process_is_refused() {
    let rlimit = |kind: &str, soft: u64, hard: u64| json!({"type": kind, "soft": soft, "hard": hard});
    refuse_each(&[
        ("/process/args", json!([]), "process.args: args must not be empty"),
        ("/process/args", Value::Null, "process.args: args must not be empty"),
        ("/process/args", json!([""]), "process.args[0]: the name of the program is empty"),
        ("/process/cwd", json!("tmp"), "process.cwd: \"tmp\" is not an absolute path"),
        ("/process/cwd", Value::Null, "process.cwd: required property is missing"),
        ("/process/env", json!(["A=1", "=b"]), "process.env[1]: environment entry \"=b\" has no name"),
        ("/process/user/gid", Value::Null, "process.user.gid: required property is missing"),
        (
            "/process/user/uid",
            json!(4294967295u32),
            "process.user.uid: 4294967295 is no id: the kernel takes it for \"no change\"",
        ),
        (
            "/process/user/additionalGids",
            json!([1, 4294967295u32]),
            "process.user.additionalGids[1]: 4294967295 is no id: the kernel takes it for \"no change\"",
        ),
        ("/process/user/umask", json!(99999), "process.user.umask: 99999 (0o303237) is more than 0o777"),
        (
            "/process/rlimits",
            json!([rlimit("RLIMIT_NOFILES", 1, 1)]),
            "process.rlimits[0].type: unknown rlimit \"RLIMIT_NOFILES\" (did you mean \"RLIMIT_NOFILE\"?)",
        ),
        (
            "/process/rlimits",
            json!([rlimit("RLIMIT_CORE", 1, 1), rlimit("RLIMIT_CPU", 1, 1), rlimit("RLIMIT_CORE", 1, 1)]),
            "process.rlimits[2].type: RLIMIT_CORE is already set by process.rlimits[0]",
        ),
        (
            "/process/rlimits",
            json!([rlimit("RLIMIT_CORE", 2, 1)]),
            "process.rlimits[0].soft: 2 is more than the hard limit 1",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CORE", "soft": 1}]),
            "process.rlimits[0].hard: required property is missing",
        ),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
        ("/process/scheduler", json!({}), "process.scheduler.policy: required property is missing"),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFI"}),
            "process.scheduler.policy: unknown policy \"SCHED_FIFI\" (did you mean \"SCHED_FIFO\"?)",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice: 20 is not between -20 and 19",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 1}),
            "process.scheduler.priority: only SCHED_FIFO and SCHED_RR have a priority",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_RR"}),
            "process.scheduler.priority: SCHED_RR needs a priority from 1 to 99, not 0",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "runtime": 1}),
            "process.scheduler.runtime: only SCHED_DEADLINE has it",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}),
            "process.scheduler.flags[0]: unknown flag \"SCHED_FLAG_X\"",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_RT", "priority": 8}),
            "process.ioPriority.priority: 8 is not between 0 and 7",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_XX", "priority": 1}),
            "process.ioPriority.class: unknown class \"IOPRIO_CLASS_XX\" (did you mean \"IOPRIO_CLASS_RT\"?)",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "3-1"}),
            "process.execCPUAffinity.initial: list \"3-1\" has a range that runs backwards",
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "0-9000"}),
            "process.execCPUAffinity.final: list \"0-9000\" names a number above 8191",
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "+1"}),
            "process.execCPUAffinity.final: list \"+1\" is not of the form 0-3,7",
        ),
        (
            "/process/apparmorProfile",
            json!("web"),
            "process.apparmorProfile: profile \"web\": no AppArmor on this host (leave the property out)",
        ),
        (
            "/process/selinuxLabel",
            json!("a:b:c"),
            "process.selinuxLabel: label \"a:b:c\": no SELinux on this host (leave the property out)",
        ),
        (
            "/linux/mountLabel",
            json!("a:b:c"),
            "linux.mountLabel: label \"a:b:c\": no SELinux on this host (leave the property out)",
        ),
    ]);
    refuse(
        &[("/process/terminal", json!(true)), ("/process/consoleSize", json!({"height": 65536, "width": 1}))],
        "process.consoleSize.height: a terminal has at most 65535",
    );
}

#[test]
fn process_is_read() {
    let plan = accept(&[
        ("/process/consoleSize", json!({"height": 1, "width": 70000})),
        ("/process/apparmorProfile", json!("unconfined")),
        ("/process/selinuxLabel", json!("")),
        ("/process/env", json!(["A=1", "B=2", "A=3", "C"])),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_RR", "priority": 9, "flags": [
            "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_KEEP_POLICY"]}),
        ),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 7})),
        ("/process/execCPUAffinity", json!({"initial": "0-2, 7,1", "final": ""})),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}])),
        ("/process/user", json!({"uid": 1, "gid": 2, "umask": 0o22, "additionalGids": [3], "username": "x"})),
    ]);
    let process = plan.process.unwrap();
    assert_eq!(process.console_size, None);
    assert_eq!((process.apparmor_profile, process.selinux_label), (None, None));
    assert_eq!(process.env, [c"A=3".into(), c"B=2".into(), c"C".into()] as [CString; 3]);
    let scheduler = process.scheduler.unwrap();
    assert_eq!((scheduler.policy, scheduler.priority, scheduler.flags), (2, 9, 0x1 | 0x8));
    let io = process.io_priority.unwrap();
    assert_eq!((io.class, io.level), (3, 7));
    assert_eq!(process.exec_cpu_affinity.initial, Some(vec![0, 1, 2, 7]));
    assert_eq!(process.exec_cpu_affinity.r#final, None);
    let rlimit = &process.rlimits[0];
    assert_eq!((rlimit.resource, rlimit.soft, rlimit.hard), (libc::RLIMIT_NOFILE, 1, u64::MAX));
    assert_eq!((process.user.uid, process.user.gid, process.user.umask), (1, 2, Some(0o22)));

    let old = accept(&[("/process/scheduler", json!({"policy": "SCHED_OTHER", "flags": ["SCHED_RESET_ON_FORK"]}))]);
    assert_eq!(old.process.unwrap().scheduler.unwrap().flags, 1);
    // Without a terminal it is ignored, whatever it is.
    for ignored in [json!({"height": -1, "width": "x"}), json!({"height": 1.5, "width": [1]}), json!("x"), json!([1])] {
        assert_eq!(accept(&[("/process/consoleSize", ignored)]).process.unwrap().console_size, None);
    }
    for (wrong, expected) in [
        (json!({"height": -1, "width": 1}), "process.consoleSize.height: is no positive number"),
        (json!({"height": 1}), "process.consoleSize.width: required property is missing"),
        (json!("x"), "process.consoleSize: is no object with height and width"),
    ] {
        refuse(&[("/process/terminal", json!(true)), ("/process/consoleSize", wrong)], expected);
    }
    let terminal = [("/process/terminal", json!(true)), ("/process/consoleSize", json!({"height": 24, "width": 80}))];
    assert_eq!(accept(&terminal).process.unwrap().console_size, Some((24, 80)));
}

#[test]
fn labels_are_kept_where_the_host_has_the_module() {
    let text = with(&[
        ("/process/apparmorProfile", json!("unconfined")),
        ("/process/selinuxLabel", json!("a:b:c")),
        ("/linux/mountLabel", json!("d:e:f")),
    ]);
    let host = Host { apparmor: || true, selinux: || true, ..host() };
    let plan = plan(&text, Path::new("/usr"), &host, &Overrides::default()).unwrap();
    let process = plan.process.unwrap();
    assert_eq!(process.apparmor_profile.as_deref(), Some("unconfined"));
    assert_eq!(process.selinux_label.as_deref(), Some("a:b:c"));
    assert_eq!(plan.mount_label.as_deref(), Some("d:e:f"));
}

#[test]
fn capabilities_that_cannot_be_granted_are_dropped() {
    let text = with(&[(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_BPF", "CAP_NONE", "cap_kill"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_SYS_ADMIN"],
            "inheritable": ["CAP_CHOWN", "CAP_SYS_ADMIN"],
            "ambient": ["CAP_CHOWN", "CAP_KILL"],
        }),
    )]);
    let host = Host { last_capability: 37, ..host() };
    let plan = plan(&text, Path::new("/usr"), &host, &Overrides::default()).unwrap();
    let (chown, kill) = (1 << 0, 1 << 5);
    assert_eq!(
        plan.process.unwrap().capabilities,
        Capabilities {
            bounding: chown | kill,
            permitted: chown | kill,
            effective: chown,
            inheritable: chown,
            ambient: chown
        }
    );
}

#[test]
fn exec_reads_a_process_and_flags() {
    let process = process(r#"{"args": ["id"], "cwd": "/", "user": {"uid": 1, "gid": 1}}"#, &host(), None).unwrap();
    assert_eq!(process.args, [c"id".into()] as [CString; 1]);
    let error = super::process(r#"{"args": ["id"]"#, &host(), None).unwrap_err();
    assert_eq!(error.to_string(), "process is truncated: EOF while parsing an object at line 1 column 15");

    assert_eq!(parse_capability("CAP_CHOWN"), Some(0));
    assert_eq!(parse_capability("checkpoint_restore"), Some(40));
    assert_eq!(parse_capability("cap_cap_kill"), None);
    assert_eq!(parse_capability(""), None);

    assert_eq!(parse_id("0").unwrap(), 0);
    assert_eq!(parse_id("4294967294").unwrap(), 4294967294);
    for bad in ["", "-1", "+1", " 1", "1 ", "0x1", "4294967295", "4294967296", "99999999999999999999", "1e3", "root"] {
        assert!(parse_id(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_env("A=b=c").unwrap(), CString::from(c"A=b=c"));
    for bad in ["", "=x", "A=\0"] {
        assert!(parse_env(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn exec_asks_for_no_args_of_the_config() {
    for args in [Value::Null, json!([]), json!([""])] {
        let text = with(&[("/process/args", args)]);
        let process = for_exec(&text, Path::new("/usr"), &host()).unwrap().process.unwrap();
        assert_eq!(process.args, [] as [CString; 0]);
    }
}

#[test]
fn what_a_process_file_leaves_out_is_the_containers() {
    let host = Host { apparmor: || true, selinux: || true, ..host() };
    let configured = with(&[
        ("/process/capabilities", json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]})),
        ("/process/apparmorProfile", json!("confined")),
        ("/process/selinuxLabel", json!("a:b:c")),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}])),
        ("/process/oomScoreAdj", json!(77)),
        ("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 4})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6})),
        ("/process/execCPUAffinity", json!({"final": "1"})),
        ("/process/noNewPrivileges", json!(true)),
        ("/process/user/umask", json!(0o77)),
    ]);
    let configured = for_exec(&configured, Path::new("/usr"), &host).unwrap().process.unwrap();
    let read = |more: Value| {
        let mut file = json!({"args": ["id"], "cwd": "/", "user": {"uid": 1, "gid": 1}});
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        process(&file.to_string(), &host, Some(&configured)).unwrap()
    };
    // An empty label is none.
    for absent in [json!({}), json!({"capabilities": null, "apparmorProfile": "", "selinuxLabel": "", "rlimits": []})] {
        let process = read(absent);
        assert_eq!(process.capabilities, configured.capabilities);
        assert_eq!(process.apparmor_profile.as_deref(), Some("confined"));
        assert_eq!(process.selinux_label.as_deref(), Some("a:b:c"));
        assert_eq!(process.rlimits[0].soft, 1);
        assert_eq!(process.oom_score_adj, Some(77));
        assert_eq!(process.scheduler.unwrap().nice, 4);
        assert_eq!(process.io_priority.unwrap().level, 6);
        assert_eq!(process.exec_cpu_affinity.r#final, Some(vec![1]));
        assert!(process.no_new_privileges);
        assert_eq!((process.user.uid, process.user.umask), (1, None));
    }
    let process = read(json!({
        "capabilities": {}, "apparmorProfile": "unconfined", "selinuxLabel": "x:y:z", "oomScoreAdj": 0,
        "scheduler": {"policy": "SCHED_OTHER"}, "execCPUAffinity": {}, "noNewPrivileges": false,
    }));
    assert_eq!(process.capabilities, Capabilities::default());
    assert_eq!(process.apparmor_profile.as_deref(), Some("unconfined"));
    assert_eq!(process.selinux_label.as_deref(), Some("x:y:z"));
    assert_eq!((process.oom_score_adj, process.scheduler.unwrap().nice), (Some(0), 0));
    assert_eq!(process.exec_cpu_affinity.r#final, None);
    assert!(process.no_new_privileges);
}

#[test]
fn namespaces_are_refused() {
    refuse_each(&[
        ("/linux/namespaces/-", json!({"type": "pid"}), "linux.namespaces[6].type: namespace \"pid\" is listed twice"),
        ("/linux/namespaces/-", json!({"type": "net"}), "linux.namespaces[6].type: unknown namespace \"net\""),
        (
            "/linux/namespaces/-",
            json!({"type": "user", "path": "ns"}),
            "linux.namespaces[6].path: \"ns\" is not an absolute path",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount", "path": "/proc/self/ns/mnt"}]),
            "linux.namespaces[0].path: \"/proc/self/ns/mnt\" is the caller's own mount namespace, which would lose its root \
             (without a path the container gets a mount namespace of its own)",
        ),
        ("/linux/namespaces/-", json!({}), "linux.namespaces[6].type: required property is missing"),
        (
            "/linux/namespaces/-",
            json!({"type": "user"}),
            "linux.uidMappings: a new user namespace needs both uidMappings and gidMappings",
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            "linux.uidMappings: id mappings need a user namespace (add {\"type\": \"user\"} to linux.namespaces)",
        ),
    ]);
    let only_mount = json!([{"type": "mount"}]);
    let offsets = json!({"monotonic": {"secs": 1}});
    for (change, expected) in [
        (
            ("/x", json!(0)),
            "hostname: needs a UTS namespace of the container (add {\"type\": \"uts\"} to linux.namespaces)",
        ),
        (
            ("/linux/timeOffsets", offsets.clone()),
            "linux.timeOffsets: needs a new time namespace (add {\"type\": \"time\"} to linux.namespaces)",
        ),
        (
            ("/linux/netDevices", json!({"eth0": {}})),
            "linux.netDevices: needs a network namespace of the container (add {\"type\": \"network\"} to linux.namespaces)",
        ),
    ] {
        let hostname = if change.0 == "/x" { json!("web") } else { Value::Null };
        refuse(&[("/linux/namespaces", only_mount.clone()), ("/hostname", hostname), change], expected);
    }
    refuse(
        &[
            ("/linux/namespaces", json!([{"type": "time", "path": "/x"}])),
            ("/hostname", Value::Null),
            ("/linux/timeOffsets", offsets),
        ],
        "linux.timeOffsets: the offsets of a time namespace that is joined by path cannot be changed \
         (add {\"type\": \"time\"} to linux.namespaces)",
    );
    refuse_each(&[
        ("/hostname", json!("x".repeat(65)), "hostname: 65 bytes long, the kernel takes 64"),
        ("/domainname", json!("x".repeat(65)), "domainname: 65 bytes long, the kernel takes 64"),
        (
            "/linux/timeOffsets",
            json!({"monotonics": {}}),
            "linux.timeOffsets.monotonics: unknown clock \"monotonics\" (did you mean \"monotonic\"?)",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"nanosecs": 1_000_000_000}}),
            "linux.timeOffsets.boottime.nanosecs: 1000000000 is a second or more",
        ),
    ]);
}

#[test]
fn id_mappings() {
    let user = ("/linux/namespaces/-", json!({"type": "user"}));
    let map = |lines: &[(u32, u32, u32)]| {
        json!(lines.iter().map(|(c, h, s)| json!({"containerID": c, "hostID": h, "size": s})).collect::<Vec<_>>())
    };
    let good = map(&[(0, 1000, 10), (10, 5000, 5)]);
    let plan = accept(&[
        user.clone(),
        ("/linux/uidMappings", good.clone()),
        ("/linux/gidMappings", good.clone()),
        ("/process/user", json!({"uid": 14, "gid": 9})),
    ]);
    assert_eq!(plan.id_maps.uid[1], IdMapping { container: 10, host: 5000, size: 5 });
    let joined = ("/linux/namespaces/-", json!({"type": "user", "path": "/x"}));
    let plan = accept(&[joined.clone(), ("/linux/uidMappings", good.clone()), ("/linux/gidMappings", good.clone())]);
    assert_eq!(plan.id_maps.gid.len(), 2);
    refuse(&[joined, ("/linux/uidMappings", good.clone())], "linux.uidMappings: needs gidMappings beside it");
    let many: Vec<_> = (0..341).map(|i| (i, i, 1)).collect();
    for (bad, expected) in [
        (map(&[(0, 0, 0)]), "linux.uidMappings[0].size: must not be 0"),
        (map(&[(0, 0, 5), (4, 9, 1)]), "linux.uidMappings[1].containerID: the range overlaps linux.uidMappings[0]"),
        (map(&[(9, 4, 1), (0, 0, 5)]), "linux.uidMappings[1].hostID: the range overlaps linux.uidMappings[0]"),
        (map(&[(4294967290, 0, 6)]), "linux.uidMappings[0].containerID: the range ends above 4294967294"),
        (map(&[(0, 1, 4294967295)]), "linux.uidMappings[0].hostID: the range ends above 4294967294"),
        (map(&many), "linux.uidMappings: 341 mappings, the kernel takes 340"),
        (json!([{"containerID": 0, "hostID": 1}]), "linux.uidMappings[0].size: required property is missing"),
        (json!([]), "linux.uidMappings: a new user namespace needs both uidMappings and gidMappings"),
    ] {
        refuse(&[user.clone(), ("/linux/uidMappings", bad), ("/linux/gidMappings", good.clone())], expected);
    }
    let whole = map(&[(0, 0, 4294967295)]);
    let both = [("/linux/uidMappings", whole.clone()), ("/linux/gidMappings", whole)];
    accept(&[&[user.clone()][..], &both].concat());
    let mapped = [user, ("/linux/uidMappings", good.clone()), ("/linux/gidMappings", good)];
    for (change, expected) in [
        (json!({"uid": 15, "gid": 0}), "process.user.uid: id 15 is not mapped by linux.uidMappings"),
        (json!({"uid": 0, "gid": 99}), "process.user.gid: id 99 is not mapped by linux.gidMappings"),
        (
            json!({"uid": 0, "gid": 0, "additionalGids": [0, 50]}),
            "process.user.additionalGids[1]: id 50 is not mapped by linux.gidMappings",
        ),
    ] {
        refuse(&[&mapped[..], &[("/process/user", change)]].concat(), expected);
    }
}

#[test]
fn devices() {
    let device = |path: &str, kind: &str, more: Value| {
        let mut value = json!({"path": path, "type": kind, "major": 1, "minor": 3});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([value])
    };
    refuse_each(&[
        ("/linux/devices", json!([{"type": "c"}]), "linux.devices[0].path: required property is missing"),
        ("/linux/devices", json!([{"path": "/dev/x"}]), "linux.devices[0].type: required property is missing"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": 1}]),
            "linux.devices[0].minor: required property is missing",
        ),
        ("/linux/devices", device("dev/x", "c", json!({})), "linux.devices[0].path: \"dev/x\" is not an absolute path"),
        ("/linux/devices", device("/", "c", json!({})), "linux.devices[0].path: \"/\" does not name a file"),
        (
            "/linux/devices",
            device("/dev/x", "d", json!({})),
            "linux.devices[0].type: unknown type \"d\" (c, b, u or p)",
        ),
        (
            "/linux/devices",
            device("/dev/x", "b", json!({"major": -1})),
            "linux.devices[0].major: -1 is not between 0 and 4095",
        ),
        (
            "/linux/devices",
            device("/dev/x", "b", json!({"minor": 1 << 20})),
            "linux.devices[0].minor: 1048576 is not between 0 and 1048575",
        ),
        (
            "/linux/devices",
            device("/dev/x", "b", json!({"fileMode": 0o1000666})),
            "linux.devices[0].fileMode: 0o1000666 has bits that are no permissions",
        ),
        (
            "/linux/devices",
            device("/dev/x", "b", json!({"uid": 4294967295u32})),
            "linux.devices[0].uid: 4294967295 is no id",
        ),
        (
            "/linux/devices",
            json!([device("/dev/x", "b", json!({}))[0], device("/dev//x", "c", json!({}))[0]]),
            "linux.devices[1].path: \"/dev//x\" is already the path of linux.devices[0]",
        ),
    ]);
    let plan = accept(&[(
        "/linux/devices",
        json!([
            {"path": "/dev/a", "type": "u", "major": 1, "minor": 2},
            {"path": "/dev/b", "type": "p"},
            {"path": "/dev/c", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20600, "uid": 7, "gid": 8},
        ]),
    )]);
    assert_eq!((plan.devices[0].kind, plan.devices[0].mode, plan.devices[0].minor), (DeviceKind::Char, None, 2));
    assert_eq!(plan.devices[1].kind, DeviceKind::Fifo);
    assert_eq!((plan.devices[2].mode, plan.devices[2].uid, plan.devices[2].gid), (Some(0o600), Some(7), Some(8)));
    // The same once more, however it is written.
    let plan = accept(&[(
        "/linux/devices",
        json!([device("/dev/x", "c", json!({"fileMode": 0o600}))[0], device("/dev/y/../x", "u", json!({}))[0]]),
    )]);
    assert_eq!((plan.devices.len(), plan.devices[0].mode), (1, Some(0o600)));
    refuse(
        &[("/linux/devices", json!([device("/dev/x", "c", json!({}))[0], device("/dev/y/../x", "b", json!({}))[0]]))],
        "linux.devices[1].path: \"/dev/y/../x\" is already the path of linux.devices[0]",
    );
}

#[test]
fn words_of_the_command_line_replace_args() {
    for args in [Value::Null, json!([]), json!(["/bin/false"])] {
        let overrides = Overrides { args: vec![c"/bin/true".into()], ..Default::default() };
        let text = with(&[("/process/args", args)]);
        let process = plan(&text, Path::new("/usr"), &host(), &overrides).unwrap().process.unwrap();
        assert_eq!(process.args, [CString::from(c"/bin/true")]);
    }
}

/// What is compared with all that came before is found by its name: 64 MiB of it must not take hours.
#[test]
fn many_entries_are_no_quadratic_work() {
    let many = 20_000;
    let devices: Vec<Value> =
        (0..many).map(|i| json!({"path": format!("/dev/x{i}"), "type": "c", "major": 1, "minor": 3})).collect();
    let sysctl: serde_json::Map<_, _> = (0..many).map(|i| (format!("net.x{i}"), json!("1"))).collect();
    let net: serde_json::Map<_, _> = (0..many).map(|i| (format!("x{i}"), json!({}))).collect();
    let pages: Vec<Value> = (1..=many).map(|i| json!({"pageSize": format!("{i}KB"), "limit": 1})).collect();
    let text = with(&[
        ("/linux/devices", json!(devices)),
        ("/linux/sysctl", json!(sysctl)),
        ("/linux/netDevices", json!(net)),
        ("/linux/resources/hugepageLimits", json!(pages)),
        ("/process/execCPUAffinity", json!({"final": vec!["0-8191"; many].join(",")})),
    ]);
    // Quadratic, it is minutes.
    let begun = std::time::Instant::now();
    let plan = planned(&text).unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((plan.devices.len(), plan.sysctl.len(), plan.net_devices.len()), (many, many, many));
    assert_eq!(plan.process.unwrap().exec_cpu_affinity.r#final.unwrap().len(), 8192);
}

#[test]
fn net_devices() {
    for (name, expected) in [
        ("a/b", "linux.netDevices[\"eth0\"].name: \"a/b\": not a name that an interface can have"),
        ("..", "linux.netDevices[\"eth0\"].name: \"..\": not a name that an interface can have"),
        (
            "0123456789abcdef",
            "linux.netDevices[\"eth0\"].name: \"0123456789abcdef\": the name of an interface has at most 15 bytes",
        ),
        ("%d%d", "linux.netDevices[\"eth0\"].name: \"%d%d\": only one %d can be filled in"),
        ("%s", "linux.netDevices[\"eth0\"].name: \"%s\": only one %d can be filled in"),
    ] {
        refuse(&[("/linux/netDevices", json!({"eth0": {"name": name}}))], expected);
    }
    refuse(&[("/linux/netDevices", json!({"": {}}))], "linux.netDevices[\"\"]: \"\": the name is empty");
    refuse(
        &[("/linux/netDevices", json!({"a": {"name": "x"}, "b": {"name": "x"}}))],
        "linux.netDevices[\"b\"].name: \"x\" is already the name of \"a\"",
    );
    let plan = accept(&[("/linux/netDevices", json!({"a": {}, "b": {"name": "eth%d"}, "c": {"name": "eth%d"}}))]);
    let names: Vec<_> = plan.net_devices.iter().map(|d| (d.host.as_str(), d.container.as_str())).collect();
    assert_eq!(names, [("a", "a"), ("b", "eth%d"), ("c", "eth%d")]);
}

#[test]
fn paths_are_absolute() {
    refuse_each(&[
        ("/linux/maskedPaths", json!(["/a", "proc"]), "linux.maskedPaths[1]: \"proc\" is not an absolute path"),
        ("/linux/readonlyPaths", json!(["", "proc"]), "linux.readonlyPaths[0]: \"\" is not an absolute path"),
    ]);
    refuse(
        &[("/linux/namespaces", json!([{"type": "uts"}])), ("/linux/maskedPaths", json!(["/a"]))],
        "linux.maskedPaths: needs a mount namespace of the container (add {\"type\": \"mount\"} to linux.namespaces)",
    );
}

#[test]
fn sysctl() {
    let callers = "/proc/self/ns/net";
    for (key, expected) in [
        ("kernel.pid_max", "belongs to no namespace: it would change the host"),
        ("vm.swappiness", "belongs to no namespace: it would change the host"),
        ("kernel.shmmax;id", "only letters, digits and _ . / - may be in the name of a sysctl"),
        ("net/../kernel/pid_max", "not the name of a sysctl"),
        ("net..ipv4", "not the name of a sysctl"),
        ("/net/ipv4", "not the name of a sysctl"),
        ("", "not the name of a sysctl"),
        ("user.max_user_namespaces", "needs a user namespace of the container: it would change the caller's"),
        ("kernel.hostname", "conflicts with hostname"),
    ] {
        refuse(&[("/linux/sysctl", json!({key: "1"}))], &format!("linux.sysctl[{key:?}]: {expected}"));
    }
    let inherit = [("/linux/namespaces", json!([])), ("/hostname", Value::Null)];
    for (key, kind) in [
        ("kernel.msgmax", "IPC"),
        ("kernel.sem", "IPC"),
        ("fs.mqueue.msg_max", "IPC"),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.domainname", "UTS"),
    ] {
        let expected =
            format!("linux.sysctl[{key:?}]: needs a {kind} namespace of the container: it would change the caller's");
        refuse(&[&inherit[..], &[("/linux/sysctl", json!({key: "1"}))]].concat(), &expected);
    }
    refuse(
        &[
            ("/linux/namespaces", json!([{"type": "uts"}, {"type": "network", "path": callers}])),
            ("/linux/sysctl", json!({"net.core.somaxconn": "1"})),
        ],
        "linux.sysctl[\"net.core.somaxconn\"]: needs a network namespace of the container: it would change the caller's",
    );
    refuse(
        &[("/linux/sysctl", json!({"net.core.somaxconn": "1", "net/core/somaxconn": "2"}))],
        "linux.sysctl[\"net/core/somaxconn\"]: is the same as \"net.core.somaxconn\"",
    );
    let plan = accept(&[(
        "/linux/sysctl",
        json!({"net.ipv4.conf.eno2/100.rp_filter": "1", "net/ipv4/conf/eno2.101/rp_filter": "0", "kernel.shm_rmid_forced": "1"}),
    )]);
    let paths: Vec<_> = plan.sysctl.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(
        paths,
        ["kernel/shm_rmid_forced", "net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.101/rp_filter"]
    );
}

#[test]
fn personality_memory_policy_and_what_is_not_supported() {
    let policy = |mode: &str, nodes: &str, flags: &[&str]| json!({"mode": mode, "nodes": nodes, "flags": flags});
    refuse_each(&[
        ("/linux/intelRdt", json!({"closID": "a"}), "linux.intelRdt: not supported (leave the property out)"),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            "linux.personality.flags: no flags are supported",
        ),
        (
            "/linux/personality",
            json!({"domain": "BSD"}),
            "linux.personality.domain: unknown domain \"BSD\" (LINUX or LINUX32)",
        ),
        (
            "/linux/memoryPolicy",
            policy("MPOL_BINDE", "0", &[]),
            "linux.memoryPolicy.mode: unknown mode \"MPOL_BINDE\" (did you mean \"MPOL_BIND\"?)",
        ),
        ("/linux/memoryPolicy", policy("MPOL_BIND", "", &[]), "linux.memoryPolicy.nodes: MPOL_BIND needs nodes"),
        ("/linux/memoryPolicy", policy("MPOL_LOCAL", "0", &[]), "linux.memoryPolicy.nodes: MPOL_LOCAL takes none"),
        (
            "/linux/memoryPolicy",
            policy("MPOL_DEFAULT", "", &["MPOL_F_STATIC_NODES"]),
            "linux.memoryPolicy.flags: MPOL_DEFAULT takes none",
        ),
        (
            "/linux/memoryPolicy",
            policy("MPOL_PREFERRED", "", &["MPOL_F_STATIC_NODES"]),
            "linux.memoryPolicy.flags: MPOL_PREFERRED without nodes takes none",
        ),
        (
            "/linux/memoryPolicy",
            policy("MPOL_BIND", "0", &["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]),
            "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
        ),
        (
            "/linux/memoryPolicy",
            policy("MPOL_INTERLEAVE", "0", &["MPOL_F_NUMA_BALANCING"]),
            "linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING does not go with MPOL_INTERLEAVE",
        ),
        (
            "/linux/memoryPolicy",
            policy("MPOL_BIND", "0", &["MPOL_F_X"]),
            "linux.memoryPolicy.flags[0]: unknown flag \"MPOL_F_X\"",
        ),
        (
            "/linux/memoryPolicy",
            policy("MPOL_BIND", "0-1024", &[]),
            "linux.memoryPolicy.nodes: list \"0-1024\" names a number above 1023",
        ),
    ]);
    let plan = accept(&[
        ("/linux/personality", json!({"domain": "LINUX32"})),
        ("/linux/memoryPolicy", policy("MPOL_BIND", "0-1,65", &["MPOL_F_STATIC_NODES"])),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": -5, "nanosecs": 7}})),
    ]);
    assert_eq!(plan.personality, Some(Personality::Linux32));
    let memory_policy = plan.memory_policy.unwrap();
    assert_eq!((memory_policy.mode, memory_policy.node_mask), (2 | 1 << 15, vec![3, 2]));
    assert_eq!(plan.time_offsets.monotonic, Some((-5, 7)));
}

#[test]
fn mounts_are_refused() {
    let ids = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    refuse_mounts(&[
        (json!({"type": "proc"}), "mounts[0].destination: required property is missing"),
        (json!({"destination": "", "type": "proc"}), "mounts[0].destination: the destination is empty"),
        (
            json!({"destination": "/a"}),
            "mounts[0].type: required property is missing (for a bind mount add option bind or rbind)",
        ),
        (
            json!({"destination": "/a", "type": "bind", "source": "/b"}),
            "mounts[0].type: \"bind\" is no file system (for a bind mount add option bind or rbind)",
        ),
        (
            json!({"destination": "/a", "type": "none", "source": "/b", "options": ["ro", "bnid"]}),
            "mounts[0].options[1]: unknown option \"bnid\" (did you mean \"bind\"?)",
        ),
        (json!({"destination": "/a", "options": ["bind"]}), "mounts[0].source: a bind mount needs a source"),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind"], "uidMappings": ids}),
            "mounts[0].uidMappings: needs gidMappings beside it",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind"], "gidMappings": ids}),
            "mounts[0].gidMappings: needs uidMappings beside it",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "uidMappings": ids, "gidMappings": ids}),
            "mounts[0].uidMappings: only a bind mount can have id mappings (option bind or rbind)",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}),
            "mounts[0].options: idmap without mappings needs a user namespace (add uidMappings and gidMappings to the mount)",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["idmap=uids=0-0-1;gids=0-0-1"]}),
            "mounts[0].options: only a bind mount can have id mappings (option bind or rbind)",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap=uids=0-1"]}),
            "mounts[0].options[1]: \"0-1\" is not of the form ID-ID-SIZE",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap=0-1-2"]}),
            "mounts[0].options[1]: \"0-1-2\" is neither uids=… nor gids=…",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap=uids=0-1-2"]}),
            "mounts[0].options[1]: \"uids=0-1-2\" needs both uids= and gids=",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap=uids=@0-1-2;gids=0-1-2"]}),
            "mounts[0].options[1]: @: id 1 of the container is not mapped (@ needs linux.uidMappings and linux.gidMappings)",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap=uids=0-1-0;gids=0-1-2"]}),
            "mounts[0].options[1][0].size: must not be 0",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap=uids=0-0-1;gids=0-0-1"], "uidMappings": ids, "gidMappings": ids}),
            "mounts[0].uidMappings: the option idmap= has mappings already",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "tmpcopyup"]}),
            "mounts[0].options: only a tmpfs can have the option tmpcopyup",
        ),
    ]);
    let many = vec![json!({"destination": "/a", "type": "tmpfs"}); 100_001];
    refuse(&[("/mounts", json!(many))], "mounts: 100001 mounts, the kernel takes 100000");
}

#[test]
fn mounts_are_read() {
    let tmpfs = mount(json!({"destination": "tmp", "type": "tmpfs", "options":
        ["nosuid", "defaults", "", "mode=755", "sync", "lazytime", "nolazytime", "size=64k", "tmpcopyup", "rslave", "private"]}));
    assert_eq!(tmpfs.destination, Path::new("/tmp"));
    let MountKind::FileSystem { fs_type, source, data } = &tmpfs.kind else { panic!("{:?}", tmpfs.kind) };
    assert_eq!((fs_type.as_str(), source.as_str()), ("tmpfs", "none"));
    assert_eq!(data[..], ["mode=755", "size=64k"]);
    assert!(tmpfs.copy_up);
    assert_eq!(tmpfs.superblock, FlagChange { set: libc::MS_SYNCHRONOUS, clear: libc::MS_LAZYTIME });
    assert_eq!(
        tmpfs.propagation,
        [
            Propagation { kind: PropagationKind::Slave, recursive: true },
            Propagation { kind: PropagationKind::Private, recursive: false },
        ]
    );

    let bind = mount(json!({"destination": "/", "type": "tmpfs", "source": "data", "options": ["rbind", "bind"]}));
    let MountKind::Bind { source, recursive } = &bind.kind else { panic!("{:?}", bind.kind) };
    assert_eq!((source.as_path(), *recursive), (Path::new("/usr/data"), true));

    let cgroup = mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}));
    assert!(matches!(cgroup.kind, MountKind::Cgroup { .. }));
    let remount = mount(json!({"destination": "/", "options": ["remount", "ro"]}));
    assert!(matches!(remount.kind, MountKind::Remount { .. }));
}

#[test]
fn the_last_mount_option_wins() {
    let (ro, nosuid, atime) = (libc::MOUNT_ATTR_RDONLY, libc::MOUNT_ATTR_NOSUID, libc::MOUNT_ATTR__ATIME);
    let (noatime, strictatime) = (libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR_STRICTATIME);
    let nothing = FlagChange::default();
    let change = |set, clear| FlagChange { set, clear };
    for (options, top, recursive) in [
        (&["ro", "rw"][..], change(0, ro), nothing),
        (&["rw", "ro"], change(ro, 0), nothing),
        (&["ro", "nosuid", "suid"], change(ro, nosuid), nothing),
        (&["noatime"], change(noatime, atime), nothing),
        (&["noatime", "strictatime"], change(strictatime, atime), nothing),
        (&["noatime", "relatime"], change(0, atime), nothing),
        (&["noatime", "norelatime"], change(noatime, atime), nothing),
        (&["noatime", "atime"], change(0, atime), nothing),
        (&["atime"], change(0, atime), nothing),
        (&["nodiratime", "noatime"], change(noatime | libc::MOUNT_ATTR_NODIRATIME, atime), nothing),
        (&["rro"], nothing, change(ro, 0)),
        (&["ro", "rrw"], nothing, change(0, ro)),
        (&["rrw", "ro"], change(ro, 0), change(0, ro)),
        (&["strictatime", "rnoatime"], nothing, change(noatime, atime)),
        (&["rnosymfollow", "rnodev"], nothing, change(libc::MOUNT_ATTR_NOSYMFOLLOW | libc::MOUNT_ATTR_NODEV, 0)),
    ] {
        let options = [&["rbind"][..], options].concat();
        let mount = mount(json!({"destination": "/a", "source": "/b", "options": options}));
        assert_eq!(mount.attributes, MountAttributes { top, recursive }, "{options:?}");
    }
}

#[test]
fn every_mount_option_is_taken() {
    let names: Vec<_> = mount_options().collect();
    assert!(names.is_sorted());
    for name in names {
        let mut options = vec!["rbind", name];
        let mut change = json!({"destination": "/a", "type": "tmpfs", "source": "/b"});
        if name == "tmpcopyup" {
            options.remove(0);
        }
        if name.contains("idmap") {
            change["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
            change["gidMappings"] = change["uidMappings"].clone();
        }
        change["options"] = json!(options);
        mount(change);
    }
}

#[test]
fn mounts_with_id_maps() {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 5000, "size": 10}]);
    let user = [
        ("/linux/namespaces/-", json!({"type": "user"})),
        ("/linux/uidMappings", map.clone()),
        ("/linux/gidMappings", map),
    ];
    let id_map = |more: Value| {
        let mut mount = json!({"destination": "/a", "source": "/b", "options": ["bind"]});
        mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        accept(&[&user[..], &[("/mounts", json!([mount]))]].concat()).mounts.remove(0).id_map.unwrap()
    };
    let line = |container, host, size| IdMapping { container, host, size };

    let own = id_map(json!({"options": ["bind", "ridmap"]}));
    assert!(own.recursive && own.maps.is_none());
    let one = json!([{"containerID": 1, "hostID": 2, "size": 3}]);
    let explicit = id_map(json!({"uidMappings": one, "gidMappings": one}));
    assert_eq!((explicit.recursive, explicit.maps.unwrap().uid), (false, vec![line(1, 2, 3)]));
    let explicit = id_map(json!({"options": ["rbind", "ridmap"], "uidMappings": one, "gidMappings": one}));
    assert!(explicit.recursive && explicit.maps.is_some());

    let option = id_map(json!({"options": ["bind", "idmap=uids=0-1-10#10-11-10;gids=0-100-10"]})).maps.unwrap();
    assert_eq!(option.uid, [line(0, 1, 10), line(10, 11, 10)]);
    assert_eq!(option.gid, [line(0, 100, 10)]);
    let relative = id_map(json!({"options": ["bind", "idmap=uids=@100-5-8"]})).maps.unwrap();
    assert_eq!(relative.uid, [line(100, 1005, 5), line(105, 5000, 3)]);
    assert_eq!(relative.gid, [line(0, 1000, 10), line(10, 5000, 10)]);
}

#[test]
fn resources_are_refused() {
    refuse_each(&[
        (
            "/linux/resources/memory",
            json!({"limit": -2}),
            "linux.resources.memory.limit: -2 is less than -1 (-1 is unlimited)",
        ),
        (
            "/linux/resources/memory",
            json!({"swap": -2}),
            "linux.resources.memory.swap: -2 is less than -1 (-1 is unlimited)",
        ),
        (
            "/linux/resources/memory",
            json!({"swappiness": 101}),
            "linux.resources.memory.swappiness: 101 is more than 100",
        ),
        (
            "/linux/resources/pids",
            json!({"limit": -5}),
            "linux.resources.pids.limit: -5 is less than -1 (-1 is unlimited)",
        ),
        ("/linux/resources/cpu", json!({"idle": 2}), "linux.resources.cpu.idle: 2 is neither 0 nor 1"),
        (
            "/linux/resources/cpu",
            json!({"quota": -2}),
            "linux.resources.cpu.quota: -2 is less than -1 (-1 is unlimited)",
        ),
        (
            "/linux/resources/cpu",
            json!({"realtimeRuntime": 2, "realtimePeriod": 1}),
            "linux.resources.cpu.realtimeRuntime: 2 is more than the period of 1",
        ),
        (
            "/linux/resources/blockIO",
            json!({"weight": 9}),
            "linux.resources.blockIO.weight: 9 is not between 10 and 1000",
        ),
        (
            "/linux/resources/blockIO",
            json!({"leafWeight": 1001}),
            "linux.resources.blockIO.leafWeight: 1001 is not between 10 and 1000",
        ),
        (
            "/linux/resources/blockIO",
            json!({"weightDevice": [{"major": 8, "minor": 0}]}),
            "linux.resources.blockIO.weightDevice[0]: needs a weight or a leafWeight",
        ),
        (
            "/linux/resources/blockIO",
            json!({"weightDevice": [{"major": 8, "weight": 10}]}),
            "linux.resources.blockIO.weightDevice[0].minor: required property is missing",
        ),
        (
            "/linux/resources/blockIO",
            json!({"throttleReadIOPSDevice": [{"major": 8, "minor": 0}]}),
            "linux.resources.blockIO.throttleReadIOPSDevice[0].rate: required property is missing",
        ),
        (
            "/linux/resources/blockIO",
            json!({"throttleReadBpsDevice": [{"major": -8, "minor": 0, "rate": 1}]}),
            "linux.resources.blockIO.throttleReadBpsDevice[0].major: -8 is no device number",
        ),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2M", "limit": 1}]),
            "linux.resources.hugepageLimits[0].pageSize: \"2M\" is not a size such as 64KB, 2MB or 1GB",
        ),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 1}, {"pageSize": "2MB", "limit": 1}]),
            "linux.resources.hugepageLimits[1].pageSize: 2MB is limited twice",
        ),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB"}]),
            "linux.resources.hugepageLimits[0].limit: required property is missing",
        ),
        (
            "/linux/resources/network",
            json!({"priorities": [{"name": "a b", "priority": 1}]}),
            "linux.resources.network.priorities[0].name: \"a b\" is no name of an interface",
        ),
        (
            "/linux/resources/network",
            json!({"priorities": [{"name": "a"}]}),
            "linux.resources.network.priorities[0].priority: required property is missing",
        ),
        (
            "/linux/resources/rdma",
            json!({"mlx5_1": {}}),
            "linux.resources.rdma[\"mlx5_1\"]: needs hcaHandles or hcaObjects",
        ),
        (
            "/linux/resources/rdma",
            json!({"a b": {"hcaHandles": 1}}),
            "linux.resources.rdma[\"a b\"]: not the name of a device",
        ),
        (
            "/linux/resources/unified",
            json!({"../memory.max": "1"}),
            "linux.resources.unified[\"../memory.max\"]: not the name of a file such as memory.high",
        ),
        (
            "/linux/resources/unified",
            json!({"memory": "1"}),
            "linux.resources.unified[\"memory\"]: not the name of a file such as memory.high",
        ),
        (
            "/linux/resources/devices",
            json!([{"allow": true, "type": "d", "access": "r"}]),
            "linux.resources.devices[0].type: unknown type \"d\" (a, c or b)",
        ),
        (
            "/linux/resources/devices",
            json!([{"allow": true, "access": "rx"}]),
            "linux.resources.devices[0].access: \"rx\" is not made of r, w and m",
        ),
        (
            "/linux/resources/devices",
            json!([{"allow": true}]),
            "linux.resources.devices[0].access: required property is missing",
        ),
        (
            "/linux/resources/devices",
            json!([{"access": "r"}]),
            "linux.resources.devices[0].allow: required property is missing",
        ),
        (
            "/linux/resources/devices",
            json!([{"allow": true, "type": "c", "major": -2, "access": "r"}]),
            "linux.resources.devices[0].major: -2 is no device number (-1 is any)",
        ),
    ]);
}

#[test]
fn resources_are_read() {
    let resources = accept(&[(
        "/linux/resources",
        json!({
            "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": -1, "access": "rw"}],
            "memory": {"limit": 64, "reservation": -1, "swap": 128, "kernel": 1, "kernelTCP": 2, "swappiness": 0,
                       "disableOOMKiller": true, "useHierarchy": false, "checkBeforeUpdate": true},
            "cpu": {"shares": 2, "quota": -1, "burst": 3, "period": 4, "realtimeRuntime": 5, "realtimePeriod": 6,
                    "cpus": "0-1", "mems": "", "idle": 1},
            "pids": {"limit": 0},
            "blockIO": {"weight": 0, "leafWeight": 10, "weightDevice": [{"major": 8, "minor": 1, "leafWeight": 20}],
                        "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1}],
                        "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 2}],
                        "throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 3}],
                        "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 4}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854772000u64}],
            "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 8}]},
            "rdma": {"mlx": {"hcaHandles": 3}},
            "unified": {"memory.high": "1"},
        }),
    )])
    .resources;
    assert_eq!(
        resources.devices,
        [
            DeviceRule {
                allow: false,
                kind: DeviceRuleKind::All,
                major: None,
                minor: None,
                read: true,
                write: true,
                mknod: true
            },
            DeviceRule {
                allow: true,
                kind: DeviceRuleKind::Char,
                major: Some(10),
                minor: None,
                read: true,
                write: true,
                mknod: false
            },
        ]
    );
    let memory = &resources.memory;
    assert_eq!((memory.limit, memory.reservation, memory.swap), (Some(64), Some(-1), Some(128)));
    assert_eq!((memory.kernel, memory.kernel_tcp, memory.swappiness), (Some(1), Some(2), Some(0)));
    assert_eq!((memory.disable_oom_killer, memory.use_hierarchy), (Some(true), Some(false)));
    assert!(memory.check_before_update);
    let cpu = &resources.cpu;
    assert_eq!((cpu.shares, cpu.quota, cpu.burst, cpu.period), (Some(2), Some(-1), Some(3), Some(4)));
    assert_eq!((cpu.realtime_runtime, cpu.realtime_period, cpu.idle), (Some(5), Some(6), Some(1)));
    assert_eq!((cpu.cpus.as_deref(), cpu.mems.as_deref()), (Some("0-1"), None));
    assert_eq!(resources.pids_limit, Some(0));
    let io = &resources.block_io;
    assert_eq!((io.weight, io.leaf_weight, io.weight_device[0].leaf_weight), (None, Some(10), Some(20)));
    let rates = [&io.throttle_read_bps, &io.throttle_write_bps, &io.throttle_read_iops, &io.throttle_write_iops];
    assert_eq!(rates.map(|list| list[0].rate), [1, 2, 3, 4]);
    assert_eq!(resources.hugepage_limits[0].limit, 9223372036854772000);
    assert_eq!(resources.network.class_id, Some(7));
    assert_eq!(resources.network.priorities, [("eth0".to_string(), 8)]);
    assert_eq!((resources.rdma[0].hca_handles, resources.rdma[0].hca_objects), (Some(3), None));
    assert_eq!(resources.unified, [("memory.high".to_string(), "1".to_string())]);
    // "pids": {} is no limit since runtime-spec 1.3, and -1 as Docker's swappiness is unset.
    let unset = accept(&[("/linux/resources", json!({"pids": {}, "memory": {"swappiness": u64::MAX}}))]).resources;
    assert_eq!((unset.pids_limit, unset.memory.swappiness), (None, None));
}

#[test]
fn hooks() {
    refuse_each(&[
        ("/hooks/prestart", json!([{"path": "bin/x"}]), "hooks.prestart[0].path: \"bin/x\" is not an absolute path"),
        ("/hooks/poststop", json!([{"path": "/x"}, {}]), "hooks.poststop[1].path: required property is missing"),
        (
            "/hooks/createRuntime",
            json!([{"path": "/x", "timeout": 0}]),
            "hooks.createRuntime[0].timeout: 0 is not more than 0 seconds",
        ),
        (
            "/hooks/createContainer",
            json!([{"path": "/x", "timeout": -1}]),
            "hooks.createContainer[0].timeout: -1 is not more than 0 seconds",
        ),
        (
            "/hooks/startContainer",
            json!([{"path": "/x", "env": ["=a"]}]),
            "hooks.startContainer[0].env[0]: environment entry \"=a\" has no name",
        ),
        (
            "/hooks/poststop",
            json!([{"path": "/x", "env": ["A=", "B"]}]),
            "hooks.poststop[0].env[1]: environment entry \"B\" has no value (NAME=VALUE, or NAME= for an empty one)",
        ),
    ]);
    let hooks = accept(&[("/hooks/poststart", json!([{"path": "/x", "args": ["x", "y"], "timeout": 3}]))]).hooks;
    let hook = &hooks.poststart[0];
    assert_eq!((hook.path.as_path(), hook.property.as_str()), (Path::new("/x"), "hooks.poststart[0]"));
    assert_eq!((hook.args.len(), hook.timeout), (2, Some(std::time::Duration::from_secs(3))));
}

#[test]
fn annotations_and_overlay() {
    let lower = "org.kelson.overlay.lower";
    let (upper, work) = ("org.kelson.overlay.upper", "org.kelson.overlay.work");
    let idmap = "org.kelson.overlay.idmap";
    refuse_each(&[
        (
            "/annotations",
            json!({idmap: "true"}),
            "annotations[\"org.kelson.overlay.idmap\"]: there are no layers: it needs org.kelson.overlay.lower beside it",
        ),
        (
            "/annotations",
            json!({idmap: "yes", lower: "[\"/usr\"]"}),
            "annotations[\"org.kelson.overlay.idmap\"]: \"yes\" is neither true nor false",
        ),
        (
            "/annotations",
            json!({idmap: "true", lower: "[\"/usr\"]", upper: "/usr/lib", work: "/etc"}),
            "annotations[\"org.kelson.overlay.work\"]: with org.kelson.overlay.idmap it must be beside the upper directory",
        ),
        ("/annotations", json!({"": "x"}), "annotations[\"\"]: a key must not be empty"),
        (
            "/annotations",
            json!({"org.kelson.overlay.fuse": "1", lower: "[\"/usr\"]"}),
            "annotations[\"org.kelson.overlay.fuse\"]: \"1\" is neither true nor false",
        ),
        (
            "/annotations",
            json!({"org.kelson.overlay.fuse": "true"}),
            "annotations[\"org.kelson.overlay.fuse\"]: needs an overlay: --overlay, or lower layers",
        ),
        (
            "/annotations",
            json!({"org.kelson.overlay.lowr": "x"}),
            "annotations[\"org.kelson.overlay.lowr\"]: unknown annotation \"org.kelson.overlay.lowr\" \
             (did you mean \"org.kelson.overlay.lower\"?)",
        ),
        (
            "/annotations",
            json!({"run.oci.mount_context_type": "nr_inodes=1,context"}),
            "annotations[\"run.oci.mount_context_type\"]: unknown mount option \"nr_inodes=1,context\"",
        ),
        (
            "/annotations",
            json!({lower: "[]"}),
            "annotations[\"org.kelson.overlay.lower\"]: an overlay needs a lower directory",
        ),
        (
            "/annotations",
            json!({lower: "/usr"}),
            "annotations[\"org.kelson.overlay.lower\"]: not a JSON array of strings: expected value at line 1 column 1",
        ),
        (
            "/annotations",
            json!({lower: "[\"/usr\", \"lib\"]"}),
            "annotations[\"org.kelson.overlay.lower\"][1]: \"lib\" is not an absolute path",
        ),
        (
            "/annotations",
            json!({upper: "/usr"}),
            "annotations[\"org.kelson.overlay.upper\"]: needs org.kelson.overlay.work beside it",
        ),
        (
            "/annotations",
            json!({work: "/usr"}),
            "annotations[\"org.kelson.overlay.work\"]: needs org.kelson.overlay.upper beside it",
        ),
        (
            "/annotations",
            json!({upper: "/usr", work: "/usr/lib"}),
            "annotations[\"org.kelson.overlay.work\"]: the upper and the work directory must not be inside each other",
        ),
    ]);
    refuse(
        &[("/annotations", json!({lower: "[\"/usr\"]"})), ("/linux/namespaces", json!([{"type": "uts"}]))],
        "linux.namespaces: an overlay needs a mount namespace of the container",
    );
    let overlay = |annotations: Value, flag: bool| {
        let text = with(&[("/annotations", annotations)]);
        let plan = plan(&text, Path::new("/usr"), &host(), &Overrides { overlay: flag, ..Default::default() }).unwrap();
        plan.root.overlay.map(|overlay| (overlay.lower, overlay.upper))
    };
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(overlay(json!({"a": "b"}), false), None);
    assert_eq!(overlay(json!({}), true), Some((paths(&["/usr/."]), None)));
    assert_eq!(overlay(json!({lower: "[\"/usr/lib\", \"/usr\"]"}), true), Some((paths(&["/usr/lib", "/usr"]), None)));
    assert_eq!(
        overlay(json!({upper: "/usr", work: "/etc"}), false),
        Some((paths(&["/usr/."]), Some(("/usr".into(), "/etc".into()))))
    );
}

#[test]
fn seccomp_is_refused() {
    let rule = |more: Value| {
        let mut rule = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([rule])
    };
    let arg = |arg: Value| rule(json!({"args": [arg]}));
    let at = "linux.seccomp.syscalls[0]";
    for (pointer, value, expected) in [
        ("defaultAction", Value::Null, "linux.seccomp.defaultAction: required property is missing".to_string()),
        (
            "defaultAction",
            json!("SCMP_ACT_ALOW"),
            "linux.seccomp.defaultAction: unknown action \"SCMP_ACT_ALOW\" (did you mean \"SCMP_ACT_ALLOW\"?)".into(),
        ),
        (
            "defaultAction",
            json!("SCMP_ACT_NOTIFY"),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default action".into(),
        ),
        (
            "defaultErrnoRet",
            json!(1),
            "linux.seccomp.defaultErrnoRet: the action takes no errno (only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do)"
                .into(),
        ),
        (
            "architectures",
            json!(["SCMP_ARCH_X86", "SCMP_ARCH_VAX"]),
            "linux.seccomp.architectures[1]: unknown architecture \"SCMP_ARCH_VAX\"".into(),
        ),
        (
            "flags",
            json!(["SECCOMP_FILTER_FLAG_TSYNCH"]),
            "linux.seccomp.flags[0]: unknown flag \"SECCOMP_FILTER_FLAG_TSYNCH\" \
             (did you mean \"SECCOMP_FILTER_FLAG_TSYNC\"?)"
                .into(),
        ),
        (
            "flags",
            json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
            "linux.seccomp.flags[0]: needs a rule with SCMP_ACT_NOTIFY".into(),
        ),
        ("listenerMetadata", json!("x"), "linux.seccomp.listenerMetadata: must not be set without listenerPath".into()),
        ("syscalls", rule(json!({"names": []})), format!("{at}.names: needs at least one name")),
        ("syscalls", rule(json!({"names": null})), format!("{at}.names: needs at least one name")),
        ("syscalls", rule(json!({"names": ["read", ""]})), format!("{at}.names[1]: the name is empty")),
        (
            "syscalls",
            rule(json!({"action": "SCMP_ACT_KILL", "errnoRet": 1})),
            format!("{at}.errnoRet: the action takes no errno (only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do)"),
        ),
        ("syscalls", rule(json!({"errnoRet": 4096})), format!("{at}.errnoRet: 4096 is more than 4095")),
        (
            "syscalls",
            rule(json!({"action": "SCMP_ACT_TRACE", "errnoRet": 65536})),
            format!("{at}.errnoRet: 65536 is more than 65535"),
        ),
        ("syscalls", rule(json!({"action": null})), format!("{at}.action: required property is missing")),
        (
            "syscalls",
            rule(json!({"action": "SCMP_ACT_NOTIFY"})),
            format!("{at}.action: SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath"),
        ),
        (
            "syscalls",
            rule(json!({"action": "SCMP_ACT_NOTIFY", "names": ["write"]})),
            format!("{at}.names[0]: write cannot be notified"),
        ),
        (
            "syscalls",
            arg(json!({"index": 6, "value": 1, "op": "SCMP_CMP_EQ"})),
            format!("{at}.args[0].index: 6: a system call has arguments 0 to 5"),
        ),
        (
            "syscalls",
            arg(json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQU"})),
            format!("{at}.args[0].op: unknown operator \"SCMP_CMP_EQU\" (did you mean \"SCMP_CMP_EQ\"?)"),
        ),
        (
            "syscalls",
            arg(json!({"index": 0, "op": "SCMP_CMP_EQ"})),
            format!("{at}.args[0].value: required property is missing"),
        ),
        ("syscalls", arg(json!({"value": 1})), format!("{at}.args[0].index: required property is missing")),
        ("syscalls", arg(json!({"index": 0, "value": 1})), format!("{at}.args[0].op: required property is missing")),
    ] {
        refuse(&[(&format!("/linux/seccomp/{pointer}"), value)], &expected);
    }
}

#[test]
fn seccomp_is_compiled() {
    let seccomp = accept(&[(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "agent.sock", "listenerMetadata": "x",
            "syscalls": [{"names": ["read", "exit"], "action": "SCMP_ACT_ALLOW"}, {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }),
    )])
    .seccomp
    .unwrap();
    assert!(!seccomp.program.instructions.is_empty());
    // TSYNC and a listener go together only with TSYNC_ESRCH.
    assert_eq!(seccomp.flags, 1 | 1 << 1 | 1 << 4);
    assert_eq!(seccomp.default_flags, 0);
    let listener = seccomp.listener.unwrap();
    assert_eq!((listener.path.as_path(), listener.metadata.as_deref()), (Path::new("/usr/agent.sock"), Some("x")));

    // Absent is the default, empty is empty.
    for (flags, default) in [(Value::Null, 1 << 2), (json!([]), 0), (json!(["SECCOMP_FILTER_FLAG_LOG"]), 0)] {
        let seccomp = accept(&[("/linux/seccomp/flags", flags.clone())]).seccomp.unwrap();
        assert_eq!(seccomp.default_flags, default, "{flags}");
    }

    let unused = accept(&[("/linux/seccomp/listenerPath", json!("/x"))]).seccomp.unwrap();
    assert!(unused.listener.is_none());
}

mod warnings {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        static LINES: RefCell<Vec<String>> = const { RefCell::new(vec![]) };
    }

    struct Collector;

    impl log::Log for Collector {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
        }
        fn flush(&self) {}
    }

    /// What is logged while `text` becomes a plan.
    fn of(text: &str) -> Vec<String> {
        // Another test in this process may have set it before.
        let _ = log::set_logger(&Collector);
        log::set_max_level(log::LevelFilter::Warn);
        LINES.take();
        planned(text).unwrap();
        LINES.take()
    }

    #[test]
    fn unknown_properties_are_named_with_a_suggestion() {
        assert!(of(&with(&[])).is_empty());
        let lines = of(&with(&[
            ("/linux/rootPropagation", json!("shared")),
            ("/windows", json!({})),
            ("/process/Cwd", json!("/")),
            ("/process/a~0b~1c", json!([{"deep": [1, 2.5, null, true]}])),
            ("/mounts/-", json!({"destination": "/a", "type": "tmpfs", "option": [], "xyz": "\n"})),
            ("/linux/sysctl", json!({"net.core.somaxconn": "1"})),
            ("/linux/timeOffsets", json!({"monotonic": {"sec": 1}})),
        ]));
        assert_eq!(
            lines,
            [
                "config.json: unknown property linux.rootPropagation, ignored (did you mean \"rootfsPropagation\"?)",
                "config.json: unknown property linux.timeOffsets.monotonic.sec, ignored (did you mean \"secs\"?)",
                "config.json: unknown property mounts[1].option, ignored (did you mean \"options\"?)",
                "config.json: unknown property mounts[1].xyz, ignored",
                "config.json: unknown property process.Cwd, ignored (did you mean \"cwd\"?)",
                "config.json: unknown property process[\"a~0b~1c\"], ignored",
                "config.json: property windows is for another platform, ignored",
            ]
        );
    }

    #[test]
    fn many_unknown_properties_do_not_fill_the_log() {
        let many: serde_json::Map<_, _> = (0..100).map(|i| (format!("x{i}"), json!(1))).collect();
        let mut config = base();
        config.as_object_mut().unwrap().extend(many);
        let lines = of(&config.to_string());
        assert_eq!(lines.len(), 33);
        assert_eq!(lines[32], "config.json: 68 more unknown properties, ignored");
    }

    #[test]
    fn what_is_unknown_is_skipped_and_shortened() {
        // No type holds these numbers; nobody asks for them.
        let text = with(&[]).replacen('{', "{\"zz\": [1e999, -1e999, {\"a\": 123456789012345678901234567890}], ", 1);
        assert_eq!(of(&text), ["config.json: unknown property zz, ignored"]);
        let long = "k".repeat(10 << 20);
        let lines =
            of(&with(&[("/process/capabilities", json!({"bounding": [long]})), (&format!("/{long}"), json!(1))]));
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.len() < 300), "{lines:?}");
        for change in [
            ("/linux/namespaces/-", json!({"type": long})),
            ("/process/cwd", json!([long])),
            ("/process/oomScoreAdj", json!(long)),
            ("/linux/sysctl", json!({long.clone(): 1})),
        ] {
            let error = planned(&with(&[change])).unwrap_err().to_string();
            assert!(error.len() < 500, "{} bytes", error.len());
        }
    }

    #[test]
    fn a_bind_mount_has_no_options_of_the_file_system() {
        let bind = |options| json!({"destination": "/a", "type": "bind", "source": "/x", "options": options});
        let lines = of(&with(&[("/mounts/-", bind(["bind", "sync"]))]));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("mounts[1].options: sync"), "{lines:?}");
        assert!(
            of(&with(&[("/mounts/-", bind(["bind", "silent"])), ("/mounts/-", bind(["bind", "async"]))])).is_empty()
        );
    }

    #[test]
    fn relative_destinations_and_capabilities_warn() {
        let lines = of(&with(&[
            ("/mounts/-", json!({"destination": "a", "type": "tmpfs"})),
            ("/process/capabilities", json!({"bounding": ["CAP_X"], "effective": ["CAP_KILL"]})),
        ]));
        assert_eq!(
            lines,
            [
                "mounts[1].destination: \"a\" is not an absolute path, taken below \"/\"",
                "process.capabilities.bounding: unknown to the runtime or the kernel, ignored: CAP_X",
                "process.capabilities.effective: not in permitted, cannot be granted, ignored: CAP_KILL",
            ]
        );
        // Each exec reads the same config again.
        let text = with(&[("/process/capabilities", json!({"bounding": ["CAP_X"], "effective": ["CAP_KILL"]}))]);
        for_exec(&text, Path::new("/usr"), &host()).unwrap();
        assert_eq!(LINES.take(), [] as [String; 0]);
    }
}

#[test]
fn the_cgroup_goes_to_the_user_who_may_write_to_its_hierarchy() {
    let mount = |options: &[&str]| json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}]);
    let new = json!([{"type": "mount"}, {"type": "cgroup"}]);
    let in_user = json!([{"type": "mount"}, {"type": "cgroup"}, {"type": "user"}]);
    let maps = json!([{"containerID": 0, "hostID": 5, "size": 2}, {"containerID": 2, "hostID": 1000, "size": 10}]);
    let owner = |namespaces: &Value, mounts: Value, uid: u32| {
        let mut changes = vec![
            ("/hostname", Value::Null),
            ("/linux/namespaces", namespaces.clone()),
            ("/mounts", mounts),
            ("/process/user", json!({"uid": uid, "gid": 0})),
        ];
        if *namespaces == in_user {
            changes.extend([("/linux/uidMappings", maps.clone()), ("/linux/gidMappings", maps.clone())]);
        }
        accept(&changes).cgroup_owner()
    };
    assert_eq!(owner(&new, mount(&["rw"]), 7), Some(7));
    assert_eq!(owner(&new, mount(&["nosuid", "ro"]), 7), None);
    assert_eq!(owner(&new, mount(&["rro"]), 7), None);
    assert_eq!(owner(&new, json!([]), 7), None);
    assert_eq!(owner(&json!([{"type": "mount"}]), mount(&[]), 7), None);
    assert_eq!(owner(&in_user, mount(&[]), 0), Some(5));
    assert_eq!(owner(&in_user, mount(&[]), 4), Some(1002));
}
