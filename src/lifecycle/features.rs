//! `features`: what this runtime supports, for engines to read (features.md, features-linux.md). It claims only what works.

use oci_spec::runtime::{
    Apparmor, Cgroup, Features, IDMap, IntelRdt, LinuxFeature, LinuxNamespaceType, MemoryPolicy, MountExtensions,
    NetDevices, Seccomp, Selinux,
};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::plan::{self, OCI_VERSION};
use crate::security::seccomp::{Action, Arch, Operator};
use crate::sys::seccomp::knows_flags;

/// The commit that this binary was built from, if the build said so.
pub const COMMIT: &str = match option_env!("KELSON_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Modes and flags of `linux.memoryPolicy`.
const MEMORY_POLICY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MEMORY_POLICY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Flags of `linux.seccomp` and what the kernel must know for each: it takes the last one only for a listener.
const SECCOMP_FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ),
];

/// The features document as indented JSON, with a newline at its end.
pub fn features() -> Result<String> {
    let mut features = Features::default();
    features
        .set_oci_version_min("1.0.0".into())
        .set_oci_version_max(OCI_VERSION.into())
        .set_hooks(Some(texts(HOOKS)))
        .set_mount_options(Some(texts(plan::mount_options())))
        .set_linux(Some(linux()?))
        .set_annotations(Some(
            [("org.kelson.commit", COMMIT), ("org.kelson.version", env!("CARGO_PKG_VERSION"))]
                .map(|(key, value)| (key.into(), value.into()))
                .into(),
        ))
        // These name directories of the host to be mounted, and properties of a unit of the host; an engine must not take them from
        // an image or a user.
        .set_potentially_unsafe_config_annotations(Some(texts(["org.kelson.overlay.", "org.systemd.property."])));
    // By way of a value: annotations are kept in a map without an order.
    let text = serde_json::to_value(&features).and_then(|value| serde_json::to_string_pretty(&value));
    text.map(|text| text + "\n").map_err(|error| Error::other(error.to_string()))
}

fn linux() -> Result<LinuxFeature> {
    let mut cgroup = Cgroup::default();
    cgroup
        .set_v1(Some(true))
        .set_v2(Some(true))
        .set_systemd(Some(true))
        .set_systemd_user(Some(true))
        .set_rdma(Some(true));

    let mut seccomp = Seccomp::default();
    seccomp
        .set_enabled(Some(true))
        .set_actions(Some(named(Action::NAMES.map(|(name, _)| name))?))
        .set_operators(Some(texts(Operator::NAMES.map(|(name, _)| name))))
        .set_archs(Some(named(Arch::NAMES.map(|(name, _)| name))?))
        .set_known_flags(Some(texts(SECCOMP_FLAGS.map(|(name, _)| name))))
        .set_supported_flags(Some(texts(
            SECCOMP_FLAGS.iter().filter(|(_, flags)| knows_flags(*flags)).map(|(name, _)| *name),
        )));

    let mut memory_policy = MemoryPolicy::default();
    memory_policy.set_modes(Some(texts(MEMORY_POLICY_MODES))).set_flags(Some(texts(MEMORY_POLICY_FLAGS)));
    let mut apparmor = Apparmor::default();
    apparmor.set_enabled(Some(true));
    let mut selinux = Selinux::default();
    selinux.set_enabled(Some(true));
    let mut intel_rdt = IntelRdt::default();
    intel_rdt.set_enabled(Some(false));
    let mut net_devices = NetDevices::default();
    net_devices.set_enabled(Some(true));
    let mut id_map = IDMap::default();
    id_map.set_enabled(Some(true));
    let mut mount_extensions = MountExtensions::default();
    mount_extensions.set_idmap(Some(id_map));

    use LinuxNamespaceType::{Cgroup as CgroupNs, Ipc, Mount, Network, Pid, Time, User, Uts};
    let mut linux = LinuxFeature::default();
    linux
        .set_namespaces(Some(vec![CgroupNs, Ipc, Mount, Network, Pid, Time, User, Uts]))
        .set_capabilities(Some(texts(plan::CAPABILITIES)))
        .set_cgroup(Some(cgroup))
        .set_seccomp(Some(seccomp))
        .set_apparmor(Some(apparmor))
        .set_selinux(Some(selinux))
        .set_intel_rdt(Some(intel_rdt))
        .set_memory_policy(Some(memory_policy))
        .set_mount_extensions(Some(mount_extensions))
        .set_net_devices(Some(net_devices));
    Ok(linux)
}

fn texts(names: impl IntoIterator<Item = &'static str>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

/// The vocabulary's words for `names`.
fn named<T: DeserializeOwned>(names: impl IntoIterator<Item = &'static str>) -> Result<Vec<T>> {
    let word = |name: &str| serde_json::from_value(name.into()).map_err(|error| Error::other(error.to_string()));
    names.into_iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn document() -> Value {
        serde_json::from_str(&features().unwrap()).unwrap()
    }

    #[test]
    fn engines_find_what_they_look_for() {
        let found = document();
        let has = |list: &str, name: &str| found.pointer(list).unwrap().as_array().unwrap().contains(&name.into());
        // containerd: user namespaces, recursive read-only mounts, idmapped mounts.
        assert!(has("/linux/namespaces", "user") && has("/linux/namespaces", "time"));
        assert!(has("/mountOptions", "rro") && has("/mountOptions", "idmap") && has("/mountOptions", "ridmap"));
        assert_eq!(found.pointer("/linux/mountExtensions/idmap/enabled"), Some(&true.into()));
        assert_eq!(found.pointer("/linux/cgroup/systemd"), Some(&true.into()));
        assert_eq!(found.pointer("/linux/cgroup/systemdUser"), Some(&true.into()));
        assert_eq!(found.pointer("/linux/intelRdt/enabled"), Some(&false.into()));
        for (list, count) in [
            ("/hooks", 6),
            ("/mountOptions", 62),
            ("/linux/namespaces", 8),
            ("/linux/capabilities", 41),
            ("/linux/seccomp/actions", 9),
            ("/linux/seccomp/operators", 7),
            ("/linux/seccomp/archs", 23),
            ("/linux/seccomp/knownFlags", 4),
        ] {
            assert_eq!(found.pointer(list).unwrap().as_array().unwrap().len(), count, "{list}");
        }
        assert!(has("/linux/seccomp/archs", "SCMP_ARCH_MIPS64N32") && has("/linux/seccomp/archs", "SCMP_ARCH_X86_64"));
    }

    #[test]
    fn every_call_prints_the_same_and_nothing_is_null() {
        assert_eq!(features().unwrap(), features().unwrap());
        assert!(!features().unwrap().contains("null"));
    }

    /// What is claimed here is accepted there.
    #[test]
    fn a_config_may_use_every_name_that_is_claimed() {
        let host = plan::Host { rootless: false, last_capability: 40, apparmor: || false, selinux: || false };
        let accepts = |linux: Value| {
            let namespaces = json!([{"type": "mount"}]);
            let mut config = json!({"ociVersion": OCI_VERSION, "root": {"path": "/"}, "linux": linux});
            config["linux"]["namespaces"] = namespaces;
            let text = config.to_string();
            plan::plan(&text, std::path::Path::new("/"), &host, &plan::Overrides::default()).map(drop)
        };
        for mode in MEMORY_POLICY_MODES {
            let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode) { "" } else { "0" };
            accepts(json!({"memoryPolicy": {"mode": mode, "nodes": nodes}})).unwrap();
        }
        for flag in MEMORY_POLICY_FLAGS {
            accepts(json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}})).unwrap();
        }
        for (flag, _) in SECCOMP_FLAGS {
            let syscalls = match flag {
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]),
                _ => json!([]),
            };
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag], "syscalls": syscalls,
                                 "listenerPath": "/run/listener"});
            accepts(json!({"seccomp": profile})).unwrap();
        }
    }
}
