//! The seccomp compiler against two others: an evaluator that reads the profile call by call, and libseccomp.
//!
//! The evaluator has to agree always. libseccomp does not know runc's ENOSYS rule, kills a thread where a call of
//! another architecture kills the process (set equal here), and is left out where [`Reference::libseccomp_differs`]
//! says why. `KELSON_SEED` repeats a run, `KELSON_PROFILES` makes it longer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;

use kelson::security::seccomp::{Action, Arch, Arg, Instruction, Operator, Profile, Program, Rule, compile, number};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

#[path = "../src/security/seccomp/testing.rs"]
mod testing;

use testing::{Call, check, run};

const ENOSYS: u32 = 0x0005_0000 | 38;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Architectures that libseccomp 2.5 has too, as it names them, with `AUDIT_ARCH_*`, and the bits it compares.
const LITTLE: [(Arch, ScmpArch, u32, u32); 10] = [
    (Arch::X86_64, ScmpArch::X8664, 0xc000_003e, 64),
    (Arch::X86, ScmpArch::X86, 0x4000_0003, 32),
    (Arch::X32, ScmpArch::X32, 0xc000_003e, 32),
    (Arch::Aarch64, ScmpArch::Aarch64, 0xc000_00b7, 64),
    (Arch::Arm, ScmpArch::Arm, 0x4000_0028, 32),
    (Arch::Riscv64, ScmpArch::Riscv64, 0xc000_00f3, 64),
    (Arch::Ppc64le, ScmpArch::Ppc64Le, 0xc000_0015, 64),
    (Arch::Mipsel, ScmpArch::Mipsel, 0x4000_0008, 32),
    (Arch::Mipsel64, ScmpArch::Mipsel64, 0xc000_0008, 64),
    (Arch::Mipsel64N32, ScmpArch::Mipsel64N32, 0xe000_0008, 32),
];
const BIG: [(Arch, ScmpArch, u32, u32); 9] = [
    (Arch::S390x, ScmpArch::S390X, 0x8000_0016, 64),
    (Arch::S390, ScmpArch::S390, 0x0000_0016, 32),
    (Arch::Ppc64, ScmpArch::Ppc64, 0x8000_0015, 64),
    (Arch::Ppc, ScmpArch::Ppc, 0x0000_0014, 32),
    (Arch::Mips, ScmpArch::Mips, 0x0000_0008, 32),
    (Arch::Mips64, ScmpArch::Mips64, 0x8000_0008, 64),
    (Arch::Mips64N32, ScmpArch::Mips64N32, 0xa000_0008, 32),
    (Arch::Parisc, ScmpArch::Parisc, 0x0000_000f, 32),
    (Arch::Parisc64, ScmpArch::Parisc64, 0x8000_000f, 64),
];

fn family(big_endian: bool) -> &'static [(Arch, ScmpArch, u32, u32)] {
    if big_endian { &BIG } else { &LITTLE }
}

fn facts(arch: Arch) -> (ScmpArch, u32, u32) {
    let (_, scmp, audit, bits) = *LITTLE.iter().chain(&BIG).find(|(known, ..)| *known == arch).unwrap();
    (scmp, audit, bits)
}

/// splitmix64: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Values on both sides of every boundary that the comparison of two words has.
const VALUES: [u64; 14] = [
    0,
    1,
    5,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x5_0000_0005,
    0x7e02_0000,
    0x8000_0000_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

const ACTIONS: [Action; 8] = [
    Action::KillThread,
    Action::KillProcess,
    Action::Trap,
    Action::Errno,
    Action::Trace,
    Action::Allow,
    Action::Log,
    Action::Notify,
];

fn errno_of(random: &mut Random, action: Action) -> Option<u32> {
    (action.takes_errno() && random.one_in(2)).then(|| random.pick(&[0, 1, 22, 38, 4094]))
}

fn some_rule(random: &mut Random, names: Vec<Cow<'static, str>>, actions: &[Action], simple: bool) -> Rule<'static> {
    let action = random.pick(actions);
    let mut args = vec![];
    for _ in 0..random.pick(if simple { &[0, 1, 1, 1] } else { &[0, 0, 1, 1, 1, 2, 2, 3] }) {
        let index = random.pick(&[0, 0, 0, 0, 1, 2, 3, 4, 5]);
        let op = random.pick(&Operator::NAMES).1;
        let op = if is_ordered(op) && simple { Operator::Equal } else { op };
        let value = random.pick(&VALUES);
        let value_two = if op == Operator::MaskedEqual { random.pick(&VALUES) } else { 0 };
        args.push(Arg { index, value, value_two, op });
    }
    Rule { names, action, errno: errno_of(random, action), args }
}

/// A profile of few calls, so that rules meet; now and then of many.
fn some_profile(random: &mut Random, all: &[&'static str], big_endian: bool) -> (Profile<'static>, Arch) {
    const INNER: [&str; 6] = ["socket", "sendmmsg", "shmat", "semtimedop", "socketcall", "ipc"];
    let native = if big_endian { Arch::S390x } else { Arch::X86_64 };
    let mut names: Vec<&str> = (0..2 + random.below(6)).map(|_| random.pick(all)).collect();
    if random.one_in(3) {
        names.push(random.pick(&INNER));
        names.push(random.pick(&INNER));
    }
    let mut count = 1 + random.below(12);
    if random.one_in(20) {
        names = all.to_vec();
        count = 150;
    }
    let default_action = random.pick(&ACTIONS[..7]);
    let default_errno = errno_of(random, default_action);
    // With one action per profile rules cannot contradict each other: libseccomp then has to agree.
    let action = random.pick(&ACTIONS);
    let actions = if random.one_in(2) { &ACTIONS[..] } else { std::slice::from_ref(&action) };
    // libseccomp wants one rule of a call, or several with one equality each: both kinds, and what neither is.
    let (alone, simple) = random.pick(&[(true, false), (false, true), (false, false)]);
    let mut rules = vec![];
    for _ in 0..count {
        let mut some = vec![];
        for _ in 0..(1 + random.below(4)).min(names.len()) {
            let at = random.below(names.len());
            some.push(if alone { names.swap_remove(at) } else { names[at] }.into());
        }
        if !some.is_empty() {
            rules.push(some_rule(random, some, actions, simple));
        }
    }
    let architectures = (0..random.below(4)).map(|_| random.pick(family(big_endian)).0).collect();
    (Profile { default_action, default_errno, architectures, rules }, native)
}

/// The profile as its text says, one call at a time.
struct Reference<'a> {
    profile: &'a Profile<'a>,
    arches: Vec<Arch>,
    /// For each architecture, the rules that speak of a number; none where they are those of the default.
    rules: Vec<BTreeMap<u32, Vec<Candidate>>>,
}

/// A rule, or a part of one, that speaks of a certain number.
struct Candidate {
    conditions: Vec<Arg>,
    verdict: u32,
}

/// What the reference says of a call.
struct Answer {
    verdict: u32,
    /// Why libseccomp may say something else.
    excuse: Option<&'static str>,
}

fn verdict(action: Action, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(1);
    match action {
        Action::KillThread => 0,
        Action::KillProcess => KILL_PROCESS,
        Action::Trap => 0x0003_0000,
        Action::Errno => 0x0005_0000 | errno,
        Action::Notify => 0x7fc0_0000,
        Action::Trace => 0x7ff0_0000 | errno,
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}

fn selector(name: &str) -> Option<(&'static str, u64)> {
    let socketcall = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    let ipc = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let socket = socketcall.iter().position(|known| *known == name).map(|at| ("socketcall", at as u64 + 1));
    socket.or_else(|| ipc.iter().find(|(known, _)| *known == name).map(|(_, selector)| ("ipc", *selector)))
}

/// The rules of `profile` for each number of `arch` that it names.
fn rules_of(profile: &Profile<'_>, arch: Arch) -> BTreeMap<u32, Vec<Candidate>> {
    let default = verdict(profile.default_action, profile.default_errno);
    let mask = if facts(arch).2 == 32 { 0xffff_ffff } else { u64::MAX };
    let mut found: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
    for rule in &profile.rules {
        let verdict = verdict(rule.action, rule.errno);
        let repeated = rule.args.iter().enumerate().any(|(i, a)| rule.args[..i].iter().any(|b| a.index == b.index));
        let alternatives: Vec<Vec<Arg>> =
            if repeated { rule.args.iter().map(|arg| vec![*arg]).collect() } else { vec![rule.args.clone()] };
        for name in &rule.names {
            let direct = number(name, arch).map(|number| (number, None));
            let behind = selector(name).and_then(|(outer, value)| Some((number(outer, arch)?, Some(value))));
            for (number, selector) in behind.into_iter().chain(direct) {
                let found = found.entry(number).or_default();
                for conditions in alternatives.iter().filter(|_| verdict != default) {
                    let mut conditions = conditions.clone();
                    if let Some(value) = selector {
                        conditions.retain(|arg| arg.index != 0);
                        conditions.push(Arg { index: 0, value, value_two: 0, op: Operator::Equal });
                    }
                    conditions.retain(|arg| arg.op != Operator::MaskedEqual || arg.value & mask != 0);
                    conditions.sort_by_key(|arg| arg.index);
                    for arg in &mut conditions {
                        arg.value &= mask;
                        arg.value_two &= arg.value;
                    }
                    found.push(Candidate { conditions, verdict });
                }
            }
        }
    }
    found
}

impl<'a> Reference<'a> {
    fn new(profile: &'a Profile<'a>, native: Arch) -> Self {
        let mut arches = vec![native];
        arches.extend(profile.architectures.iter().filter(|arch| **arch != native));
        let rules = arches.iter().map(|arch| rules_of(profile, *arch)).collect();
        Self { profile, arches, rules }
    }

    fn rules(&self, arch: Arch) -> &BTreeMap<u32, Vec<Candidate>> {
        &self.rules[self.arches.iter().position(|other| *other == arch).unwrap()]
    }

    fn candidates(&self, call: &Call, arch: Arch) -> &[Candidate] {
        self.rules(arch).get(&call.number).map_or(&[], Vec::as_slice)
    }

    /// The architecture that a call belongs to.
    fn arch(&self, call: &Call) -> Option<Arch> {
        let x32 = call.audit == 0xc000_003e && call.number >= 0x4000_0000;
        let x32 = x32 && (call.number != u32::MAX || !self.arches.contains(&Arch::X86_64));
        let fits = |arch: &Arch| facts(*arch).1 == call.audit && (*arch == Arch::X32) == x32;
        let skipped = |arch: &Arch| *arch == Arch::X32 && call.number == u32::MAX && call.audit == 0xc000_003e;
        self.arches.iter().find(|arch| skipped(arch)).or_else(|| self.arches.iter().find(|arch| fits(arch))).copied()
    }

    fn default(&self) -> u32 {
        verdict(self.profile.default_action, self.profile.default_errno)
    }

    /// A call and the rules for it, to be read by people.
    fn describe(&self, call: &Call) -> String {
        let mut text = format!("{call:x?}, {:?}, default {:#x}", self.arch(call), self.default());
        for candidate in self.arch(call).map_or(&[][..], |arch| self.candidates(call, arch)) {
            text += &format!("\n  {:#x} if", candidate.verdict);
            for Arg { index, value, value_two, op } in &candidate.conditions {
                text += &format!(" args[{index}] {op:?} {value:#x} {value_two:#x},");
            }
        }
        text
    }

    /// Whether libseccomp 2.5 can be asked for `arch`. Its tree of conditions (db.c, `_db_tree_add` and
    /// `_db_tree_prune`) holds one rule of a call, or several with one equality each. Otherwise it may lose a rule: when
    /// of another the first condition holds and the second does not, or when they compare for order; or never end.
    fn suits_libseccomp(&self, arch: Arch) -> bool {
        let simple = |candidate: &Candidate| match candidate.conditions.as_slice() {
            [] => true,
            [arg] => !is_ordered(arg.op),
            _ => false,
        };
        self.rules(arch).values().all(|candidates| candidates.len() < 2 || candidates.iter().all(simple))
    }

    /// Above the highest number that the profile names, Arm's private calls apart.
    fn is_newer(&self, call: &Call, arch: Arch) -> bool {
        let is_private = |number: u32| arch == Arch::Arm && number >= 0xf_0000;
        let last = |private| self.rules(arch).keys().rev().find(|number| is_private(**number) == private);
        match (is_private(call.number), last(false), last(true)) {
            (true, _, Some(last)) | (_, Some(last), _) => call.number > *last,
            _ => false,
        }
    }

    fn ask(&self, call: &Call) -> Answer {
        let Some(arch) = self.arch(call) else { return Answer { verdict: KILL_PROCESS, excuse: None } };
        let denies = !matches!(self.profile.default_action, Action::Allow | Action::Log | Action::Trace);
        if denies && self.is_newer(call, arch) {
            return Answer { verdict: ENOSYS, excuse: Some("libseccomp has no rule for newer calls") };
        }
        // With a number above any it is newer, if the profile names one at all.
        let unknown = Call { number: 1 << 29, ..*call };
        if denies && matches!(arch, Arch::S390 | Arch::S390x) && call.number == 0 && self.is_newer(&unknown, arch) {
            return Answer { verdict: ENOSYS, excuse: Some("libseccomp does not know what setup stands for") };
        }
        let candidates = self.candidates(call, arch);
        if let Some(plain) = candidates.iter().find(|candidate| candidate.conditions.is_empty()) {
            return Answer { verdict: plain.verdict, excuse: libseccomp_differs(call, arch, &[], &[]) };
        }
        let mask = if facts(arch).2 == 32 { 0xffff_ffff } else { u64::MAX };
        let holds = |arg: &Arg| {
            let argument = call.args[arg.index as usize] & mask;
            match arg.op {
                Operator::NotEqual => argument != arg.value,
                Operator::Less => argument < arg.value,
                Operator::LessOrEqual => argument <= arg.value,
                Operator::Equal => argument == arg.value,
                Operator::GreaterOrEqual => argument >= arg.value,
                Operator::Greater => argument > arg.value,
                Operator::MaskedEqual => argument & arg.value == arg.value_two,
            }
        };
        let matching = candidates.iter().filter(|candidate| candidate.conditions.iter().all(holds));
        let verdicts: Vec<u32> = matching.map(|candidate| candidate.verdict).collect();
        let excuse = libseccomp_differs(call, arch, candidates, &verdicts);
        let mut order: Vec<&Candidate> = vec![];
        for candidate in candidates {
            let place = order.iter().position(|other| goes_before(candidate, other)).unwrap_or(order.len());
            order.insert(place, candidate);
        }
        let verdict = order.iter().find(|candidate| candidate.conditions.iter().all(holds));
        Answer { verdict: verdict.map_or(self.default(), |candidate| candidate.verdict), excuse }
    }
}

/// Why libseccomp 2.5 may give another verdict for a call: `candidates` are the rules for it, `verdicts` those of the
/// rules that match.
fn libseccomp_differs(call: &Call, arch: Arch, candidates: &[Candidate], verdicts: &[u32]) -> Option<&'static str> {
    let (scmp, _, bits) = facts(arch);
    if ScmpSyscall::from_raw_syscall(call.number as i32).get_name_by_arch(scmp).is_err() {
        return Some("it does not know the call");
    }
    if verdicts.iter().any(|verdict| *verdict != verdicts[0]) {
        return Some("of rules that contradict each other it may prefer another, by their values");
    }
    let conditions = || candidates.iter().flat_map(|candidate| candidate.conditions.iter().enumerate());
    if bits == 32 && conditions().any(|(place, arg)| place > 0 && arg.op == Operator::LessOrEqual) {
        return Some("it turns LE after another condition into GT where words are 32 bits (db.c, _db_rule_gen_arg_32)");
    }
    None
}

fn is_ordered(op: Operator) -> bool {
    matches!(op, Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual)
}

/// "The more specific first", as the head of the compiler says it.
fn goes_before(one: &Candidate, other: &Candidate) -> bool {
    let class = |arg: &Arg| match arg.op {
        Operator::Equal | Operator::NotEqual | Operator::MaskedEqual => 2,
        Operator::Less | Operator::LessOrEqual => 1,
        Operator::Greater | Operator::GreaterOrEqual => 0,
    };
    for (a, b) in one.conditions.iter().zip(&other.conditions) {
        if a.index != b.index {
            return a.index > b.index;
        }
        if class(a) != class(b) {
            return class(a) > class(b);
        }
        if a.value != b.value && class(a) < 2 {
            return (a.value < b.value) == (class(a) == 1);
        }
    }
    false
}

/// The filter that libseccomp makes of `profile` for `arches`, the way runc asks for it; `None` if it refuses.
///
/// Calls that none of them has are left out: if such a call comes first by priority, 2.5.4 forgets to load the number,
/// and all rules of that architecture look at something else. It also happens to calls that are only behind `ipc` or
/// `socketcall`: `None` then, too.
fn libseccomp(profile: &Profile<'_>, arches: &[Arch]) -> Option<Vec<Instruction>> {
    let action = |action, errno: Option<u32>| match action {
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno => ScmpAction::Errno(errno.unwrap_or(1) as i32),
        Action::Trace => ScmpAction::Trace(errno.unwrap_or(1) as u16),
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Notify => ScmpAction::Notify,
    };
    let default = action(profile.default_action, profile.default_errno);
    let mut filter = ScmpFilterContext::new(default).unwrap();
    filter.set_act_badarch(ScmpAction::KillProcess).unwrap();
    filter.remove_arch(ScmpArch::Native).unwrap();
    for arch in arches {
        filter.add_arch(facts(*arch).0).unwrap();
    }
    for rule in &profile.rules {
        let verdict = action(rule.action, rule.errno);
        if verdict == default {
            continue;
        }
        let conditions: Vec<ScmpArgCompare> = rule
            .args
            .iter()
            .map(|arg| {
                let (op, datum) = match arg.op {
                    Operator::NotEqual => (ScmpCompareOp::NotEqual, arg.value),
                    Operator::Less => (ScmpCompareOp::Less, arg.value),
                    Operator::LessOrEqual => (ScmpCompareOp::LessOrEqual, arg.value),
                    Operator::Equal => (ScmpCompareOp::Equal, arg.value),
                    Operator::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, arg.value),
                    Operator::Greater => (ScmpCompareOp::Greater, arg.value),
                    Operator::MaskedEqual => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
                };
                ScmpArgCompare::new(arg.index, op, datum)
            })
            .collect();
        let repeated = rule.args.iter().enumerate().any(|(i, a)| rule.args[..i].iter().any(|b| a.index == b.index));
        for name in &rule.names {
            let outer = selector(name).map_or(&**name, |(outer, _)| outer);
            if arches.iter().all(|arch| number(name, *arch).or(number(outer, *arch)).is_none()) {
                continue;
            }
            let Ok(call) = ScmpSyscall::from_name(name) else { continue };
            let added = match conditions.as_slice() {
                [] => filter.add_rule(verdict, call).map(drop),
                all if !repeated => filter.add_rule_conditional(verdict, call, all).map(drop),
                each => each.iter().try_for_each(|one| {
                    filter.add_rule_conditional(verdict, call, std::slice::from_ref(one)).map(drop)
                }),
            };
            added.ok()?;
        }
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    // A program of 4096 instructions takes half of what a pipe holds.
    filter.export_bpf(&writer).ok()?;
    drop(writer);
    let mut bytes = vec![];
    reader.read_to_end(&mut bytes).unwrap();
    // In the byte order of the architecture that the filter is for.
    let big_endian = BIG.iter().any(|(arch, ..)| arches.contains(arch));
    let instruction = |bytes: &[u8]| {
        let (code, k) = ([bytes[0], bytes[1]], [bytes[4], bytes[5], bytes[6], bytes[7]]);
        let (code, k) = match big_endian {
            true => (u16::from_be_bytes(code), u32::from_be_bytes(k)),
            false => (u16::from_le_bytes(code), u32::from_le_bytes(k)),
        };
        Instruction { code, jt: bytes[2], jf: bytes[3], k }
    };
    let program: Vec<Instruction> = bytes.chunks_exact(8).map(instruction).collect();
    // The first three load the architecture, compare it, and load the number.
    let loads_number = program.get(2).is_some_and(|third| (third.code, third.k) == (0x20, 0));
    (loads_number || program.len() < 5 || arches.len() > 1).then_some(program)
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Every call that libseccomp has: its name, and where.
fn libseccomp_calls() -> Vec<(String, Arch, u32)> {
    let mut calls = vec![];
    for (arch, scmp, ..) in LITTLE.iter().chain(&BIG) {
        let base = number("read", *arch).unwrap() / 1000 * 1000;
        let base = if *arch == Arch::X32 { 0x4000_0000 } else { base };
        for number in (base..base + 600).chain(0xf_0000..0xf_0010) {
            if let Ok(name) = ScmpSyscall::from_raw_syscall(number as i32).get_name_by_arch(*scmp) {
                calls.push((name, *arch, number));
            }
        }
    }
    calls
}

#[test]
fn numbers_are_libseccomps() {
    let calls = libseccomp_calls();
    assert!(calls.len() > 6000, "{}", calls.len());
    for (name, arch, wanted) in calls {
        // The 64-bit ABI of PA-RISC never had a use for it, and lost it.
        if name != "_llseek" || arch != Arch::Parisc64 {
            assert_eq!(number(&name, arch), Some(wanted), "{name} on {arch:?}");
        }
    }
}

#[test]
fn generated_profiles_mean_the_same_to_all() {
    let seed = environment("KELSON_SEED", 0x6b65_6c73_6f6e);
    let profiles = environment("KELSON_PROFILES", 8000);
    println!("seed {seed}, {profiles} profiles");
    let mut names: Vec<String> = libseccomp_calls().into_iter().map(|(name, ..)| name).collect();
    names.sort();
    names.dedup();
    // It takes sys_debug_setcontext for switch_endian, whose pseudo number it shares, and does not know that
    // sync_file_range2 is another name of arm_sync_file_range.
    names.retain(|name| {
        let same = ScmpSyscall::from_name(name).and_then(|call| call.get_name());
        same.is_ok_and(|same| same == *name) && !["sync_file_range2", "arm_sync_file_range"].contains(&&**name)
    });
    // Leaked once: profiles of this test live as long as it.
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let mut random = Random(seed);
    let mut compared = [0usize; 4];
    let mut excuses = BTreeMap::new();
    for index in 0..profiles {
        let big_endian = random.one_in(5);
        let (profile, native) = some_profile(&mut random, &names, big_endian);
        let program = match compile(&profile, native) {
            Ok(program) => program,
            Err(error) => {
                assert!(error.to_string().contains("the kernel takes 4096"), "{error}");
                continue;
            }
        };
        check(&program.instructions);
        let reference = Reference::new(&profile, native);
        let ask = |arch: &Arch| reference.suits_libseccomp(*arch).then(|| libseccomp(&profile, &[*arch])).flatten();
        let oracles: Vec<_> = reference.arches.iter().map(ask).collect();
        compared[2] += oracles.iter().flatten().count();
        compared[3] += oracles.len();
        for call in some_calls(&mut random, &profile, big_endian) {
            let answer = reference.ask(&call);
            let (own, _) = run(&program.instructions, &call);
            assert_eq!(own, answer.verdict, "seed {seed} profile {index}: {}", reference.describe(&call));
            compared[0] += 1;
            let arch = reference.arch(&call);
            let place = reference.arches.iter().position(|other| Some(*other) == arch);
            let Some(oracle) = place.and_then(|place| oracles[place].as_ref()) else { continue };
            let (theirs, _) = run(oracle, &call);
            // Returns that it repeats for the reach of jumps have their bytes swapped twice (gen_bpf.c).
            if theirs == own || big_endian && theirs.swap_bytes() == own {
                compared[1] += 1;
                continue;
            }
            let Some(excuse) = answer.excuse else {
                panic!("seed {seed} profile {index}: {own:#x}, libseccomp {theirs:#x}: {}", reference.describe(&call));
            };
            *excuses.entry(excuse).or_insert(0) += 1;
        }
    }
    let [calls, as_libseccomp, asked, filters] = compared;
    println!("{calls} calls as the reference, {as_libseccomp} as libseccomp, which made {asked} of {filters} filters");
    println!("{excuses:#?}");
}

/// Calls at and beside every number of the profile, with arguments at and beside every value.
fn some_calls(random: &mut Random, profile: &Profile<'_>, big_endian: bool) -> Vec<Call> {
    let mut calls = vec![];
    let mut values: Vec<u64> = VALUES.to_vec();
    for arg in profile.rules.iter().flat_map(|rule| &rule.args) {
        values.extend([arg.value, arg.value.wrapping_sub(1), arg.value.wrapping_add(1), arg.value_two]);
    }
    values.extend([1, 4, 20, 21, 24]);
    let names: Vec<&str> = profile.rules.iter().flat_map(|rule| &rule.names).map(|name| &**name).collect();
    for (arch, _, audit, _) in family(big_endian) {
        let edges = [0, 1, 0x3fff_ffff, 0x4000_0000, 0x4000_0100, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        let mut numbers = vec![random.pick(&edges), random.next() as u32 % 600];
        for _ in 0..names.len().min(8) {
            let name = random.pick(&names);
            for name in [name, "socketcall", "ipc"] {
                numbers.extend(number(name, *arch).map(|number| number.wrapping_add(random.pick(&[0, 0, 0, 1, !0]))));
            }
        }
        for number in numbers {
            for _ in 0..3 {
                calls.push(Call { number, audit: *audit, args: std::array::from_fn(|_| random.pick(&values)) });
            }
        }
    }
    calls
}

/// Every pair of conditions, the first allowing and the second logging: the order that the compiler claims to have from
/// libseccomp. Bounds on both sides of 2^32 are left out: there it answers `>= 0x700000000` for 0x15.
#[test]
fn of_two_rules_libseccomps_choice_decides() {
    let bounds = [5, 9, 22];
    let indices_and_ops = [0, 1].into_iter().flat_map(|index| Operator::NAMES.map(|(_, op)| (index, op)));
    let conditions: Vec<Arg> = indices_and_ops
        .filter(|(_, op)| *op != Operator::MaskedEqual)
        .flat_map(|(index, op)| bounds.map(|value| Arg { index, value, value_two: 0, op }))
        .collect();
    let rule = |action, arg: &Arg| Rule { names: vec!["prctl".into()], action, errno: None, args: vec![*arg] };
    let (mut pairs, mut refused) = (0, 0);
    for (first, second) in conditions.iter().flat_map(|first| conditions.iter().map(move |second| (first, second))) {
        // There it goes by the greater value, the compiler by the earlier rule.
        if first.index == second.index && !is_ordered(first.op) && !is_ordered(second.op) {
            continue;
        }
        let rules = vec![rule(Action::Allow, first), rule(Action::Log, second)];
        let profile = Profile { default_action: Action::Errno, default_errno: None, architectures: vec![], rules };
        let own = compile(&profile, Arch::X86_64).unwrap().instructions;
        let Some(theirs) = libseccomp(&profile, &[Arch::X86_64]) else {
            refused += 1;
            continue;
        };
        for (a, b) in (4..24).flat_map(|a| (4..24).map(move |b| (a, b))) {
            let number = number("prctl", Arch::X86_64).unwrap();
            let call = Call { number, audit: 0xc000_003e, args: [a, b, 0, 0, 0, 0] };
            assert_eq!(run(&own, &call).0, run(&theirs, &call).0, "{first:?} {second:?} ({a}, {b})");
        }
        pairs += 1;
    }
    println!("{pairs} pairs; libseccomp refused {refused}, whose conditions are the same");
    assert!(pairs > 1000 && refused < 50);
}

/// Podman's default profile with its default capabilities, as it writes it into config.json.
fn podman() -> Profile<'static> {
    let json: serde_json::Value = serde_json::from_str(include_str!("data/podman-seccomp.json")).unwrap();
    let json = &*Box::leak(Box::new(json));
    let text = |value: &'static serde_json::Value| value.as_str().unwrap();
    let errno = |value: &serde_json::Value| value.as_u64().map(|errno| errno as u32);
    let list = |value: &'static serde_json::Value| value.as_array().map_or(&[][..], Vec::as_slice);
    let rules = list(&json["syscalls"]).iter().map(|rule| Rule {
        names: list(&rule["names"]).iter().map(|name| text(name).into()).collect(),
        action: Action::from_name(text(&rule["action"])).unwrap(),
        errno: errno(&rule["errnoRet"]),
        args: list(&rule["args"])
            .iter()
            .map(|arg| Arg {
                index: arg["index"].as_u64().unwrap() as u32,
                value: arg["value"].as_u64().unwrap(),
                value_two: arg["valueTwo"].as_u64().unwrap_or(0),
                op: Operator::from_name(text(&arg["op"])).unwrap(),
            })
            .collect(),
    });
    Profile {
        default_action: Action::from_name(text(&json["defaultAction"])).unwrap(),
        default_errno: errno(&json["defaultErrnoRet"]),
        architectures: list(&json["architectures"]).iter().map(|name| Arch::from_name(text(name)).unwrap()).collect(),
        rules: rules.collect(),
    }
}

#[test]
fn podmans_profile_is_small_and_means_the_same_to_all() {
    let profile = podman();
    let Program { instructions } = compile(&profile, Arch::X86_64).unwrap();
    check(&instructions);
    let oracle = libseccomp(&profile, &[Arch::X86_64, Arch::X86, Arch::X32]).unwrap();
    let reference = Reference::new(&profile, Arch::X86_64);
    let (mut most, mut sum, mut native) = (0, 0, 0);
    for (arch, base) in [(Arch::X86_64, 0), (Arch::X86, 0), (Arch::X32, 0x4000_0000)] {
        for number in base..base + 600 {
            for args in [[0; 6], [16, 2, 9, 0, 0, 0], [16, 2, 0, 0, 0, 0], [0x2_0008, 0, 9, 0, 0, 0]] {
                let call = Call { number, audit: facts(arch).1, args };
                let answer = reference.ask(&call);
                let (own, executed) = run(&instructions, &call);
                assert_eq!(own, answer.verdict, "{call:x?}");
                assert!(run(&oracle, &call).0 == own || answer.excuse.is_some(), "{call:x?}");
                if arch == Arch::X86_64 && number < 472 {
                    (most, sum, native) = (most.max(executed), sum + executed, native + 1);
                }
            }
        }
    }
    let average = sum as f64 / f64::from(native);
    println!("{} instructions; native calls execute {average:.1}, at most {most}", instructions.len());
    assert!(instructions.len() < 500 && most <= 24 && average < 13.0);
}
