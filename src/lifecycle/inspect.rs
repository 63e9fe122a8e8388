//! [parent] state, list and ps: what containers there are, and what they do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use serde::Serialize;

use super::Runtime;
use crate::cli::{self, Listing};
use crate::error::{Context, Error, Kind, Result};
use crate::state::{self, State, Status};

/// What `state` prints and `list --format json` holds, in runc's order.
#[derive(Serialize)]
struct Described<'s> {
    #[serde(rename = "ociVersion")]
    oci_version: &'s str,
    id: &'s str,
    /// 0 when stopped.
    pid: i32,
    status: &'static str,
    bundle: &'s Path,
    rootfs: &'s Path,
    created: &'s str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'s BTreeMap<String, String>,
    owner: &'s str,
}

impl<'s> Described<'s> {
    fn new(state: &'s State, status: Status, owner: &'s str) -> Self {
        Self {
            oci_version: &state.oci_version,
            id: &state.id,
            pid: if status == Status::Stopped { 0 } else { state.pid },
            status: status.word(),
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: &state.created,
            annotations: &state.annotations,
            owner,
        }
    }
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::other(e.to_string()))
}

/// The state of a container as JSON (runtime.md#state).
pub fn state(runtime: &Runtime, id: &str) -> Result<String> {
    let state = runtime.load(id)?;
    let status = state.status(&runtime.root)?;
    to_json(&Described::new(&state, status, "")).map(|text| text + "\n")
}

/// All containers of the root.
pub fn list(runtime: &Runtime, options: &cli::List) -> Result<String> {
    let ids = match state::ids(&runtime.root) {
        // A default root is made by the first container; a given one that is not there is a mistake.
        Err(error) if error.errno() == Some(Errno::ENOENT) && !runtime.is_explicit_root => vec![],
        other => other.doing(|| format!("list {}", runtime.root.display()))?,
    };
    if options.quiet {
        let has_record = |id: &&String| runtime.load(id).is_ok();
        return Ok(ids.iter().filter(has_record).fold(String::new(), |text, id| text + id + "\n"));
    }
    // From within the root, the way to each container begins with its name.
    let root = if std::env::set_current_dir(&runtime.root).is_ok() { Path::new("") } else { &runtime.root };
    let mut owners = Owners::default();
    let mut containers = vec![];
    for id in &ids {
        match state::load(root, id).and_then(|state| Ok((state.status(root)?, state))) {
            Ok((status, state)) => {
                let owner = owners.name(state.owner);
                containers.push((state, status, owner));
            }
            // Deleted while it is listed, or never begun.
            Err(error) if error.kind() == Kind::State => log::debug!("container {id}: {error}"),
            // No failure of the others.
            Err(error) => log::warn!("container {id}: {error}"),
        }
    }
    let text = match options.format {
        // As runc prints an empty list; callers expect it.
        Listing::Json if containers.is_empty() => Ok("null\n".into()),
        Listing::Json => {
            let described: Vec<_> =
                containers.iter().map(|(state, status, owner)| Described::new(state, *status, owner)).collect();
            serde_json::to_string(&described).map(|text| text + "\n").map_err(|e| Error::other(e.to_string()))
        }
        Listing::Table => {
            let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            rows.extend(containers.iter().map(|(state, status, owner)| {
                let pid = if *status == Status::Stopped { 0 } else { state.pid };
                [
                    state.id.clone(),
                    pid.to_string(),
                    status.word().to_owned(),
                    state.bundle.display().to_string(),
                    state.created.clone(),
                    owner.clone(),
                ]
            }));
            Ok(table(&rows))
        }
    };
    // The process ends: a hundred records need not be taken apart.
    std::mem::forget(containers);
    text
}

/// Columns as wide as their widest cell and two spaces.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names of the host's users; /etc/passwd is read when the first is asked for.
#[derive(Default)]
struct Owners(Option<BTreeMap<u32, String>>);

impl Owners {
    fn name(&mut self, uid: u32) -> String {
        let names = self.0.get_or_insert_with(|| {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            let entry = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            };
            passwd.lines().filter_map(entry).collect()
        });
        names.get(&uid).cloned().unwrap_or_else(|| format!("#{uid}"))
    }
}

/// The processes of a container: their PIDs as JSON, or what ps(1) says of them.
pub fn ps(runtime: &Runtime, options: &cli::Ps) -> Result<String> {
    let state = runtime.load(&options.id)?;
    let is_stopped = state.status(&runtime.root)? == Status::Stopped;
    let pids = if is_stopped { vec![] } else { state.cgroup.processes()? };
    if options.format == Listing::Json {
        // As runc prints an empty list.
        return if pids.is_empty() { Ok("null\n".into()) } else { Ok(format!("{pids:?}\n").replace(' ', "")) };
    }
    let arguments = if options.args.is_empty() { vec!["-ef".into()] } else { options.args.clone() };
    let output =
        Command::new("ps").args(&arguments).output().doing(|| "run ps(1)").hint(|| "--format json needs no ps(1)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::other(format!("ps: {}", said.trim().replace('\n', "; "))));
    }
    lines_of(&String::from_utf8_lossy(&output.stdout), &pids)
}

/// The head line of ps(1) and those lines whose column PID is one of `pids`.
fn lines_of(listing: &str, pids: &[i32]) -> Result<String> {
    let mut lines = listing.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| Error::usage("ps(1) prints no column PID with these arguments"))?;
    let mut text = format!("{head}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            // A String takes whatever is written to it.
            let _ = writeln!(text, "{line}");
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ID", "PID"], ["web-server", "7"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "ID          PID\nweb-server  7\n");
    }

    #[test]
    fn ps_is_filtered_by_its_pid_column() {
        let listing = "UID  PID PPID CMD\nroot   1    0 init 7\nroot   7    1 sh\n";
        assert_eq!(lines_of(listing, &[7]).unwrap(), "UID  PID PPID CMD\nroot   7    1 sh\n");
        assert!(lines_of("CMD\nsh\n", &[7]).is_err());
    }
}
