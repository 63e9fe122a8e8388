//! The timings as a person reads them.

use std::fmt::Write;

use super::Document;

/// Steps that are shorter are counted and not shown.
const SHORTEST_US: u64 = 5;

/// A head, a line a step, and how many were too short to be shown.
pub(super) fn text(document: &Document<'_>) -> String {
    let outcome = if document.completed { "took" } else { "failed after" };
    let mut text = format!("{} {} {outcome} {} ms\n", document.command, document.id, milliseconds(document.total_us));
    text.push_str("  AT ms    TOOK ms  PROCESS    STEP\n");
    let (shown, short): (Vec<_>, Vec<_>) = document.steps.iter().partition(|step| step.duration_us >= SHORTEST_US);
    for step in shown {
        let (at, took) = (milliseconds(step.start_us), milliseconds(step.duration_us));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{at:>7}  {took:>9}  {:9}  {}", step.process.name(), step.name);
    }
    if !short.is_empty() {
        let noun = if short.len() == 1 { "step" } else { "steps" };
        let _ = writeln!(text, "and {} {noun} of less than {SHORTEST_US} us", short.len());
    }
    text
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::super::{Process, Step};
    use super::*;

    #[test]
    fn a_line_a_step() {
        let step = |name: &'static str, process, start: u64, end: u64| Step {
            name: name.into(),
            process,
            start: start * 1000,
            end: end * 1000,
        };
        let steps = vec![
            step("read the configuration", Process::Kelson, 1000, 1060),
            step("clone", Process::Kelson, 1060, 1062),
            step("mount file systems", Process::Container, 1062, 13_500),
        ];
        assert_eq!(
            text(&Document::of("run", "web", steps, true)),
            "run web took 12.500 ms\n  AT ms    TOOK ms  PROCESS    STEP\n  0.000      0.060  kelson     read the configuration\n  \
             0.062     12.438  container  mount file systems\nand 1 step of less than 5 us\n"
        );
    }
}
