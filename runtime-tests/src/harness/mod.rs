//! What tests are made of: a [`Context`] a test, [`Bundle`]s built in it, [`Container`]s made of them, [`Cmd`] for
//! anything else, [`eventually`] instead of sleeps. After a test [`leaks::find`] looks for what was left.

pub mod bundle;
pub mod cgroup;
pub mod children;
pub mod command;
pub mod container;
pub mod context;
pub mod image;
pub mod leaks;
pub mod report;
pub mod service_manager;

use std::fmt;
use std::time::{Duration, Instant};

pub use bundle::Bundle;
pub use command::{Cmd, Lines, Run, Running};
pub use container::Container;
pub use context::{Context, Peer};
pub use report::{MountInfo, Report};
pub use serde_json::{Value, json};

/// One test. Its name is unique within its module and says the fact that it pins.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub run: fn(&Context) -> Outcome,
}

/// `Ok` passes; `?` on most errors fails the test; [`skip!`](crate::skip) leaves it with a reason.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Failure {
    Failed(String),
    Skipped(String),
}

impl Failure {
    /// Says before the reason what was being done.
    pub fn during(self, what: &str) -> Failure {
        match self {
            Failure::Failed(why) => Failure::Failed(format!("{what}: {why}")),
            skipped => skipped,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Failed(why) | Failure::Skipped(why)) = self;
        f.write_str(why)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Failed(why)
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Failure::Failed(why.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<nix::errno::Errno> for Failure {
    fn from(error: nix::errno::Errno) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::Failed(format!("JSON: {error}"))
    }
}

impl From<std::num::ParseIntError> for Failure {
    fn from(error: std::num::ParseIntError) -> Self {
        Failure::Failed(error.to_string())
    }
}

/// Fails the test unless the condition holds: `check!(cond, "what was expected, {}", value)`.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::harness::Failure::Failed(format!($($message)+)));
        }
    };
}

/// Fails the test unless both are equal: `check_eq!(seen, expected, "umask")`.
#[macro_export]
macro_rules! check_eq {
    ($seen:expr, $expected:expr, $($message:tt)+) => {
        match (&$seen, &$expected) {
            (seen, expected) => {
                if *seen != *expected {
                    return Err($crate::harness::Failure::Failed(format!(
                        "{}: expected {:?}, seen {:?}", format!($($message)+), expected, seen
                    )));
                }
            }
        }
    };
}

/// Leaves the test with a reason.
#[macro_export]
macro_rules! skip {
    ($($message:tt)+) => {
        return Err($crate::harness::Failure::Skipped(format!($($message)+)))
    };
}

/// Waits until `condition` gives something, at most `deadline`; reaps orphans meanwhile.
///
/// # Errors
/// `what` did not happen in time.
pub fn eventually<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> Outcome<T> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        children::reap();
        if let Some(found) = condition() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(Failure::Failed(format!("not within {deadline:?}: {what}")));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
