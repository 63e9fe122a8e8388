//! `linux.cgroupsPath` as the systemd driver reads it, `slice:prefix:name`, and where systemd has a unit's cgroup. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The unit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `kelson-ID.scope`, or a name that ends in `.slice`.
    pub name: String,
    /// The slice that it is in: `system.slice`, `machine-qemu.slice`; `-.slice` is the root.
    pub slice: String,
    /// Of the manager that runs in the caller's session.
    pub is_user: bool,
    /// The container's id.
    pub container: String,
    /// Number of its cgroup, which no later one has until the next boot; `None` until that is there.
    pub inode: Option<u64>,
}

const PROPERTY: &str = "linux.cgroupsPath";
const FORM: &str = "with the systemd driver it is \"slice:prefix:name\", such as \"system.slice:kelson:web\"";

/// Names of units end here (UNIT_NAME_MAX of systemd).
const MAX_NAME: usize = 255;

impl Unit {
    /// The unit that `cgroups_path` names, or else that of container `id`.
    ///
    /// # Errors
    /// Another form than `slice:prefix:name`, or a name that systemd does not take.
    pub fn of(cgroups_path: Option<&str>, id: &str, is_user: bool) -> Result<Self> {
        let default_slice = if is_user { "user.slice" } else { "system.slice" };
        let Some(path) = cgroups_path.filter(|path| !path.is_empty()) else {
            // Of the characters of an id systemd does not take this one (systemd-escape(1)).
            let name = checked_name(format!("kelson-{}.scope", id.replace('+', "\\x2b")))?;
            return Ok(Self { name, slice: default_slice.into(), is_user, container: id.into(), inode: None });
        };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else {
            return Err(Error::config(PROPERTY, format!("{path:?} has not three parts")).hint(FORM));
        };
        if name.is_empty() {
            return Err(Error::config(PROPERTY, format!("{path:?} names no unit")).hint(FORM));
        }
        let slice = match *slice {
            "" => default_slice.to_owned(),
            "-" => ROOT_SLICE.to_owned(),
            slice => slice.to_owned(),
        };
        expand(&slice)?;
        let name = if is_slice(name) { (*name).to_owned() } else { format!("{prefix}-{name}.scope") };
        let unit = Self { name: checked_name(name)?, slice, is_user, container: id.into(), inode: None };
        if unit.is_slice() {
            expand(&unit.name)?;
        }
        Ok(unit)
    }

    /// Its description, which tells it from another container's unit of the same name.
    pub fn description(&self) -> String {
        format!("kelson container {}", self.container)
    }

    /// It is a slice and no scope.
    pub fn is_slice(&self) -> bool {
        is_slice(&self.name)
    }

    /// Its cgroup below that of the manager: absolute.
    pub fn cgroup(&self) -> Result<PathBuf> {
        // The place of a slice follows from its own name.
        if self.is_slice() { expand(&self.name) } else { Ok(expand(&self.slice)?.join(escaped(&self.name))) }
    }
}

const ROOT_SLICE: &str = "-.slice";

fn is_slice(name: &str) -> bool {
    name.ends_with(".slice")
}

fn checked_name(name: String) -> Result<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if let Some(character) = name.chars().find(|c| !allowed(*c)) {
        let cause = format!("no unit can be called {name:?}, because of {character:?}");
        return Err(Error::config(PROPERTY, cause).hint("systemd-escape(1) tells how to write it"));
    }
    if name.len() > MAX_NAME {
        let cause = format!("{name:?} is longer than the {MAX_NAME} characters that a unit's name may have");
        return Err(Error::config(PROPERTY, cause).hint("a shorter id, or a name in linux.cgroupsPath"));
    }
    Ok(name)
}

/// The cgroup of a slice: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn expand(slice: &str) -> Result<PathBuf> {
    let refuse = || Err(Error::config(PROPERTY, format!("{slice:?} is not the name of a slice")).hint(FORM));
    let Some(stem) = slice.strip_suffix(".slice").filter(|stem| !stem.is_empty() && !stem.contains('/')) else {
        return refuse();
    };
    let mut path = PathBuf::from("/");
    if slice == ROOT_SLICE {
        return Ok(path);
    }
    checked_name(slice.to_owned())?;
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        let above = &stem[..end];
        if above.is_empty() || above.ends_with('-') {
            return refuse();
        }
        path.push(escaped(&format!("{above}.slice")));
    }
    Ok(path)
}

/// Controllers that systemd knows, whose files a cgroup's name must not look like.
const CONTROLLERS: [&str; 9] = ["cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids", "bpf-firewall"];

/// The directory of a unit: one that could be taken for a control file has an underscore before it (`cg_escape` of systemd).
fn escaped(name: &str) -> String {
    let is_file_of = |controller: &str| name.strip_prefix(controller).is_some_and(|rest| rest.starts_with('.'));
    let looks_like_a_file =
        name.starts_with(['_', '.']) || is_file_of("cgroup") || CONTROLLERS.iter().any(|c| is_file_of(c));
    if looks_like_a_file { format!("_{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_path_names_a_unit_and_its_cgroup() {
        for (path, is_user, name, slice, cgroup) in [
            ("", false, "kelson-a\\x2bb.scope", "system.slice", "/system.slice/kelson-a\\x2bb.scope"),
            ("", true, "kelson-a\\x2bb.scope", "user.slice", "/user.slice/kelson-a\\x2bb.scope"),
            ("system.slice:kelson:web", false, "kelson-web.scope", "system.slice", "/system.slice/kelson-web.scope"),
            (":libpod:c1", false, "libpod-c1.scope", "system.slice", "/system.slice/libpod-c1.scope"),
            (":libpod:c1", true, "libpod-c1.scope", "user.slice", "/user.slice/libpod-c1.scope"),
            ("-:p:n", false, "p-n.scope", "-.slice", "/p-n.scope"),
            ("-.slice:p:n", false, "p-n.scope", "-.slice", "/p-n.scope"),
            (
                "kubepods-besteffort-pod_1.slice:cri-containerd:abc",
                false,
                "cri-containerd-abc.scope",
                "kubepods-besteffort-pod_1.slice",
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod_1.slice/cri-containerd-abc.scope",
            ),
            ("system.slice::n", false, "-n.scope", "system.slice", "/system.slice/-n.scope"),
            ("system.slice:p:a-b.slice", false, "a-b.slice", "system.slice", "/a.slice/a-b.slice"),
            (
                "system.slice:memory.high:n",
                false,
                "memory.high-n.scope",
                "system.slice",
                "/system.slice/_memory.high-n.scope",
            ),
            ("cpu.slice:_p:n", false, "_p-n.scope", "cpu.slice", "/_cpu.slice/__p-n.scope"),
        ] {
            let unit = Unit::of(Some(path), "a+b", is_user).unwrap();
            assert_eq!((unit.name.as_str(), unit.slice.as_str()), (name, slice), "{path}");
            assert_eq!(unit.cgroup().unwrap(), Path::new(cgroup), "{path}");
        }
    }

    #[test]
    fn what_is_no_unit_is_refused_with_the_form_that_is_wanted() {
        for (path, cause) in [
            ("/a/b", "\"/a/b\" has not three parts"),
            ("system.slice:a", "\"system.slice:a\" has not three parts"),
            ("a:b:c:d", "\"a:b:c:d\" has not three parts"),
            ("system.slice:p:", "\"system.slice:p:\" names no unit"),
            ("system:p:n", "\"system\" is not the name of a slice"),
            (".slice:p:n", "\".slice\" is not the name of a slice"),
            ("a/b.slice:p:n", "\"a/b.slice\" is not the name of a slice"),
            ("-a.slice:p:n", "\"-a.slice\" is not the name of a slice"),
            ("a--b.slice:p:n", "\"a--b.slice\" is not the name of a slice"),
            ("a-.slice:p:n", "\"a-.slice\" is not the name of a slice"),
            ("a.slice:p:b--c.slice", "\"b--c.slice\" is not the name of a slice"),
            ("a.slice:p:n/../m", "no unit can be called \"p-n/../m.scope\", because of '/'"),
            ("a.slice:p:n m", "no unit can be called \"p-n m.scope\", because of ' '"),
        ] {
            let error = Unit::of(Some(path), "id", false).unwrap_err();
            assert_eq!(error.property(), Some(PROPERTY), "{path}");
            assert!(error.to_string().contains(cause), "{path}: {error}");
        }
        let error = Unit::of(None, &"x".repeat(243), false).unwrap_err().to_string();
        assert!(error.contains("longer than the 255 characters"), "{error}");
        assert!(Unit::of(None, &"x".repeat(242), false).is_ok());
    }
}
