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
//!   first decides (`Branch::precedes`); where it has no preference, or refuses the profile, the earlier rule.
//! - A rule whose action is the default is skipped: it does not shield its call from other rules.
//! - A call with a number above all that the profile names gets ENOSYS instead of a default that denies, so that a C
//!   library newer than the profile falls back to older calls (runc's rule).
//! - On architectures that have `socketcall` or `ipc`, a rule for a call behind them covers both ways; there the
//!   condition on the first argument gives way to the selector.

mod bpf;
mod calls;
mod profile;
mod tables;
#[cfg(test)]
mod testing;

pub use bpf::Instruction;
pub use calls::number;
pub use profile::{Action, Arch, Arg, Operator, Profile, Rule};

use std::collections::BTreeMap;

use bpf::{AND, ANY_BIT, AT_LEAST, Assembler, EQUAL, GREATER, LOAD, Target};
use calls::{Inner, PRIVATE, PRIVATE_NUMBER};
use nix::errno::Errno;
use profile::{Traits, Width, X32_BIT};

use crate::error::{Error, Result};

/// A filter as seccomp(2) takes it: 1 to 4096 instructions.
#[derive(Debug)]
pub struct Program {
    pub instructions: Vec<Instruction>,
}

/// The most that the kernel takes (linux/bpf_common.h, `BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// Arguments of a system call.
const ARGUMENTS: u32 = 6;

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
    let default = verdict(profile.default_action, profile.default_errno, || "linux.seccomp.defaultErrnoRet".into())?;
    let rules = resolve(profile)?;

    let mut arches = vec![native];
    for arch in &profile.architectures {
        if !arches.contains(arch) {
            arches.push(*arch);
        }
    }
    // Listed last, written first: the native section ends up next to the dispatch.
    let mut assembler = Assembler::new();
    let mut sections = vec![];
    for arch in arches.iter().rev() {
        let audit = arch.traits().audit;
        if sections.iter().all(|(known, _)| *known != audit) {
            let ranges = ranges(&arches, audit, &rules, profile.default_action, default)?;
            sections.push((audit, write_section(&mut assembler, &ranges, default)));
        }
    }
    let mut dispatch = Target::Return(Action::KillProcess.code());
    for (audit, section) in sections {
        dispatch = assembler.branch(EQUAL, audit, section, dispatch);
    }
    assembler.then(LOAD, ARCH_OFFSET, dispatch);

    match assembler.len() {
        count if count > MAX_INSTRUCTIONS => Err(too_long(count)),
        _ => Ok(Program { instructions: assembler.finish() }),
    }
}

fn too_long(count: usize) -> Error {
    Error::config("linux.seccomp", format!("the filter has {count} instructions, the kernel takes {MAX_INSTRUCTIONS}"))
        .hint("fewer conditions on arguments, or fewer architectures")
}

/// What the filter returns for `action`.
fn verdict(action: Action, errno: Option<u32>, property: impl Fn() -> String) -> Result<u32> {
    // The kernel cuts larger errors down to MAX_ERRNO, and all of it to 16 bits (kernel/seccomp.c, linux/err.h).
    let max = if action == Action::Errno { 4095 } else { 0xffff };
    match errno {
        Some(_) if !action.takes_errno() => {
            Err(Error::config(property(), "only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take an error number"))
        }
        Some(errno) if errno > max => Err(Error::config(property(), format!("{errno} is above {max}"))),
        // Without one: EPERM, for both (config-linux.md#seccomp).
        _ if action.takes_errno() => Ok(action.code() | errno.unwrap_or(Errno::EPERM as u32)),
        _ => Ok(action.code()),
    }
}

/// A rule of the profile with its names looked up.
struct Resolved {
    verdict: u32,
    calls: Vec<Call>,
    /// The conditions that must hold together; any one of these sets is enough.
    alternatives: Vec<Vec<Arg>>,
}

struct Call {
    entry: usize,
    inner: Option<Inner>,
}

fn resolve(profile: &Profile<'_>) -> Result<Vec<Resolved>> {
    let mut rules = Vec::with_capacity(profile.rules.len());
    for (i, rule) in profile.rules.iter().enumerate() {
        let property = |field: &str| format!("linux.seccomp.syscalls[{i}].{field}");
        if rule.names.is_empty() {
            return Err(Error::config(property("names"), "is empty, at least one name is needed"));
        }
        let verdict = verdict(rule.action, rule.errno, || property("errnoRet"))?;
        let mut calls = Vec::with_capacity(rule.names.len());
        for name in &rule.names {
            match calls::find(name) {
                Some(entry) => calls.push(Call { entry, inner: calls::inner(name) }),
                None => log::debug!("{}: no system call is called {name:?}: skipped", property("names")),
            }
        }
        rules.push(Resolved { verdict, calls, alternatives: alternatives(&rule.args, &property)? });
    }
    Ok(rules)
}

/// Two conditions on one argument make every condition an alternative, as in runc's matchCall and in crun: before
/// libseccomp 2.5 there was no other way to write "one of these values", and profiles still do.
fn alternatives(args: &[Arg], property: &dyn Fn(&str) -> String) -> Result<Vec<Vec<Arg>>> {
    let mut seen = [false; ARGUMENTS as usize];
    let mut repeated = false;
    for (i, arg) in args.iter().enumerate() {
        let Some(seen) = seen.get_mut(arg.index as usize) else {
            let property = property(&format!("args[{i}].index"));
            return Err(Error::config(property, format!("{} is not an argument: they are 0 to 5", arg.index)));
        };
        repeated |= std::mem::replace(seen, true);
    }
    if repeated {
        return Ok(args.iter().map(|arg| vec![*arg]).collect());
    }
    let mut args = args.to_vec();
    args.sort_by_key(|arg| arg.index);
    Ok(vec![args])
}

/// What happens to calls of one number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// No rule: the default.
    Default,
    Always(u32),
    /// The conditional rules with this index.
    When(usize),
}

/// A conditional rule of one call.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Branch {
    /// All must hold. Sorted by argument, none twice, never empty.
    conditions: Vec<Arg>,
    verdict: u32,
}

impl Branch {
    /// Whether libseccomp tries this branch before `other`: conditions on later arguments come first, then equality
    /// before bounds, and upper before lower ones; of two bounds the tighter (db.c, `_db_chain_lt`).
    fn precedes(&self, other: &Self) -> bool {
        /// How specific libseccomp takes a condition to be, and for bounds, the tighter the greater.
        fn rank(arg: &Arg) -> (u32, u8, u64) {
            let (class, tightness) = match arg.op {
                Operator::Equal | Operator::NotEqual | Operator::MaskedEqual => (3, 0),
                Operator::Less | Operator::LessOrEqual => (2, !arg.value),
                Operator::Greater | Operator::GreaterOrEqual => (1, arg.value),
            };
            (arg.index, class, tightness)
        }
        let ranks = self.conditions.iter().map(rank).zip(other.conditions.iter().map(rank));
        ranks.into_iter().find(|(own, others)| own != others).is_some_and(|(own, others)| own > others)
    }
}

/// The rules of one architecture.
struct Section {
    traits: Traits,
    /// By slot: first Linux's own calls, then Arm's private ones. Each ends with the highest that the profile names.
    outcomes: [Vec<Outcome>; 2],
    branches: Vec<Vec<Branch>>,
}

impl Section {
    fn outcome(&mut self, slot: usize) -> &mut Outcome {
        let (part, slot) = if slot < PRIVATE { (0, slot) } else { (1, slot - PRIVATE) };
        let part = &mut self.outcomes[part];
        if slot >= part.len() {
            part.resize(slot + 1, Outcome::Default);
        }
        &mut part[slot]
    }

    fn add(&mut self, slot: usize, conditions: &[Arg], verdict: u32) -> Result<()> {
        let outcome = *self.outcome(slot);
        if matches!(outcome, Outcome::Always(_)) {
            return Ok(());
        }
        let conditions: Vec<Arg> = conditions.iter().filter_map(|arg| self.traits.fit(arg)).collect();
        if conditions.is_empty() {
            *self.outcome(slot) = Outcome::Always(verdict);
            return Ok(());
        }
        let branch = Branch { conditions, verdict };
        let Outcome::When(index) = outcome else {
            *self.outcome(slot) = Outcome::When(self.branches.len());
            self.branches.push(vec![branch]);
            return Ok(());
        };
        let branches = &mut self.branches[index];
        if branches.iter().all(|other| other.conditions != branch.conditions) {
            let place = branches.iter().position(|other| branch.precedes(other)).unwrap_or(branches.len());
            branches.insert(place, branch);
        }
        // Each takes an instruction or more: stop before the work grows with the square of their number.
        if branches.len() > MAX_INSTRUCTIONS { Err(too_long(branches.len())) } else { Ok(()) }
    }
}

/// The conditions for a call that is reached through another one, by `selector` as its first argument.
///
/// Those on later arguments then look at registers that mean nothing: so does libseccomp, and a profile that cares
/// refuses the outer call.
fn behind(selector: u64, conditions: &[Arg]) -> Vec<Arg> {
    let selector = Arg { index: 0, value: selector, value_two: 0, op: Operator::Equal };
    std::iter::once(selector).chain(conditions.iter().filter(|arg| arg.index != 0).copied()).collect()
}

impl Traits {
    /// `arg` as this architecture compares it; `None` if it always holds.
    fn fit(&self, arg: &Arg) -> Option<Arg> {
        let cut = |value: u64| if self.width == Width::Narrow { value & 0xffff_ffff } else { value };
        let value = cut(arg.value);
        match arg.op {
            Operator::MaskedEqual if value == 0 => None,
            Operator::MaskedEqual => Some(Arg { value, value_two: arg.value_two & value, ..*arg }),
            _ => Some(Arg { value, value_two: 0, ..*arg }),
        }
    }

    /// Where the low and the high word of argument `index` are in `struct seccomp_data`.
    fn words(&self, index: u32) -> Words {
        let at = ARGUMENTS_OFFSET + 8 * index;
        let (low, high) = if self.big_endian { (at + 4, at) } else { (at, at + 4) };
        Words { low, high: (self.width == Width::Wide).then_some(high) }
    }
}

/// The numbers of one `AUDIT_ARCH_*` with their outcomes.
struct Ranges {
    /// The first number of each range, ascending from 0; a range ends before the next.
    starts: Vec<(u32, Range)>,
    chains: Vec<Chain>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Range {
    Verdict(u32),
    Chain(usize),
}

/// The conditional rules of a call, and how its architecture lays out arguments.
struct Chain {
    branches: Vec<Branch>,
    words: [Words; ARGUMENTS as usize],
}

/// Offsets of the two words of an argument; `high` is `None` where only the low one is compared.
#[derive(Clone, Copy)]
struct Words {
    low: u32,
    high: Option<u32>,
}

impl Ranges {
    fn push(&mut self, start: u32, range: Range) {
        match self.starts.last_mut() {
            Some((last, earlier)) if *last == start => *earlier = range,
            Some((_, earlier)) if *earlier == range => {}
            _ => self.starts.push((start, range)),
        }
    }
}

/// Applies `rules` to those of `arches` that share `audit`: one, except for x86_64 and x32.
fn ranges(arches: &[Arch], audit: u32, rules: &[Resolved], action: Action, default: u32) -> Result<Ranges> {
    let mut ranges = Ranges { starts: Vec::with_capacity(256), chains: vec![] };
    let mut members: Vec<Arch> = arches.iter().copied().filter(|arch| arch.traits().audit == audit).collect();
    members.sort_by_key(|arch| arch.traits().base);
    // Below the base of MIPS there is nothing, below that of x32 another architecture.
    let below = if members.first() == Some(&Arch::X32) { Action::KillProcess.code() } else { default };
    ranges.push(0, Range::Verdict(below));
    for arch in &members {
        let newer = add_section(&mut ranges, *arch, rules, action, default)?;
        if members == [Arch::X86_64] {
            // x32 calls are another architecture's, except for -1, by which a tracer skips a call (seccomp(2)).
            ranges.push(X32_BIT, Range::Verdict(Action::KillProcess.code()));
            ranges.push(u32::MAX, Range::Verdict(newer));
        }
    }
    Ok(ranges)
}

/// Adds the numbers from the base of `arch` up; returns the verdict for calls newer than the profile.
fn add_section(ranges: &mut Ranges, arch: Arch, rules: &[Resolved], action: Action, default: u32) -> Result<u32> {
    let mut section = Section { traits: arch.traits(), outcomes: [Vec::with_capacity(512), vec![]], branches: vec![] };
    for rule in rules {
        for call in &rule.calls {
            let slot = calls::slot(&section.traits, call.entry);
            let outer = call.inner.and_then(|inner| Some((calls::outer_slot(&section.traits, inner)?, inner.selector)));
            for slot in slot.into_iter().chain(outer.map(|(slot, _)| slot)) {
                section.outcome(slot);
            }
            // Skipped, as in runc and crun; libseccomp refuses such rules.
            if rule.verdict == default {
                continue;
            }
            for conditions in &rule.alternatives {
                if let Some((outer, selector)) = outer {
                    section.add(outer, &behind(selector, conditions), rule.verdict)?;
                }
                if let Some(slot) = slot {
                    section.add(slot, conditions, rule.verdict)?;
                }
            }
        }
    }

    // patchbpf in runc: where the default lets a call happen or asks a tracer, a new call is no exception.
    let permits = matches!(action, Action::Allow | Action::Log | Action::Trace);
    let names_none = section.outcomes.iter().all(Vec::is_empty);
    let newer = if permits || names_none { default } else { Action::Errno.code() | Errno::ENOSYS as u32 };
    // s390: setup is long gone, but a call unknown to the kernel arrives under its number (runc#3474).
    if newer != default && matches!(arch, Arch::S390 | Arch::S390x) {
        *section.outcome(0) = Outcome::Always(newer);
    }

    // Equal chains are written once, and neighbours with equal ones are one range.
    let words = [0, 1, 2, 3, 4, 5].map(|index| section.traits.words(index));
    let mut written = BTreeMap::new();
    let base = section.traits.base;
    ranges.push(base, Range::Verdict(default));
    for (start, outcomes) in [base, PRIVATE_NUMBER].into_iter().zip(&section.outcomes) {
        for (number, outcome) in (start..).zip(outcomes) {
            let range = match outcome {
                Outcome::Default => Range::Verdict(default),
                Outcome::Always(verdict) => Range::Verdict(*verdict),
                Outcome::When(index) => {
                    let branches = &section.branches[*index];
                    Range::Chain(*written.entry(branches).or_insert_with(|| {
                        ranges.chains.push(Chain { branches: branches.clone(), words });
                        ranges.chains.len() - 1
                    }))
                }
            };
            ranges.push(number, range);
        }
        if !outcomes.is_empty() {
            ranges.push(start + outcomes.len() as u32, Range::Verdict(newer));
        }
    }
    Ok(newer)
}

/// Writes the search for a number and what follows it.
fn write_section(assembler: &mut Assembler, ranges: &Ranges, default: u32) -> Target {
    let chains: Vec<Target> = ranges.chains.iter().map(|chain| write_chain(assembler, chain, default)).collect();
    let leaf = |range| match range {
        Range::Verdict(verdict) => Target::Return(verdict),
        Range::Chain(index) => chains[index],
    };
    let tree = write_tree(assembler, &ranges.starts, &leaf);
    assembler.then(LOAD, NUMBER_OFFSET, tree)
}

/// Finds the range that holds the accumulator, which is not below the first.
fn write_tree(assembler: &mut Assembler, starts: &[(u32, Range)], leaf: &impl Fn(Range) -> Target) -> Target {
    match starts {
        [] => Target::Return(Action::KillProcess.code()),
        [(_, range)] => leaf(*range),
        // A number on its own between two of the same kind: one comparison instead of two.
        [(_, before), (number, range), (next, after)] if before == after && *next == *number + 1 => {
            assembler.branch(EQUAL, *number, leaf(*range), leaf(*before))
        }
        _ => {
            let (lower, upper) = starts.split_at(starts.len() / 2);
            let at = upper[0].0;
            let upper = write_tree(assembler, upper, leaf);
            let lower = write_tree(assembler, lower, leaf);
            assembler.branch(AT_LEAST, at, upper, lower)
        }
    }
}

/// Tries the branches of `chain` in order; the default if none holds.
fn write_chain(assembler: &mut Assembler, chain: &Chain, default: u32) -> Target {
    let mut next = Target::Return(default);
    let mut rest = chain.branches.as_slice();
    while let Some((branch, before)) = rest.split_last() {
        // Neighbours that compare one argument with one value each are searched together.
        let run = match single_value(branch) {
            None => 0,
            Some((index, _)) => {
                rest.iter().rev().take_while(|b| single_value(b).is_some_and(|(other, _)| other == index)).count()
            }
        };
        if run > 1 {
            let (before, run) = rest.split_at(rest.len() - run);
            next = write_values(assembler, chain, run, next);
            rest = before;
        } else {
            let mut matched = Target::Return(branch.verdict);
            for arg in branch.conditions.iter().rev() {
                matched = write_condition(assembler, arg, chain.words[arg.index as usize], matched, next);
            }
            next = matched;
            rest = before;
        }
    }
    next
}

/// The argument and the value of a branch that is a single equality.
fn single_value(branch: &Branch) -> Option<(u32, u64)> {
    match branch.conditions.as_slice() {
        [Arg { index, value, op: Operator::Equal, .. }] => Some((*index, *value)),
        _ => None,
    }
}

/// Compares one argument with the values of `run`, which differ; goes to `no` if it is none of them.
fn write_values(assembler: &mut Assembler, chain: &Chain, run: &[Branch], no: Target) -> Target {
    let values = run.iter().filter_map(|branch| Some((single_value(branch)?, branch.verdict)));
    let mut values: Vec<(u32, u64, u32)> = values.map(|((index, value), verdict)| (index, value, verdict)).collect();
    values.sort_unstable();
    let Some(words) = values.first().map(|(index, ..)| chain.words[*index as usize]) else { return no };
    let mut groups = vec![];
    for group in values.chunk_by(|(_, a, _), (_, b, _)| a >> 32 == b >> 32) {
        let low: Vec<_> = group.iter().map(|(_, value, verdict)| (*value as u32, Target::Return(*verdict))).collect();
        let search = write_search(assembler, &low, no);
        let search = assembler.then(LOAD, words.low, search);
        groups.push(((group[0].1 >> 32) as u32, search));
    }
    match (words.high, groups.as_slice()) {
        (None, [(_, search)]) => *search,
        (high, _) => {
            let search = write_search(assembler, &groups, no);
            assembler.then(LOAD, high.unwrap_or(words.low), search)
        }
    }
}

/// Compares the accumulator with ascending values: by halves, and one by one where few are left.
fn write_search(assembler: &mut Assembler, values: &[(u32, Target)], no: Target) -> Target {
    if values.len() <= 4 {
        return values.iter().rev().fold(no, |next, (value, yes)| assembler.branch(EQUAL, *value, *yes, next));
    }
    let (lower, upper) = values.split_at(values.len() / 2);
    let at = upper[0].0;
    let upper = write_search(assembler, upper, no);
    let lower = write_search(assembler, lower, no);
    assembler.branch(AT_LEAST, at, upper, lower)
}

/// Goes to `yes` if `arg` holds, else to `no`.
fn write_condition(assembler: &mut Assembler, arg: &Arg, words: Words, yes: Target, no: Target) -> Target {
    let low = arg.value as u32;
    // Classic BPF compares 32 bits; unless the high words decide, the low words do.
    let high = words.high.map(|offset| (offset, (arg.value >> 32) as u32));
    let (yes, no) = match arg.op {
        Operator::NotEqual | Operator::Less | Operator::LessOrEqual => (no, yes),
        _ => (yes, no),
    };
    match arg.op {
        Operator::Equal | Operator::NotEqual => {
            let test = assembler.branch(EQUAL, low, yes, no);
            let test = assembler.then(LOAD, words.low, test);
            let Some((offset, high)) = high else { return test };
            let test = assembler.branch(EQUAL, high, test, no);
            assembler.then(LOAD, offset, test)
        }
        Operator::Greater | Operator::GreaterOrEqual | Operator::Less | Operator::LessOrEqual => {
            let code = match arg.op {
                Operator::Greater | Operator::LessOrEqual => GREATER,
                _ => AT_LEAST,
            };
            let test = assembler.branch(code, low, yes, no);
            let test = assembler.then(LOAD, words.low, test);
            let Some((offset, high)) = high else { return test };
            let test = assembler.branch(EQUAL, high, test, no);
            let test = assembler.branch(GREATER, high, yes, test);
            assembler.then(LOAD, offset, test)
        }
        Operator::MaskedEqual => {
            let test = write_masked(assembler, words.low, low, arg.value_two as u32, yes, no);
            let Some((offset, high)) = high else { return test };
            write_masked(assembler, offset, high, (arg.value_two >> 32) as u32, test, no)
        }
    }
}

/// Goes to `yes` if the word at `offset`, masked, is `value`.
fn write_masked(assembler: &mut Assembler, offset: u32, mask: u32, value: u32, yes: Target, no: Target) -> Target {
    let test = match (mask, value) {
        (0, _) => return yes,
        (_, 0) => assembler.branch(ANY_BIT, mask, no, yes),
        (u32::MAX, _) => assembler.branch(EQUAL, value, yes, no),
        _ => {
            let test = assembler.branch(EQUAL, value, yes, no);
            assembler.then(AND, mask, test)
        }
    };
    assembler.then(LOAD, offset, test)
}

#[cfg(test)]
mod tests;
