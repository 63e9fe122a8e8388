//! Writes the search for a call's number, and the conditions on its arguments.

use std::collections::BTreeMap;

use super::ARGUMENTS_OFFSET;
use super::bpf::{AND, ANY_BIT, AT_LEAST, Assembler, EQUAL, GREATER, LOAD, Target};
use super::profile::{Action, Arg, Operator, Traits, Width};
use super::rules::{ARGUMENTS, Branch};

/// Where the low and the high word of each argument are in `struct seccomp_data`; no high where only the low is compared.
type Words = [(u32, Option<u32>); ARGUMENTS];

/// Conditions on arguments, written once where calls of an architecture have the same.
pub(super) struct Conditions<'a> {
    words: Words,
    default: u32,
    written: BTreeMap<&'a [Branch], Target>,
}

impl<'a> Conditions<'a> {
    pub fn new(traits: &Traits, default: u32) -> Self {
        let words = [0, 1, 2, 3, 4, 5].map(|index| {
            let at = ARGUMENTS_OFFSET + 8 * index;
            let (low, high) = if traits.big_endian { (at + 4, at) } else { (at, at + 4) };
            (low, (traits.width == Width::Wide).then_some(high))
        });
        Self { words, default, written: BTreeMap::new() }
    }

    /// Tries `branches` in order.
    pub fn write(&mut self, assembler: &mut Assembler, branches: &'a [Branch]) -> Target {
        let (words, default) = (&self.words, Target::Return(self.default));
        *self.written.entry(branches).or_insert_with(|| write_branches(assembler, branches, words, default))
    }
}

/// Ranges of numbers with one outcome: each begins at its number and ends before the next one's.
pub(super) struct Ranges(Vec<(u32, Target)>);

impl Ranges {
    pub fn new() -> Self {
        Self(Vec::with_capacity(256))
    }

    /// Adds the range from `start`, above all others, or instead of the last.
    pub fn push(&mut self, start: u32, outcome: Target) {
        match self.0.last_mut() {
            Some((last, earlier)) if *last == start => *earlier = outcome,
            Some((_, earlier)) if *earlier == outcome => {}
            _ => self.0.push((start, outcome)),
        }
    }

    /// Searches the accumulator in the ranges, which begin at 0.
    pub fn write(&self, assembler: &mut Assembler) -> Target {
        write_tree(assembler, &self.0, u32::MAX)
    }
}

/// Weights of ranges in the search for a number. A wide range holds more calls, and among them those that programs make
/// most: it shall be found sooner. These took the fewest instructions on podman's profile.
const WIDE: u32 = 32;
const NARROW: u32 = 4;

/// Finds the range that holds the accumulator, which is neither below the first nor above `last`.
fn write_tree(assembler: &mut Assembler, ranges: &[(u32, Target)], last: u32) -> Target {
    let weight = |start: u32, last: u32| u64::from((last - start).min(WIDE) + NARROW);
    match ranges {
        [] => Target::Return(Action::KillProcess.code()),
        [(_, target)] => *target,
        // A number on its own between two of the same kind: one comparison instead of two.
        [(_, before), (number, target), (next, after)] if before == after && *next == *number + 1 => {
            assembler.branch(EQUAL, *number, *target, *before)
        }
        _ => {
            let ends = || ranges[1..].iter().map(|(start, _)| start - 1).chain([last]);
            let weights = || ranges.iter().zip(ends()).map(|((start, _), end)| weight(*start, end));
            let total: u64 = weights().sum();
            let mut below = 0;
            let place = weights().position(|weight| {
                below += weight;
                2 * below >= total
            });
            let place = place.map_or(1, |place| (place + 1).clamp(1, ranges.len() - 1));
            let (lower, upper) = ranges.split_at(place);
            let at = upper[0].0;
            let upper = write_tree(assembler, upper, last);
            let lower = write_tree(assembler, lower, at - 1);
            assembler.branch(AT_LEAST, at, upper, lower)
        }
    }
}

/// Tries `branches` in order; goes to `no` if none holds.
fn write_branches(assembler: &mut Assembler, branches: &[Branch], words: &Words, no: Target) -> Target {
    let mut next = no;
    let mut rest = branches;
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
            next = write_values(assembler, run, words, next);
            rest = before;
        } else {
            let mut matched = Target::Return(branch.verdict);
            for arg in branch.conditions.iter().rev() {
                matched = write_condition(assembler, arg, words, matched, next);
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
fn write_values(assembler: &mut Assembler, run: &[Branch], words: &Words, no: Target) -> Target {
    let values = run.iter().filter_map(|branch| Some((single_value(branch)?, branch.verdict)));
    let mut values: Vec<(u32, u64, u32)> = values.map(|((index, value), verdict)| (index, value, verdict)).collect();
    values.sort_unstable();
    let Some((low_offset, high_offset)) = values.first().map(|(index, ..)| words[*index as usize]) else { return no };
    let mut groups = vec![];
    for group in values.chunk_by(|(_, a, _), (_, b, _)| a >> 32 == b >> 32) {
        let low: Vec<_> = group.iter().map(|(_, value, verdict)| (*value as u32, Target::Return(*verdict))).collect();
        let search = write_search(assembler, &low, no);
        let search = assembler.then(LOAD, low_offset, search);
        groups.push(((group[0].1 >> 32) as u32, search));
    }
    match (high_offset, groups.as_slice()) {
        // Values were cut to 32 bits: they are one group.
        (None, groups) => groups.first().map_or(no, |(_, search)| *search),
        (Some(offset), groups) => {
            let search = write_search(assembler, groups, no);
            assembler.then(LOAD, offset, search)
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
fn write_condition(assembler: &mut Assembler, arg: &Arg, words: &Words, yes: Target, no: Target) -> Target {
    let (low_offset, high_offset) = words[arg.index as usize];
    let low = arg.value as u32;
    // Classic BPF compares 32 bits; unless the high words decide, the low words do.
    let high = high_offset.map(|offset| (offset, (arg.value >> 32) as u32));
    let (yes, no) = match arg.op {
        Operator::NotEqual | Operator::Less | Operator::LessOrEqual => (no, yes),
        _ => (yes, no),
    };
    match arg.op {
        Operator::Equal | Operator::NotEqual => {
            let test = assembler.branch(EQUAL, low, yes, no);
            let test = assembler.then(LOAD, low_offset, test);
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
            let test = assembler.then(LOAD, low_offset, test);
            let Some((offset, high)) = high else { return test };
            let test = assembler.branch(EQUAL, high, test, no);
            let test = assembler.branch(GREATER, high, yes, test);
            assembler.then(LOAD, offset, test)
        }
        Operator::MaskedEqual => {
            let test = write_masked(assembler, low_offset, low, arg.value_two as u32, yes, no);
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
