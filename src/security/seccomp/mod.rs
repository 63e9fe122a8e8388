//! Compiles a seccomp profile to the classic BPF program that seccomp(2) takes. Pure: no system call is made here.
//!
//! ```text
//! profile ── rules by call and architecture ── ranges of numbers with one outcome ── balanced tree ── program
//! ```
//!
//! The program loads the architecture and goes to its section; a section loads the number and searches it in a tree;
//! at a leaf is a verdict, or the conditions on arguments that some calls have.
//!
//! What a profile means is what runc makes of it with libseccomp (decision 0002):
//! - A rule without conditions decides its call, whatever conditional rules stand before or after it; of two such
//!   rules, the first.
//! - Conditional rules of one call are alternatives. Of two that match and disagree, the one that libseccomp tries
//!   first decides (`rules::Branch::precedes`); where it has no preference, or refuses the profile, the earlier rule.
//! - A rule whose action is the default is skipped: it does not shield its call from other rules.
//! - A call with a number above all that the profile names gets ENOSYS instead of a default that denies, so that a C
//!   library newer than the profile falls back to older calls (runc's rule).
//! - On architectures that have `socketcall` or `ipc`, a rule for a call behind them covers both ways; there the
//!   condition on the first argument gives way to the selector.

mod bpf;
mod calls;
mod emit;
mod profile;
mod rules;
mod tables;
#[cfg(test)]
mod testing;

pub use bpf::Instruction;
pub use calls::{name, number};
pub use profile::{Action, Arch, Arg, Operator, Profile, Rule};

use bpf::{Assembler, EQUAL, LOAD, Target};
use calls::PRIVATE_NUMBER;
use emit::{Conditions, Ranges};
use profile::X32_BIT;
use rules::{Outcome, Rules};

use crate::error::{Error, Result};

/// A filter as seccomp(2) takes it: 1 to 4096 instructions.
#[derive(Debug)]
pub struct Program {
    pub instructions: Vec<Instruction>,
}

/// The most that the kernel takes (linux/bpf_common.h, `BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;

/// Compiles `profile` for a machine of architecture `native`.
///
/// # Errors
/// `Config` with the property: no name in a rule, an error number that is too large or for an action that takes none, an
/// argument above 5, `SCMP_ACT_NOTIFY` as the default, and a program of more than 4096 instructions.
pub fn compile(profile: &Profile<'_>, native: Arch) -> Result<Program> {
    if profile.default_action == Action::Notify {
        return Err(Error::config("linux.seccomp.defaultAction", "\"SCMP_ACT_NOTIFY\" cannot be the default")
            .hint("the container could not start: its runtime would wait for the listener that it has yet to reach"));
    }
    let rules = rules::resolve(profile)?;

    let mut arches = vec![native];
    for arch in &profile.architectures {
        if !arches.contains(arch) {
            arches.push(*arch);
        }
    }
    let mut audits: Vec<u32> = vec![];
    for arch in &arches {
        let audit = arch.traits().audit;
        if !audits.contains(&audit) {
            audits.push(audit);
        }
    }

    // Written backwards: the native architecture is asked for first, and its section comes next.
    let mut assembler = Assembler::new();
    let mut sections = vec![];
    for audit in audits.into_iter().rev() {
        let members = arches.iter().copied().filter(|arch| arch.traits().audit == audit).collect();
        sections.push((audit, write_section(&mut assembler, members, &rules)?));
    }
    let mut dispatch = Target::Return(Action::KillProcess.code());
    for (audit, section) in sections {
        dispatch = assembler.branch(EQUAL, audit, section, dispatch);
    }
    assembler.then(LOAD, ARCH_OFFSET, dispatch);

    match assembler.len() {
        count if count > MAX_INSTRUCTIONS => Err(too_long(&count.to_string())),
        _ => Ok(Program { instructions: assembler.finish() }),
    }
}

/// Writes the section of `arches`, which share an `AUDIT_ARCH_*`: there is one, except for x86_64 and x32.
fn write_section(assembler: &mut Assembler, mut arches: Vec<Arch>, rules: &Rules) -> Result<Target> {
    let kill = Target::Return(Action::KillProcess.code());
    arches.sort_unstable_by_key(|arch| arch.traits().base);
    let mut tree = kill;
    // From the highest base down: the tree of x32 is a leaf in that of x86_64, whose calls are not held up by it.
    for arch in arches.iter().rev() {
        let traits = arch.traits();
        let section = rules.apply(*arch)?;
        let mut ranges = Ranges::new();
        // Below the base of MIPS there is nothing, below that of x32 another architecture.
        ranges.push(0, if *arch == Arch::X32 { kill } else { Target::Return(rules.default) });
        ranges.push(traits.base, Target::Return(rules.default));
        let mut conditions = Conditions::new(&traits, rules.default);
        for (start, outcomes) in [traits.base, PRIVATE_NUMBER].into_iter().zip(&section.outcomes) {
            for (number, outcome) in (start..).zip(outcomes) {
                let target = match outcome {
                    Outcome::Default => Target::Return(rules.default),
                    Outcome::Always(verdict) => Target::Return(*verdict),
                    Outcome::When(index) => conditions.write(assembler, &section.branches[*index as usize]),
                };
                ranges.push(number, target);
            }
            if !outcomes.is_empty() {
                ranges.push(start + outcomes.len() as u32, Target::Return(section.newer));
            }
        }
        if *arch == Arch::X86_64 {
            ranges.push(X32_BIT, tree);
            if arches.len() == 1 {
                // Not x32's: by -1 a tracer skips a call (seccomp(2)).
                ranges.push(u32::MAX, Target::Return(section.newer));
            }
        }
        tree = ranges.write(assembler);
    }
    Ok(assembler.then(LOAD, NUMBER_OFFSET, tree))
}

fn too_long(count: &str) -> Error {
    Error::config("linux.seccomp", format!("the filter has {count} instructions, the kernel takes {MAX_INSTRUCTIONS}"))
        .hint("fewer conditions on arguments, or fewer architectures")
}

#[cfg(test)]
mod tests;
