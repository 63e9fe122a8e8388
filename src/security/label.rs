//! [init] AppArmor profile and SELinux label of what is executed next.

use std::path::Path;

use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::plan::Process;
use crate::rootfs::procfs::Proc;

/// Writes the labels through a procfs that is known to be one (CVE-2019-16884).
pub fn apply(process: &Process, proc: &Proc) -> Result<()> {
    if let Some(label) = &process.selinux_label {
        write(proc, "attr/exec", label).property(|| "process.selinuxLabel")?;
    }
    if let Some(profile) = &process.apparmor_profile {
        let value = format!("exec {profile}");
        // attr/apparmor since 5.8: beside other LSMs, attr/exec is not AppArmor's.
        let written = match write(proc, "attr/apparmor/exec", &value) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => write(proc, "attr/exec", &value),
            other => other,
        };
        written.property(|| "process.apparmorProfile").hint(|| "is the profile loaded? see aa-status(8)")?;
    }
    Ok(())
}

/// Labels the keys that the next session keyring is made with.
pub fn apply_to_keyring(process: &Process, proc: &Proc) -> Result<()> {
    match &process.selinux_label {
        Some(label) => write(proc, "attr/keycreate", label).property(|| "process.selinuxLabel"),
        None => Ok(()),
    }
}

fn write(proc: &Proc, file: &str, value: &str) -> Result<()> {
    let path = Path::new("self").join(file);
    // The quotes around the path are what podman looks for in an error of a label.
    proc.write(&path, value).doing(|| format!("write {value:?} to `/proc/self/{file}`"))
}
