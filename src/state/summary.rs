//! What `list` shows of a container: a part of its record, which stays in the text that was read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use nix::errno::Errno;
use serde::Deserialize;

use super::life::Life;
use super::{State, Status, check_format, missing, parse, read_text};
use crate::cgroup;
use crate::error::Result;
use crate::sys::fd::Done;

/// A [`State`] without what `list` has no use for: a hundred of those take longer to parse than all that the kernel is asked.
#[derive(Deserialize)]
pub struct Summary<'t> {
    format: u32,
    #[serde(borrow)]
    pub id: Cow<'t, str>,
    #[serde(borrow)]
    pub oci_version: Cow<'t, str>,
    #[serde(borrow)]
    pub bundle: Cow<'t, str>,
    #[serde(borrow)]
    pub rootfs: Cow<'t, str>,
    #[serde(borrow)]
    pub created: Cow<'t, str>,
    pub owner: u32,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    creating: bool,
    pub pid: i32,
    start_time: u64,
    #[serde(default)]
    pidfd_inode: Option<u64>,
    #[serde(default = "State::waits")]
    waits_for_start: bool,
    #[serde(borrow)]
    cgroup: cgroup::Freezer<'t>,
}

/// Looks at one container after another.
pub struct Survey<'r> {
    root: &'r Path,
    text: Vec<u8>,
    freezers: cgroup::Freezers,
    done: Done,
}

impl<'r> Survey<'r> {
    pub fn new(root: &'r Path) -> Self {
        Self { root, text: vec![], freezers: cgroup::Freezers::default(), done: Done::default() }
    }

    /// What `show` makes of container `id` and its status.
    ///
    /// # Errors
    /// A state error "does not exist" if there is no such container.
    pub fn look<T>(&mut self, id: &str, show: impl FnOnce(&Summary<'_>, Status) -> T) -> Result<T> {
        let Self { root, text, freezers, done } = self;
        let dir = root.join(id);
        let shown = match read_text(&dir, &dir, text, done).and_then(|()| parse::<Summary<'_>>(&dir, text)) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Err(missing(id)),
            other => other?,
        };
        check_format(&dir, shown.format)?;
        let status = shown.life().status(root, done, |done| freezers.is_frozen(&shown.cgroup, done))?;
        Ok(show(&shown, status))
    }
}

impl Summary<'_> {
    fn life(&self) -> Life<'_> {
        Life {
            id: &self.id,
            creating: self.creating,
            pid: self.pid,
            start_time: self.start_time,
            pidfd_inode: self.pidfd_inode,
            waits_for_start: self.waits_for_start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an earlier Kelson wrote it, with an escape in it.
    const RECORD: &str = r#"{"format":1,"id":"web","oci_version":"1.0.2","bundle":"/b \"1\"","rootfs":"/b/rootfs",
        "created":"2026-11-27T03:00:46.662453892Z","owner":7,"annotations":{"a":"b"},"creating":false,"pid":42,
        "start_time":99,"namespaces":0,"pid_namespace_is_new":true,"startable":true,"cgroup":{"driver":"cgroupfs",
        "version":"v2","places":{"":{"mount_point":"/c","path":"/c/web"}},"made":[],"ready":true,"rootless":false}}"#;

    #[test]
    fn a_summary_tells_what_the_record_tells() {
        let state: State = serde_json::from_str(RECORD).unwrap();
        let summary: Summary<'_> = serde_json::from_str(RECORD).unwrap();
        assert_eq!((&*summary.id, &*summary.oci_version, &*summary.created), ("web", "1.0.2", &*state.created));
        assert_eq!((Path::new(&*summary.bundle), Path::new(&*summary.rootfs)), (&*state.bundle, &*state.rootfs));
        assert_eq!((summary.owner, &summary.annotations), (7, &state.annotations));
        let (of_summary, of_state) = (summary.life(), state.life());
        assert_eq!((of_summary.pid, of_summary.start_time, of_summary.pidfd_inode), (42, 99, None));
        assert_eq!((of_state.pid, of_state.start_time, of_state.pidfd_inode), (42, 99, None));
        assert!(of_summary.waits_for_start && of_state.waits_for_start);
    }
}
