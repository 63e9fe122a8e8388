//! Signals by name and number.

use nix::libc;

use crate::error::{Error, Result};

/// Names of signal(7) without SIG; the synonyms follow the usual names.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("IOT", libc::SIGABRT),
    ("CLD", libc::SIGCHLD),
    ("POLL", libc::SIGIO),
];

/// The number of the signal that `name` means: `TERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
pub fn signal(name: &str) -> Result<i32> {
    let unknown = || Error::usage(format!("unknown signal {name:?}"));
    // 64 is the kernel's _NSIG on every architecture but MIPS; 0 is kill(2)'s question.
    // 34 is where they begin for kill(1) and every program with glibc, which keeps the kernel's first two to itself.
    let (first_real_time, last) = (34, 64);
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().ok().filter(|number| (0..=last).contains(number)).ok_or_else(unknown);
    }
    let upper = name.to_ascii_uppercase();
    let upper = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == upper) {
        return Ok(*number);
    }
    // The digits alone: i32::from_str would take another sign.
    let offset = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let number = match (upper.strip_prefix("RTMIN"), upper.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(first_real_time),
        (_, Some("")) => Some(last),
        (Some(rest), _) => rest.strip_prefix('+').and_then(offset).and_then(|n: i32| first_real_time.checked_add(n)),
        (_, Some(rest)) => rest.strip_prefix('-').and_then(offset).and_then(|n: i32| last.checked_sub(n)),
        (None, None) => None,
    };
    number.filter(|number| (first_real_time..=last).contains(number)).ok_or_else(unknown)
}
