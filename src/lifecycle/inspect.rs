//! [parent] state, list and ps: what containers there are, and what they do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::{Runtime, wait};
use crate::cli::{self, Listing};
use crate::ended::{Ended, Shown};
use crate::error::{Context, Error, Kind, Result};
use crate::state::{Status, Summary, Survey};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Shown<'s>>,
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::other(e.to_string()))
}

/// The state of a container as JSON (runtime.md#state); `verbose` adds how a stopped one ended.
pub fn state(runtime: &Runtime, id: &str, verbose: bool) -> Result<String> {
    let state = runtime.load(id)?;
    let status = state.status(&runtime.root)?;
    let is_told = verbose && status == Status::Stopped;
    let ended = is_told.then(|| wait::of_stopped(runtime, &state)).transpose()?;
    let described = Described {
        oci_version: &state.oci_version,
        id: &state.id,
        pid: shown_pid(state.pid, status),
        status: status.word(),
        bundle: &state.bundle,
        rootfs: &state.rootfs,
        created: &state.created,
        annotations: &state.annotations,
        owner: "",
        ended: ended.as_ref().map(Ended::shown),
    };
    to_json(&described).map(|text| text + "\n")
}

/// The PID of a stopped container is none any more.
fn shown_pid(pid: i32, status: Status) -> i32 {
    if status == Status::Stopped { 0 } else { pid }
}

/// All containers of the root.
pub fn list(runtime: &Runtime, options: &cli::List) -> Result<String> {
    let ids = runtime.ids()?;
    if options.quiet {
        let has_record = |id: &&String| runtime.load(id).is_ok();
        return Ok(ids.iter().filter(has_record).fold(String::new(), |text, id| text + id + "\n"));
    }
    // From within the root, the way to each container begins with its name.
    let root = if std::env::set_current_dir(&runtime.root).is_ok() { Path::new("") } else { &runtime.root };
    let mut owners = Owners::default();
    let mut listed = match options.format {
        Listing::Json => Listed::Json(vec![]),
        Listing::Table => Listed::Table(Table::new(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"])),
    };
    let mut survey = Survey::new(root);
    for id in &ids {
        match survey.look(id, |shown, status| listed.add(shown, status, &mut owners)) {
            Ok(added) => added?,
            // Deleted while it is listed, or never begun.
            Err(error) if error.kind() == Kind::State => log::debug!("container {id}: {error}"),
            // No failure of the others.
            Err(error) => log::warn!("container {id}: {error}"),
        }
    }
    Ok(listed.finish())
}

/// The listing so far.
enum Listed {
    /// A JSON object for each.
    Json(Vec<String>),
    Table(Table<6>),
}

impl Listed {
    fn add(&mut self, shown: &Summary<'_>, status: Status, owners: &mut Owners) -> Result<()> {
        let pid = shown_pid(shown.pid, status);
        let owner = owners.name(shown.owner);
        match self {
            Self::Json(objects) => {
                let described = Described {
                    oci_version: &shown.oci_version,
                    id: &shown.id,
                    pid,
                    status: status.word(),
                    bundle: Path::new(&*shown.bundle),
                    rootfs: Path::new(&*shown.rootfs),
                    created: &shown.created,
                    annotations: &shown.annotations,
                    owner,
                    ended: None,
                };
                objects.push(serde_json::to_string(&described).map_err(|error| Error::other(error.to_string()))?);
            }
            Self::Table(table) => {
                table.add([&shown.id, &pid.to_string(), status.word(), &shown.bundle, &shown.created, owner]);
            }
        }
        Ok(())
    }

    fn finish(self) -> String {
        match self {
            // As runc prints an empty list; callers expect it.
            Self::Json(objects) if objects.is_empty() => "null\n".into(),
            Self::Json(objects) => format!("[{}]\n", objects.join(",")),
            Self::Table(table) => table.print(),
        }
    }
}

/// Rows of `N` cells, one after the other in one text: a hundred containers are six hundred cells.
struct Table<const N: usize> {
    text: String,
    /// Where each cell ends in the text.
    ends: Vec<usize>,
    /// Of the widest cell of each column, in characters.
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    fn new(head: [&str; N]) -> Self {
        let mut table = Self { text: String::new(), ends: vec![], widths: [0; N] };
        table.add(head);
        table
    }

    fn add(&mut self, cells: [&str; N]) {
        for (cell, width) in cells.into_iter().zip(&mut self.widths) {
            self.text.push_str(cell);
            self.ends.push(self.text.len());
            *width = cell.chars().count().max(*width);
        }
    }

    /// Columns as wide as their widest cell and two spaces.
    fn print(&self) -> String {
        let mut printed =
            String::with_capacity(self.ends.len() / N * self.widths.iter().map(|width| width + 2).sum::<usize>());
        let mut begin = 0;
        for (i, end) in self.ends.iter().enumerate() {
            let cell = &self.text[begin..*end];
            begin = *end;
            printed.push_str(cell);
            if i % N < N - 1 {
                let padding = self.widths[i % N] - cell.chars().count() + 2;
                printed.extend(std::iter::repeat_n(' ', padding));
            } else {
                printed.truncate(printed.trim_end_matches(' ').len());
                printed.push('\n');
            }
        }
        printed
    }
}

/// Names of the host's users; /etc/passwd is read when the first is asked for.
#[derive(Default)]
struct Owners(Option<BTreeMap<u32, String>>);

impl Owners {
    fn name(&mut self, uid: u32) -> &str {
        let names = self.0.get_or_insert_with(|| {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            let entry = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            };
            passwd.lines().filter_map(entry).collect()
        });
        names.entry(uid).or_insert_with(|| format!("#{uid}"))
    }
}

/// The processes of a container: their PIDs as JSON, or what ps(1) says of them.
pub fn ps(runtime: &Runtime, options: &cli::Ps) -> Result<String> {
    let state = runtime.load(&options.id)?;
    let is_stopped = state.status(&runtime.root)? == Status::Stopped;
    if !is_stopped && !state.cgroup.has_cgroup() {
        return Err(Error::state("the container has no cgroup that tells which processes are its own")
            .hint("state gives the PID of its first process"));
    }
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
    for line in lines.filter(|line| !line.is_empty()) {
        let word = line.split_whitespace().nth(column).unwrap_or_default();
        // A column before it, such as lstart, is more than one word.
        let pid: i32 = word.parse().map_err(|_| {
            Error::usage(format!("ps(1) prints {word:?} where PID is expected")).hint("make pid the first column")
        })?;
        if pids.contains(&pid) {
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
        let mut table = Table::new(["ID", "PID", "OWNER"]);
        table.add(["wéb-server", "7", "root"]);
        table.add(["x", "", ""]);
        assert_eq!(table.print(), "ID          PID  OWNER\nwéb-server  7    root\nx\n");
    }

    #[test]
    fn ps_is_filtered_by_its_pid_column() {
        let listing = "UID  PID PPID CMD\nroot   1    0 init 7\nroot   7    1 sh\n";
        assert_eq!(lines_of(listing, &[7]).unwrap(), "UID  PID PPID CMD\nroot   7    1 sh\n");
        assert!(lines_of("CMD\nsh\n", &[7]).is_err());
        assert!(lines_of("STARTED PID\nFri Nov 27 7\n", &[7]).is_err());
    }
}
