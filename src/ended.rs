//! How a container's process ended, and why: what the record in `state.json` holds of it, and the one line that tells it.

use nix::libc;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroup::memory_events::{LimitOf, OutOfMemory};

/// How a process ended (wait(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// By itself, with this exit code.
    Code(u8),
    /// By this signal, which may be a realtime one.
    Signal(i32),
}

impl Exit {
    /// Reads a wait status.
    pub fn of_status(status: i32) -> Self {
        match libc::WIFEXITED(status) {
            true => Self::Code(libc::WEXITSTATUS(status) as u8),
            false => Self::Signal(libc::WTERMSIG(status)),
        }
    }

    /// As a shell tells it: a process's own exit code, or 128 and the signal that ended it.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal as u8,
        }
    }
}

/// The end of a container's process, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub exit: Option<Exit>,
    /// Why `exit` is not known, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Processes of the container were killed for memory, the first one or others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<OutOfMemory>,
    /// It made a system call that linux.seccomp forbids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Forbidden>,
}

/// A system call that a seccomp profile answers with SIGSYS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forbidden {
    /// Its name, or its number if that has none here; `None` where the kernel's log does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
}

/// What programs read of an end: `wait --json` prints it, `state --verbose` has it as `ended`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'e> {
    /// As a shell tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out_of_memory: Option<&'e OutOfMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<&'e Forbidden>,
    reason: String,
}

impl Ended {
    pub fn known(exit: Exit) -> Self {
        Self { exit: Some(exit), ..Self::default() }
    }

    /// How it ended cannot be known, for this reason.
    pub fn unknown(why: String) -> Self {
        Self { unknown: Some(why), ..Self::default() }
    }

    pub fn shown(&self) -> Shown<'_> {
        Shown {
            exit_status: self.exit.map(Exit::code),
            signal: match self.exit {
                Some(Exit::Signal(signal)) => Some(signal),
                _ => None,
            },
            unknown: self.unknown.as_deref(),
            out_of_memory: self.memory.as_ref(),
            seccomp: self.seccomp.as_ref(),
            reason: self.reason(),
        }
    }

    /// This is what is known when somebody looked before and found `earlier`.
    pub fn after(self, earlier: Option<Ended>) -> Ended {
        let Some(earlier) = earlier else { return self };
        let exit = self.exit.or(earlier.exit);
        Ended {
            exit,
            // Who looked earlier knows more of why.
            unknown: earlier.unknown.or(self.unknown).filter(|_| exit.is_none()),
            // The first to look counted nothing that a later container did in the same cgroup.
            memory: earlier.memory.or(self.memory),
            seccomp: self.seccomp.or(earlier.seccomp),
        }
    }

    /// The container's own process was killed for memory, and not only others of its processes.
    pub fn is_killed_for_memory(&self) -> bool {
        let Some(memory) = &self.memory else { return false };
        match (self.exit, &memory.victim) {
            (Some(Exit::Code(_)), _) | (None, None) => false,
            (Some(Exit::Signal(signal)), None) => signal == libc::SIGKILL,
            (Some(Exit::Signal(signal)), Some(victim)) => signal == libc::SIGKILL && victim.is_first,
            (None, Some(victim)) => victim.is_first,
        }
    }

    /// One line: `killed for memory: …`, `exited with code 1`, `ended by signal 31 (SIGSYS): …`.
    pub fn reason(&self) -> String {
        self.reason_with(match self.exit {
            Some(Exit::Code(code)) => format!("exited with code {code}"),
            Some(Exit::Signal(signal)) => format!("ended by {}", signal_named(signal)),
            None => format!("ended, exit code unknown: {}", self.unknown.as_deref().unwrap_or("nobody looked")),
        })
    }

    /// The same of one that its deletion ended.
    pub fn reason_of_deletion(&self) -> String {
        self.reason_with("killed by its deletion".into())
    }

    /// The end is `text`, unless that was a kill for memory.
    fn reason_with(&self, mut text: String) -> String {
        let memory = self.memory.as_ref().map(OutOfMemory::reason);
        if let Some(memory) = memory.as_ref().filter(|_| self.is_killed_for_memory()) {
            return format!("killed for memory: {memory}");
        }
        if let Some(forbidden) = &self.seccomp {
            text.push_str(&match &forbidden.call {
                Some(call) => format!(": linux.seccomp forbids the system call {call}"),
                None => ": linux.seccomp forbids a system call that it made".to_owned(),
            });
        }
        if let (Some(reason), Some(memory)) = (memory, &self.memory) {
            text.push_str(&format!("; {} killed for memory: {reason}", counted(memory.kills)));
        }
        text
    }
}

fn counted(kills: u64) -> String {
    if kills == 1 { "1 of its processes was".into() } else { format!("{kills} of its processes were") }
}

/// `signal 9 (SIGKILL)`; a realtime signal has no name.
fn signal_named(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(name) => format!("signal {signal} ({name})"),
        Err(_) => format!("signal {signal}"),
    }
}

impl OutOfMemory {
    /// `its limit of 100 MiB was reached (linux.resources.memory.limit, cgroup /web, most used 100 MiB, 1 kill: process 7 "sh")`.
    fn reason(&self) -> String {
        let most_likely = if self.is_certain { "" } else { "most likely " };
        let of = self.limit_bytes.map_or(String::new(), |bytes| format!(" of {}", size(bytes)));
        let cgroup = self.cgroup.as_deref().unwrap_or_default();
        let what = match self.limit_of {
            LimitOf::Container => format!("{most_likely}its limit{of} was reached"),
            LimitOf::Above => format!("{most_likely}the limit{of} of cgroup {cgroup} above it was reached"),
            LimitOf::Below if self.cgroup.is_none() => format!("{most_likely}a limit that it set itself was reached"),
            LimitOf::Below => format!("{most_likely}the limit{of} of cgroup {cgroup} inside it was reached"),
            LimitOf::Host => format!("{most_likely}the host had no memory left"),
        };
        let mut details = vec![];
        if self.limit_of == LimitOf::Container {
            details.push(format!("linux.resources.memory.limit, cgroup {cgroup}"));
        }
        details.extend(self.peak_bytes.map(|bytes| format!("most used {}", size(bytes))));
        let victim = self.victim.as_ref().map(|victim| format!("process {} {:?}", victim.pid, victim.name));
        details.push(match (self.kills, victim) {
            (1, None) => "1 kill".into(),
            (1, Some(victim)) => format!("1 kill: {victim}"),
            (kills, None) => format!("{kills} kills"),
            (kills, Some(victim)) => format!("{kills} kills, one of them {victim}"),
        });
        format!("{what} ({})", details.join(", "))
    }
}

/// A number of bytes for a person: `100 MiB`, `9.5 MiB`, `512 KiB`, `100 bytes`.
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} bytes"),
        1024..1_048_576 => (1024, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576, "MiB"),
        _ => (1_073_741_824, "GiB"),
    };
    if bytes.is_multiple_of(unit) {
        return format!("{} {name}", bytes / unit);
    }
    // Rounded down: what is used is not shown as more than a limit that it never passed.
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::memory_events::Victim;

    const MIB: u64 = 1 << 20;

    fn memory(limit_of: LimitOf, victim: Option<bool>) -> OutOfMemory {
        OutOfMemory {
            limit_of,
            is_certain: true,
            cgroup: Some("/pod/web".into()),
            limit_bytes: Some(100 * MIB),
            peak_bytes: Some(100 * MIB - 4096),
            kills: 1,
            victim: victim.map(|is_first| Victim { pid: 7, name: "sh".into(), is_first }),
        }
    }

    #[test]
    fn wait_statuses_are_codes_and_signals() {
        for (status, exit, code) in [
            (0, Exit::Code(0), 0),
            (3 << 8, Exit::Code(3), 3),
            (9, Exit::Signal(9), 137),
            (40, Exit::Signal(40), 168),
            (64, Exit::Signal(64), 192),
            // With a core dump.
            (6 | 0x80, Exit::Signal(6), 134),
        ] {
            assert_eq!((Exit::of_status(status), exit.code()), (exit, code), "{status:#x}");
        }
    }

    #[test]
    fn the_first_process_was_killed_for_memory_only_by_sigkill() {
        let with = |exit, victim| Ended { exit, memory: Some(memory(LimitOf::Container, victim)), ..Ended::default() };
        for (exit, victim, expected) in [
            (Some(Exit::Signal(9)), None, true),
            (Some(Exit::Signal(9)), Some(true), true),
            // Somebody else's signal, after another process was killed.
            (Some(Exit::Signal(9)), Some(false), false),
            (Some(Exit::Signal(15)), Some(true), false),
            (Some(Exit::Code(137)), Some(true), false),
            // Reaped by an engine's monitor.
            (None, Some(true), true),
            (None, Some(false), false),
            (None, None, false),
        ] {
            assert_eq!(with(exit, victim).is_killed_for_memory(), expected, "{exit:?} {victim:?}");
        }
        assert!(!Ended { exit: Some(Exit::Signal(9)), ..Ended::default() }.is_killed_for_memory());
    }

    #[test]
    fn reasons_are_one_line() {
        let ended = |exit, memory| Ended { exit, memory, ..Ended::default() };
        let killed = Some(Exit::Signal(9));
        for (ended, line) in [
            (ended(Some(Exit::Code(3)), None), "exited with code 3"),
            (ended(Some(Exit::Signal(15)), None), "ended by signal 15 (SIGTERM)"),
            (ended(Some(Exit::Signal(40)), None), "ended by signal 40"),
            (
                ended(killed, Some(memory(LimitOf::Container, Some(true)))),
                "killed for memory: its limit of 100 MiB was reached (linux.resources.memory.limit, cgroup /pod/web, \
                 most used 99.9 MiB, 1 kill: process 7 \"sh\")",
            ),
            (
                ended(killed, Some(OutOfMemory { kills: 3, ..memory(LimitOf::Above, None) })),
                "killed for memory: the limit of 100 MiB of cgroup /pod/web above it was reached (most used 99.9 MiB, \
                 3 kills)",
            ),
            (
                ended(
                    Some(Exit::Code(1)),
                    Some(OutOfMemory { cgroup: None, limit_bytes: None, ..memory(LimitOf::Below, None) }),
                ),
                "exited with code 1; 1 of its processes was killed for memory: a limit that it set itself was reached \
                 (most used 99.9 MiB, 1 kill)",
            ),
            (
                ended(
                    killed,
                    Some(OutOfMemory {
                        is_certain: false,
                        cgroup: None,
                        limit_bytes: None,
                        peak_bytes: None,
                        ..memory(LimitOf::Host, None)
                    }),
                ),
                "killed for memory: most likely the host had no memory left (1 kill)",
            ),
            (
                Ended { unknown: Some("reaped by PID 7 (conmon)".into()), ..Ended::default() },
                "ended, exit code unknown: reaped by PID 7 (conmon)",
            ),
            (
                Ended { exit: Some(Exit::Signal(31)), seccomp: Some(Forbidden::default()), ..Ended::default() },
                "ended by signal 31 (SIGSYS): linux.seccomp forbids a system call that it made",
            ),
            (
                Ended {
                    exit: Some(Exit::Signal(31)),
                    seccomp: Some(Forbidden { call: Some("mount".into()) }),
                    ..Ended::default()
                },
                "ended by signal 31 (SIGSYS): linux.seccomp forbids the system call mount",
            ),
        ] {
            assert_eq!(ended.reason(), line);
        }
    }

    #[test]
    fn a_deletion_is_the_end_of_what_ran_until_then() {
        for (victim, start) in [
            (None, "killed by its deletion; 1 of its processes was killed for memory: its limit of 100 MiB"),
            (Some(false), "killed by its deletion; 1 of its processes was killed for memory: its limit of 100 MiB"),
            // Just before.
            (Some(true), "killed for memory: its limit of 100 MiB"),
        ] {
            let ended = Ended { memory: Some(memory(LimitOf::Container, victim)), ..Ended::default() };
            assert!(ended.reason_of_deletion().starts_with(start), "{victim:?}: {}", ended.reason_of_deletion());
        }
        assert_eq!(Ended::default().reason_of_deletion(), "killed by its deletion");
    }

    #[test]
    fn a_later_look_adds_to_an_earlier_one() {
        let unknown = || Ended { unknown: Some("reaped".into()), ..Ended::default() };
        let known = || Ended { exit: Some(Exit::Code(3)), ..Ended::default() };
        let counted = || Ended { memory: Some(memory(LimitOf::Container, None)), ..unknown() };
        assert_eq!(known().after(None), known());
        assert_eq!(known().after(Some(unknown())), known());
        assert_eq!(unknown().after(Some(known())), known());
        assert_eq!(known().after(Some(counted())), Ended { memory: counted().memory, ..known() });
        assert_eq!(unknown().after(Some(counted())), counted());
        let late = Ended { unknown: Some("too late".into()), ..Ended::default() };
        assert_eq!(late.after(Some(unknown())), unknown());
    }

    #[test]
    fn sizes_are_for_a_person() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (100 * MIB, "100 MiB"),
            (100 * MIB - 1, "99.9 MiB"),
            (MIB * 3 / 2, "1.5 MiB"),
            (5 << 30, "5 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
