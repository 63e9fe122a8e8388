//! What the rules of a profile say of each call.

use nix::errno::Errno;

use super::calls::{self, Inner, PRIVATE};
use super::profile::{Action, Arch, Arg, Operator, Profile, Traits, Width};
use super::{MAX_INSTRUCTIONS, too_long};
use crate::error::{Error, Result};

/// Arguments of a system call.
pub(super) const ARGUMENTS: usize = 6;

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

/// A profile with names, verdicts and alternatives worked out.
pub(super) struct Rules {
    /// The verdict for calls that no rule matches.
    pub default: u32,
    /// The same for calls newer than the profile.
    newer: u32,
    rules: Vec<Rule>,
}

struct Rule {
    verdict: u32,
    calls: Vec<Call>,
    /// The conditions that must hold together; any one of these sets is enough.
    alternatives: Vec<Vec<Arg>>,
}

struct Call {
    entry: usize,
    inner: Option<Inner>,
}

pub(super) fn resolve(profile: &Profile<'_>) -> Result<Rules> {
    let default = verdict(profile.default_action, profile.default_errno, || "linux.seccomp.defaultErrnoRet".into())?;
    // patchbpf in runc: where the default lets a call happen or asks a tracer, a new call is no exception.
    let permits = matches!(profile.default_action, Action::Allow | Action::Log | Action::Trace);
    let newer = if permits { default } else { Action::Errno.code() | Errno::ENOSYS as u32 };
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
        rules.push(Rule { verdict, calls, alternatives: alternatives(&rule.args, &property)? });
    }
    Ok(Rules { default, newer, rules })
}

/// Two conditions on one argument make every condition an alternative, as in runc's matchCall and in crun: before
/// libseccomp 2.5 there was no other way to write "one of these values", and profiles still do.
fn alternatives(args: &[Arg], property: &dyn Fn(&str) -> String) -> Result<Vec<Vec<Arg>>> {
    let mut seen = [false; ARGUMENTS];
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
    args.sort_unstable_by_key(|arg| arg.index);
    Ok(vec![args])
}

/// What happens to calls of one number.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// No rule: the default.
    Default,
    Always(u32),
    /// The conditional rules at this index of [`Section::branches`].
    When(u32),
}

/// A conditional rule of one call.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Branch {
    /// All must hold. Sorted by argument, none twice, never empty.
    pub conditions: Vec<Arg>,
    pub verdict: u32,
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
pub(super) struct Section {
    traits: Traits,
    /// By slot: first Linux's own calls, then Arm's private ones. Each ends with the highest that the profile names.
    pub outcomes: [Vec<Outcome>; 2],
    /// Alternatives in the order in which they are tried.
    pub branches: Vec<Vec<Branch>>,
    /// The verdict for calls above all that the profile names.
    pub newer: u32,
}

impl Rules {
    /// The rules as they are on `arch`.
    pub fn apply(&self, arch: Arch) -> Result<Section> {
        let traits = arch.traits();
        let outcomes = [Vec::with_capacity(512), vec![]];
        let mut section = Section { traits, outcomes, branches: vec![], newer: self.newer };
        for rule in &self.rules {
            for call in &rule.calls {
                let slot = calls::slot(&section.traits, call.entry);
                let outer = call.inner.and_then(|i| Some((calls::outer_slot(&section.traits, i)?, i.selector)));
                for slot in slot.into_iter().chain(outer.map(|(slot, _)| slot)) {
                    section.outcome(slot);
                }
                // Skipped, as in runc and crun; libseccomp refuses such rules.
                if rule.verdict == self.default {
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
        if section.outcomes.iter().all(Vec::is_empty) {
            // No name, no newest.
            section.newer = self.default;
        } else if self.newer != self.default && matches!(arch, Arch::S390 | Arch::S390x) {
            // setup is long gone, but a call that the kernel does not know arrives under its number (runc#3474).
            *section.outcome(0) = Outcome::Always(self.newer);
        }
        Ok(section)
    }
}

impl Section {
    /// Where the outcome of `slot` is kept; from then on the profile is known to name it.
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
            *self.outcome(slot) = Outcome::When(self.branches.len() as u32);
            self.branches.push(vec![branch]);
            return Ok(());
        };
        let branches = &mut self.branches[index as usize];
        if branches.iter().all(|other| other.conditions != branch.conditions) {
            let place = branches.iter().position(|other| branch.precedes(other)).unwrap_or(branches.len());
            branches.insert(place, branch);
        }
        // Each takes an instruction or more: stop before the work grows with the square of their number.
        match branches.len() {
            count if count > MAX_INSTRUCTIONS => Err(too_long(&format!("more than {count}"))),
            _ => Ok(()),
        }
    }
}

/// The conditions for a call that is reached through another one, by `selector` as its first argument.
///
/// Those on later arguments then look at registers that mean nothing: so does libseccomp, and a profile that cares
/// refuses the outer call.
fn behind(selector: u8, conditions: &[Arg]) -> Vec<Arg> {
    let selector = Arg { index: 0, value: selector.into(), value_two: 0, op: Operator::Equal };
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
}
