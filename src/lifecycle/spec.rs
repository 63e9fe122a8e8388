//! `spec`: writes a config.json to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};

use crate::cli;
use crate::error::{Context, Error, Result};
use crate::plan::OCI_VERSION;
use crate::sys::mount;

/// Writes config.json, or the file that was named, into the bundle.
///
/// # Errors
/// The file exists, or cannot be made.
pub fn spec(options: &cli::Spec) -> Result<()> {
    let bundle = options.bundle.as_deref().unwrap_or(Path::new("."));
    let path = bundle.join(options.file.as_deref().unwrap_or(Path::new("config.json")));
    let cgroup_v2 = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let user = if options.rootless { Some((geteuid().as_raw(), getegid().as_raw())) } else { None };
    let doing = || format!("write {}", path.display());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
    match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::other("the file exists").hint("remove it first")).doing(doing)
        }
        file => {
            let text = config(user, cgroup_v2, mount::has_set_attributes());
            file.and_then(|mut file| file.write_all(text.as_bytes())).doing(doing)
        }
    }
}

/// A shell on a terminal in the root filesystem `rootfs`, as `runc spec` makes it; with `user` (uid and gid) in a user
/// namespace of that user alone. `has_rro`: the kernel can make a whole tree of mounts read-only.
fn config(user: Option<(u32, u32)>, cgroup_v2: bool, has_rro: bool) -> String {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if cgroup_v2 {
        namespaces.push("cgroup");
    }
    // Without privilege nobody connects a new network namespace, and no limit can be set.
    namespaces.push(if user.is_some() { "user" } else { "network" });
    let namespaces: Vec<String> = namespaces.iter().map(|kind| format!("\t\t\t{{ \"type\": \"{kind}\" }}")).collect();
    let first = match user {
        Some((uid, gid)) => format!(
            "\t\t\"uidMappings\": [{{ \"containerID\": 0, \"hostID\": {uid}, \"size\": 1 }}],\n\
             \t\t\"gidMappings\": [{{ \"containerID\": 0, \"hostID\": {gid}, \"size\": 1 }}],\n"
        ),
        None => "\t\t\"resources\": {\n\t\t\t\"devices\": [{ \"allow\": false, \"access\": \"rwm\" }]\n\t\t},\n".into(),
    };
    // A new sysfs needs a network namespace of the user's own; `ro` would leave what is mounted on the host's writable; group 5
    // (tty) is not mapped.
    let (sys, pts_group) = match user {
        Some(_) if has_rro => {
            (r#""type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "rro"]"#, "")
        }
        Some(_) => (r#""type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]"#, ""),
        None => {
            (r#""type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]"#, r#", "gid=5""#)
        }
    };
    TEMPLATE
        .replace("@VERSION@", OCI_VERSION)
        .replace("@SYS@", sys)
        .replace("@PTS_GROUP@", pts_group)
        .replace("@MAPPINGS_OR_RESOURCES@", &first)
        .replace("@NAMESPACES@", &namespaces.join(",\n"))
}

const TEMPLATE: &str = r#"{
	"ociVersion": "@VERSION@",
	"process": {
		"terminal": true,
		"user": { "uid": 0, "gid": 0 },
		"args": ["sh"],
		"env": [
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm"
		],
		"cwd": "/",
		"capabilities": {
			"bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
			"effective": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
			"permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
		},
		"rlimits": [
			{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }
		],
		"noNewPrivileges": true
	},
	"root": { "path": "rootfs", "readonly": true },
	"hostname": "kelson",
	"mounts": [
		{ "destination": "/proc", "type": "proc", "source": "proc" },
		{ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
		{ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"@PTS_GROUP@] },
		{ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
		{ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
		{ "destination": "/sys", @SYS@ },
		{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
	],
	"linux": {
@MAPPINGS_OR_RESOURCES@		"namespaces": [
@NAMESPACES@
		],
		"maskedPaths": [
			"/proc/acpi",
			"/proc/asound",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/proc/sched_debug",
			"/proc/scsi",
			"/sys/firmware",
			"/sys/devices/virtual/powercap"
		],
		"readonlyPaths": [
			"/proc/bus",
			"/proc/fs",
			"/proc/irq",
			"/proc/sys",
			"/proc/sysrq-trigger"
		]
	}
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(user: Option<(u32, u32)>, cgroup_v2: bool) -> Value {
        let text = config(user, cgroup_v2, true);
        assert!(!text.contains('@'), "{text}");
        // The vocabulary reads it too.
        serde_json::from_str::<oci_spec::runtime::Spec>(&text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn namespaces(config: &Value) -> Vec<&str> {
        config["linux"]["namespaces"].as_array().unwrap().iter().map(|ns| ns["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_config_for_root_has_its_own_network_and_denies_devices() {
        assert_eq!(namespaces(&read(None, false)), ["pid", "ipc", "uts", "mount", "network"]);
        let config = read(None, true);
        assert_eq!(namespaces(&config), ["pid", "ipc", "uts", "mount", "cgroup", "network"]);
        assert_eq!(config["linux"]["resources"], json!({"devices": [{"allow": false, "access": "rwm"}]}));
        assert_eq!(config["mounts"][5]["type"], "sysfs");
        assert!(config["mounts"][2]["options"].as_array().unwrap().contains(&"gid=5".into()));
    }

    #[test]
    fn a_rootless_config_maps_the_caller_to_root() {
        let config = read(Some((1000, 1001)), true);
        assert_eq!(namespaces(&config), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        let linux = &config["linux"];
        assert_eq!(linux["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
        assert_eq!(linux["gidMappings"], json!([{"containerID": 0, "hostID": 1001, "size": 1}]));
        assert!(linux.get("resources").is_none());
        let older = super::config(Some((1000, 1001)), true, false);
        assert!(older.contains(r#"["rbind", "nosuid", "noexec", "nodev", "ro"]"#));
        assert_eq!(config["mounts"][5]["options"], json!(["rbind", "nosuid", "noexec", "nodev", "rro"]));
        assert!(!config["mounts"].to_string().contains("gid="));
    }

    #[test]
    fn it_is_a_plan_without_a_warning() {
        for user in [None, Some((1000, 1001))] {
            let host = crate::plan::Host {
                rootless: user.is_some(),
                last_capability: 40,
                apparmor: || false,
                selinux: || false,
            };
            let bundle = std::env::temp_dir().join(format!("kelson-spec-{}", std::process::id()));
            std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
            let plan = crate::plan::plan(&config(user, true, true), &bundle, &host, &crate::plan::Overrides::default());
            std::fs::remove_dir_all(&bundle).unwrap();
            assert!(plan.unwrap().process.is_some_and(|process| process.terminal));
        }
    }

    #[test]
    fn a_file_that_exists_is_left_alone() {
        let bundle = std::env::temp_dir().join(format!("kelson-spec-file-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).unwrap();
        let options = |file: Option<&str>| cli::Spec {
            bundle: Some(bundle.clone()),
            rootless: false,
            file: file.map(Into::into),
        };
        let outcomes = [spec(&options(None)), spec(&options(None)), spec(&options(Some("other.json")))];
        let text = std::fs::read_to_string(bundle.join("other.json"));
        std::fs::remove_dir_all(&bundle).unwrap();
        let [Ok(()), Err(error), Ok(())] = outcomes else { panic!("{outcomes:?}") };
        assert!(error.to_string().ends_with("config.json: the file exists (remove it first)"), "{error}");
        assert!(text.unwrap().starts_with("{\n\t\"ociVersion\""));
        let nowhere = cli::Spec { bundle: Some("/nonexistent".into()), rootless: false, file: None };
        assert!(spec(&nowhere).is_err());
    }
}
