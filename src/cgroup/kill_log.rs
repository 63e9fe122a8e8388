//! What the kernel logged of processes that it killed for memory (mm/oom_kill.c `oom_kill_process`): all that tells of a cgroup
//! that is gone. Of more than ten kills in five seconds it logs no more than the last line.
//!
//! ```text
//! sh invoked oom-killer: …
//! memory: usage 102400kB, limit 102400kB, failcnt 20                  of the cgroup whose limit was reached
//! Tasks state (memory values in pages):                               vm.oom_dump_tasks: all that could be chosen
//! [  pid  ]   uid  tgid total_vm …
//! [      7]     0     7     4210 …
//! oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a,task_memcg=/a/b,task=sh,pid=7,uid=0
//! Tasks in /a are going to be killed due to memory.oom.group set      if it is
//! Memory cgroup out of memory: Killed process 7 (sh) total-vm:…       for each one
//! ```

use crate::sys::kernel_log;

/// How the lines begin.
const USAGE: &str = "memory: usage ";
const TASKS: &str = "Tasks state ";
const TASK: &str = "[";
const CHOSEN: &str = "oom-kill:";
const KILLED: &str = "Memory cgroup out of memory: Killed process ";

/// A kill that the kernel logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The cgroup whose limit was reached, below the mount point; `None`: the host had no memory left.
    pub limit: Option<String>,
    pub pid: i32,
    pub name: String,
    /// That limit, and how much was in use.
    pub limit_and_usage: Option<(u64, u64)>,
    /// The container's first process was killed or could have been: it is no earlier container's.
    pub is_of_first: bool,
}

/// The kills in `cgroup`, a path below the mount point, and below it; oldest first. `first` is the container's first process.
/// `None` if the log cannot be read: it is for root alone, as a rule.
pub fn kills(cgroup: &str, first: i32) -> Option<Vec<Kill>> {
    let messages = kernel_log::messages(&[USAGE, TASKS, TASK, CHOSEN, KILLED]).ok()?;
    Some(read(&messages, cgroup, first))
}

fn read(messages: &[String], cgroup: &str, first: i32) -> Vec<Kill> {
    let mut kills: Vec<Kill> = vec![];
    let (mut limit_and_usage, mut lists_first) = (None, false);
    // One of this cgroup was the last that was chosen.
    let mut is_own = false;
    for message in messages {
        if let Some(sizes) = message.strip_prefix(USAGE) {
            limit_and_usage = parse_sizes(sizes);
        } else if message.starts_with(TASKS) {
            lists_first = false;
        } else if let Some(task) = message.strip_prefix(TASK) {
            lists_first |= process_of(task) == Some(first);
        } else if let Some(process) = message.strip_prefix(KILLED) {
            // With the one that was chosen, for memory.oom.group.
            if let Some(kill) = kills.last().filter(|kill| is_own && kill.pid != first).cloned()
                && let Some((pid, name)) = parse_killed(process)
                && pid == first
            {
                kills.push(Kill { pid, name: name.to_owned(), is_of_first: true, ..kill });
            }
        } else {
            let chosen = parse_chosen(message, cgroup);
            is_own = chosen.is_some();
            let (is_listed, sizes) = (std::mem::take(&mut lists_first), limit_and_usage.take());
            kills.extend(chosen.map(|kill| Kill {
                limit_and_usage: sizes.filter(|_| kill.limit.is_some()),
                is_of_first: is_listed || kill.pid == first,
                ..kill
            }));
        }
    }
    kills
}

/// `102400kB, limit 102400kB, failcnt 20`: the limit and what was in use, in bytes.
fn parse_sizes(text: &str) -> Option<(u64, u64)> {
    let (usage, rest) = text.split_once("kB, limit ")?;
    let (limit, _) = rest.split_once("kB")?;
    let bytes = |text: &str| text.parse::<u64>().ok()?.checked_mul(1024);
    Some((bytes(limit)?, bytes(usage)?))
}

/// The process of a line of tasks, `      7]     0     7     4210 …`: the first number is that of one of its threads.
fn process_of(task: &str) -> Option<i32> {
    let (_, fields) = task.split_once(']')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `7 (sh) total-vm:…`: a name is at most 15 bytes, and holds what the container wants.
fn parse_killed(text: &str) -> Option<(i32, &str)> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, _) = rest.rsplit_once(") total-vm:")?;
    Some((pid.parse().ok()?, name))
}

/// Reads the kernel's line about a victim, if that was in `cgroup` or below (mm/oom_kill.c `dump_oom_victim`,
/// mm/memcontrol.c `mem_cgroup_print_oom_context`, since 5.0); `global_oom` stands for `oom_memcg=/a` where the host had no
/// memory left.
fn parse_chosen(message: &str, cgroup: &str) -> Option<Kill> {
    // From the end: a name is at most 15 bytes, and holds what the container wants.
    let (rest, _) = message.rsplit_once(",uid=")?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    let (rest, name) = rest.rsplit_once(",task=")?;
    let (rest, victims) = rest.rsplit_once(",task_memcg=")?;
    // The kernel's paths begin at the root of the hierarchy: where a mount or a namespace shows a part of it, none fits.
    let below = victims.strip_prefix(cgroup)?;
    if !(below.is_empty() || below.starts_with('/')) {
        return None;
    }
    let limit = match rest.rsplit_once(",oom_memcg=") {
        Some((_, path)) => Some(path.to_owned()),
        None if rest.ends_with(",global_oom") => None,
        None => return None,
    };
    Some(Kill { limit, pid: pid.parse().ok()?, name: name.to_owned(), limit_and_usage: None, is_of_first: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(limit: Option<&str>, pid: i32, name: &str) -> Kill {
        Kill { limit: limit.map(str::to_owned), pid, name: name.to_owned(), limit_and_usage: None, is_of_first: false }
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let head = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,mems_allowed=0";
        for (line, expected) in [
            (",oom_memcg=/pod/web,task_memcg=/pod/web,task=sh,pid=7,uid=0", Some(kill(Some("/pod/web"), 7, "sh"))),
            (",oom_memcg=/pod,task_memcg=/pod/web/app,task=sh,pid=7,uid=0", Some(kill(Some("/pod"), 7, "sh"))),
            (",global_oom,task_memcg=/pod/web,task=sh,pid=7,uid=0", Some(kill(None, 7, "sh"))),
            // Names are any 15 bytes.
            (
                ",oom_memcg=/pod,task_memcg=/pod/web,task=a,pid=1,uid=0,pid=7,uid=0",
                Some(kill(Some("/pod"), 7, "a,pid=1,uid=0")),
            ),
            (",oom_memcg=/,task_memcg=/pod/web,task=sh,pid=7,uid=0", Some(kill(Some("/"), 7, "sh"))),
            // Others.
            (",oom_memcg=/pod,task_memcg=/pod/website,task=sh,pid=7,uid=0", None),
            (",oom_memcg=/pod,task_memcg=/pod,task=sh,pid=7,uid=0", None),
            (",oom_memcg=/x/pod/web,task_memcg=/x/pod/web,task=sh,pid=7,uid=0", None),
            (",task_memcg=/pod/web,task=sh,pid=7,uid=0", None),
            ("", None),
        ] {
            assert_eq!(parse_chosen(&format!("{head}{line}"), "/pod/web"), expected, "{line}");
        }
    }

    fn log(lines: &[&str]) -> Vec<Kill> {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        read(&lines, "/pod/web", 7)
    }

    const WEB: &str = "oom-kill:,oom_memcg=/pod/web,task_memcg=/pod/web,task=sh,pid=9,uid=0";
    const FIRST: &str = "Memory cgroup out of memory: Killed process 7 (init) total-vm:1kB, anon-rss:1kB";

    #[test]
    fn a_dump_belongs_to_the_line_at_its_end() {
        let sizes = "memory: usage 1020kB, limit 1024kB, failcnt 3";
        let tasks = ["Tasks state (memory values in pages):", "[  pid  ]   uid  tgid total_vm"];
        let [with_first, without] = ["[      8]     0     7     4210 init", "[      7]     0     9     4210 sh"];
        let host = "oom-kill:,global_oom,task_memcg=/pod/web,task=sh,pid=9,uid=0";
        let limit = Some("/pod/web");
        let in_dump = Kill { limit_and_usage: Some((1 << 20, 1020 << 10)), ..kill(limit, 9, "sh") };
        let of_first = Kill { is_of_first: true, ..in_dump.clone() };
        assert_eq!(log(&[sizes, tasks[0], tasks[1], with_first, WEB]), std::slice::from_ref(&of_first));
        assert_eq!(log(&[sizes, tasks[0], tasks[1], without, WEB]), std::slice::from_ref(&in_dump));
        // One that was left without a line at its end; one without a dump.
        assert_eq!(log(&[tasks[0], with_first, sizes, tasks[0], without, WEB]), [in_dump]);
        assert_eq!(log(&[sizes, tasks[0], with_first, WEB, WEB]), [of_first, kill(limit, 9, "sh")]);
        // Of the host the sizes are no limit's.
        assert_eq!(log(&[sizes, host]), [kill(None, 9, "sh")]);
        assert_eq!(log(&["memory: usage many", WEB]), [kill(limit, 9, "sh")]);
        assert_eq!(log(&["memory: usage 18446744073709551615kB, limit 1kB", WEB]), [kill(limit, 9, "sh")]);
    }

    #[test]
    fn the_first_process_may_be_killed_with_another() {
        let other = "oom-kill:,oom_memcg=/pod/api,task_memcg=/pod/api,task=sh,pid=3,uid=0";
        let ninth = "Memory cgroup out of memory: Killed process 9 (sh) total-vm:1kB, anon-rss:1kB";
        let both = [kill(Some("/pod/web"), 9, "sh"), Kill { is_of_first: true, ..kill(Some("/pod/web"), 7, "init") }];
        assert_eq!(log(&[WEB, ninth, FIRST]), both);
        assert_eq!(log(&[WEB, ninth]), both[..1]);
        // A process of another container had this PID.
        assert_eq!(log(&[WEB, ninth, other, FIRST]), both[..1]);
        assert_eq!(log(&[FIRST]), []);
    }
}
