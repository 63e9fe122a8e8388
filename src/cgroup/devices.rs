//! Device rules: `linux.resources.devices` → what the kernel enforces. Pure.
//!
//! The rules of config.json are an ordered list in which the last rule that matches decides. Cgroup v1 keeps something
//! else: one answer for every device, and a set of exceptions to it, of which one alone must cover an access
//! (security/device_cgroup.c; it ignores, without a word, a rule that takes a part out of a wider exception).
//! [`List`] is that set, made so that it answers as the ordered list does; a rule that no such set can express is refused.
//! v1 gets its lines, v2 the same set as an eBPF program, so both versions answer alike for every order of rules.

use crate::error::{Error, Result};
use crate::plan::{DeviceRule, DeviceRuleKind};
use crate::sys::bpf::Instruction;

const READ: u8 = 1;
const WRITE: u8 = 2;
const MKNOD: u8 = 4;
const ALL: u8 = READ | WRITE | MKNOD;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Char,
    Block,
}

/// A set of devices: `None` is any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Pattern {
    fn covers(&self, other: &Pattern) -> bool {
        let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
        self.kind == other.kind && covers(self.major, other.major) && covers(self.minor, other.minor)
    }

    /// The devices in both, if there can be any.
    fn intersection(&self, other: &Pattern) -> Option<Pattern> {
        let both = |a: Option<u32>, b: Option<u32>| match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (Some(n), _) | (None, Some(n)) => Some(Some(n)),
            (None, None) => Some(None),
        };
        if self.kind != other.kind {
            return None;
        }
        Some(Pattern { kind: self.kind, major: both(self.major, other.major)?, minor: both(self.minor, other.minor)? })
    }
}

/// Devices that are treated otherwise than the rest, for the kinds of access in `access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    pattern: Pattern,
    access: u8,
    /// Index in `linux.resources.devices`; `None` is a default rule of the runtime.
    origin: Option<usize>,
}

/// What a container may do with devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    default_allow: bool,
    exceptions: Vec<Exception>,
}

/// Allowed in every container, after the rules of config.json, as in runc and crun: making any node (what it stands for
/// stays closed), the default devices, terminals, tun.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),
    (Kind::Char, Some(1), Some(5), ALL),
    (Kind::Char, Some(1), Some(7), ALL),
    (Kind::Char, Some(1), Some(8), ALL),
    (Kind::Char, Some(1), Some(9), ALL),
    (Kind::Char, Some(5), Some(0), ALL),
    (Kind::Char, Some(5), Some(2), ALL),
    (Kind::Char, Some(136), None, ALL),
    (Kind::Char, Some(10), Some(200), ALL),
];

/// One line for a file of the v1 device controller.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub value: String,
    /// The property to blame; `None` for a default rule, which a parent cgroup may forbid without harm.
    pub property: Option<String>,
}

/// The lines of cgroup v1, in order: all for one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines {
    /// Written first, `"a"`, to devices.allow or devices.deny; sets the answer for every device.
    pub default_file: &'static str,
    /// For `exceptions`.
    pub exceptions_file: &'static str,
    pub exceptions: Vec<Line>,
}

impl List {
    /// What `rules` and then the default rules come to. With no rules everything but the defaults is denied, as in runc.
    ///
    /// # Errors
    /// A rule that takes a part out of a wider one that has the opposite answer.
    pub fn new(rules: &[DeviceRule]) -> Result<Self> {
        let mut list = Self { default_allow: false, exceptions: Vec::new() };
        for (index, rule) in rules.iter().enumerate() {
            list.apply(rule, index)?;
        }
        // A config that begins with everything and denies some means what it says: the defaults are in already.
        if !list.default_allow {
            for (kind, major, minor, access) in DEFAULTS {
                list.add(Exception { pattern: Pattern { kind, major, minor }, access, origin: None });
            }
        }
        Ok(list)
    }

    /// Nothing is forbidden.
    pub fn allows_everything(&self) -> bool {
        self.default_allow && self.exceptions.is_empty()
    }

    fn apply(&mut self, rule: &DeviceRule, index: usize) -> Result<()> {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let access = bit(rule.read, READ) | bit(rule.write, WRITE) | bit(rule.mknod, MKNOD);
        let kinds: &[Kind] = match rule.kind {
            // The kernel's own "a" ignores numbers and access. A rule that has some means them, so only one without any
            // becomes an "a".
            DeviceRuleKind::All if rule.major.is_none() && rule.minor.is_none() && access == ALL => {
                *self = Self { default_allow: rule.allow, exceptions: Vec::new() };
                return Ok(());
            }
            DeviceRuleKind::All => &[Kind::Char, Kind::Block],
            DeviceRuleKind::Char => &[Kind::Char],
            DeviceRuleKind::Block => &[Kind::Block],
        };
        for &kind in kinds {
            let pattern = Pattern { kind, major: rule.major, minor: rule.minor };
            if rule.allow == self.default_allow {
                self.take_back(pattern, access, index)?;
            } else if access != 0 {
                self.add(Exception { pattern, access, origin: Some(index) });
            }
        }
        Ok(())
    }

    /// Devices in `pattern` are again treated as all others.
    fn take_back(&mut self, pattern: Pattern, access: u8, index: usize) -> Result<()> {
        for exception in &self.exceptions {
            let touches = exception.access & access != 0 && exception.pattern.intersection(&pattern).is_some();
            if touches && !pattern.covers(&exception.pattern) {
                // runc refuses this too; v1 would ignore the rule without a word.
                let wider = exception.origin.map_or("the default rules".into(), |i| format!("devices[{i}]"));
                let cause = format!("takes a part out of what {wider} says, which cgroups cannot express");
                return Err(Error::config(format!("linux.resources.devices[{index}]"), cause)
                    .hint("name the devices of the wider rule one by one"));
            }
        }
        for exception in &mut self.exceptions {
            if pattern.covers(&exception.pattern) {
                exception.access &= !access;
            }
        }
        self.exceptions.retain(|exception| exception.access != 0);
        Ok(())
    }

    /// Adds an exception, and what keeps the set closed: for every device one exception has all the reading and writing
    /// that any exception gives it, because v1 looks for one that covers the whole access (match_exception), and open(2) may
    /// ask for both at once; mknod(2) asks for nothing else.
    fn add(&mut self, new: Exception) {
        self.insert(new);
        let crossing: Vec<_> = self
            .exceptions
            .iter()
            .filter(|e| !e.pattern.covers(&new.pattern) && !new.pattern.covers(&e.pattern))
            .filter_map(|e| Some(Exception { pattern: e.pattern.intersection(&new.pattern)?, access: 0, ..new }))
            .collect();
        for exception in crossing {
            self.insert(exception);
        }
        for i in 0..self.exceptions.len() {
            let of = self.exceptions[i].pattern;
            let covering = self.exceptions.iter().filter(|e| e.pattern.covers(&of));
            let more = covering.fold(0, |access, e| access | e.access) & (READ | WRITE);
            self.exceptions[i].access |= more;
        }
    }

    fn insert(&mut self, new: Exception) {
        match self.exceptions.iter_mut().find(|e| e.pattern == new.pattern) {
            Some(exception) => exception.access |= new.access,
            None => self.exceptions.push(new),
        }
    }

    /// Exceptions that say something that no wider one says.
    fn needed(&self) -> impl Iterator<Item = &Exception> {
        self.exceptions.iter().filter(|e| {
            !self.exceptions.iter().any(|wide| {
                wide.pattern != e.pattern && wide.pattern.covers(&e.pattern) && e.access & !wide.access == 0
            })
        })
    }

    /// The form of cgroup v1 (Documentation/admin-guide/cgroup-v1/devices.rst).
    pub fn v1(&self) -> Lines {
        let (default_file, exceptions_file) =
            if self.default_allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        let exceptions = self.needed().map(|e| Line {
            value: e.to_v1(),
            property: e.origin.map(|index| format!("linux.resources.devices[{index}]")),
        });
        Lines { default_file, exceptions_file, exceptions: exceptions.collect() }
    }

    /// Devices and the access to them, as systemd's DeviceAllow= has them; `None` if more is allowed than such a list can say. Who has
    /// any major and one minor is left out.
    pub fn allowed(&self) -> Option<Vec<(String, String)>> {
        if self.default_allow {
            return None;
        }
        let device = |pattern: &Pattern| {
            let kind = if pattern.kind == Kind::Char { "char" } else { "block" };
            match (pattern.major, pattern.minor) {
                (None, None) => Some(format!("{kind}-*")),
                (Some(major), None) => Some(format!("{kind}-{major}")),
                (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
                (None, Some(_)) => None,
            }
        };
        // Also what a wider exception has that is left out.
        Some(self.exceptions.iter().filter_map(|e| Some((device(&e.pattern)?, access_letters(e.access)))).collect())
    }

    /// The form of cgroup v2: a program of type BPF_PROG_TYPE_CGROUP_DEVICE that returns 1 for what is allowed.
    ///
    /// It has no jumps: the kernel's verifier follows each way through a program, and took 0.5 ms where every exception
    /// was a branch.
    pub fn program(&self) -> Vec<Instruction> {
        let mut program = vec![
            load_word(TYPE, CONTEXT, 0),
            operation(ALU32_MOV_REGISTER, ACCESS, TYPE, 0),
            operation(ALU32_AND, TYPE, 0, 0xffff),
            operation(ALU32_SHIFT_RIGHT, ACCESS, 0, 16),
            load_word(MAJOR, CONTEXT, 4),
            load_word(MINOR, CONTEXT, 8),
            operation(ALU64_MOV, ANSWER, 0, self.default_allow.into()),
        ];
        for exception in self.needed() {
            self.apply_exception(exception, &mut program);
        }
        // Says to every verifier that nothing but 0 and 1 is returned.
        program.push(operation(ALU64_AND, ANSWER, 0, 1));
        program.push(operation(EXIT, 0, 0, 0));
        program
    }

    /// Turns the answer if `exception` matches.
    fn apply_exception(&self, exception: &Exception, program: &mut Vec<Instruction>) {
        // 32 bits, of which each that is set is a difference.
        program.push(operation(ALU32_MOV_REGISTER, MISMATCH, TYPE, 0));
        program.push(operation(ALU32_XOR, MISMATCH, 0, kernel_type(exception.pattern.kind)));
        let mut differs = |register: u8, code: u8, immediate: i32| {
            program.push(operation(ALU32_MOV_REGISTER, PART, register, 0));
            program.push(operation(code, PART, 0, immediate));
            program.push(operation(ALU32_OR_REGISTER, MISMATCH, PART, 0));
        };
        if let Some(major) = exception.pattern.major {
            differs(MAJOR, ALU32_XOR, major as i32);
        }
        if let Some(minor) = exception.pattern.minor {
            differs(MINOR, ALU32_XOR, minor as i32);
        }
        let access = kernel_access(exception.access);
        if self.default_allow {
            // An access of which any part is denied is denied (match_exception_partial). None is a difference as well: one
            // less than zero has the highest bit.
            program.extend([
                operation(ALU32_MOV_REGISTER, PART, ACCESS, 0),
                operation(ALU32_AND, PART, 0, access),
                operation(ALU64_ADD, PART, 0, -1),
                operation(ALU64_SHIFT_RIGHT, PART, 0, 63),
                operation(ALU32_OR_REGISTER, MISMATCH, PART, 0),
                // 1 for any difference.
                operation(ALU64_NEGATE, MISMATCH, 0, 0),
                operation(ALU64_SHIFT_RIGHT, MISMATCH, 0, 63),
                operation(ALU64_AND_REGISTER, ANSWER, MISMATCH, 0),
            ]);
            return;
        }
        if exception.access != ALL {
            differs(ACCESS, ALU32_AND, !access);
        }
        program.extend([
            // 1 for no difference.
            operation(ALU64_ADD, MISMATCH, 0, -1),
            operation(ALU64_SHIFT_RIGHT, MISMATCH, 0, 63),
            operation(ALU64_OR_REGISTER, ANSWER, MISMATCH, 0),
        ]);
    }
}

impl Exception {
    fn to_v1(self) -> String {
        let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
        let kind = match self.pattern.kind {
            Kind::Char => 'c',
            Kind::Block => 'b',
        };
        let (major, minor) = (number(self.pattern.major), number(self.pattern.minor));
        format!("{kind} {major}:{minor} {}", access_letters(self.access))
    }
}

fn access_letters(access: u8) -> String {
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    letters.into_iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect()
}

// Registers: r0 is the answer, r1 points to struct bpf_cgroup_dev_ctx { access_type, major, minor } at entry.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
/// Takes the register of the context, which is not needed after its three words are loaded.
const MISMATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const PART: u8 = 6;

// Opcodes (linux/bpf_common.h, linux/bpf.h): class | operation | source. What 32 bits wide operations leave in the upper
// half is zero.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const ALU32_MOV_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const ALU32_AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const ALU32_XOR: u8 = 0xa4; // BPF_ALU | BPF_XOR | BPF_K
const ALU32_OR_REGISTER: u8 = 0x4c; // BPF_ALU | BPF_OR | BPF_X
const ALU32_SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const ALU64_MOV: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const ALU64_ADD: u8 = 0x07; // BPF_ALU64 | BPF_ADD | BPF_K
const ALU64_AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const ALU64_AND_REGISTER: u8 = 0x5f; // BPF_ALU64 | BPF_AND | BPF_X
const ALU64_OR_REGISTER: u8 = 0x4f; // BPF_ALU64 | BPF_OR | BPF_X
const ALU64_NEGATE: u8 = 0x87; // BPF_ALU64 | BPF_NEG
const ALU64_SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

fn operation(code: u8, destination: u8, source: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset: 0, immediate }
}

fn load_word(destination: u8, from: u8, offset: i16) -> Instruction {
    Instruction { offset, ..operation(LOAD_WORD, destination, from, 0) }
}

/// BPF_DEVCG_DEV_* (linux/bpf.h).
fn kernel_type(kind: Kind) -> i32 {
    match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    }
}

/// BPF_DEVCG_ACC_* (linux/bpf.h): mknod 1, read 2, write 4.
fn kernel_access(access: u8) -> i32 {
    [(MKNOD, 1), (READ, 2), (WRITE, 4)].iter().filter(|(bit, _)| access & bit != 0).map(|(_, kernel)| kernel).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [DeviceRuleKind; 3] = [DeviceRuleKind::All, DeviceRuleKind::Char, DeviceRuleKind::Block];

    fn rule(allow: bool, text: &str) -> DeviceRule {
        let mut words = text.split([' ', ':']);
        let kind = match words.next() {
            Some("c") => DeviceRuleKind::Char,
            Some("b") => DeviceRuleKind::Block,
            _ => DeviceRuleKind::All,
        };
        let mut number = || words.next().and_then(|n| n.parse().ok());
        let (major, minor) = (number(), number());
        let access = words.next().unwrap_or("rwm");
        DeviceRule {
            allow,
            kind,
            major,
            minor,
            read: access.contains('r'),
            write: access.contains('w'),
            mknod: access.contains('m'),
        }
    }

    fn allow(text: &str) -> DeviceRule {
        rule(true, text)
    }

    fn deny(text: &str) -> DeviceRule {
        rule(false, text)
    }

    fn lines(rules: &[DeviceRule]) -> (String, Vec<String>) {
        let lines = List::new(rules).unwrap().v1();
        (lines.default_file.into(), lines.exceptions.into_iter().map(|l| l.value).collect())
    }

    const DEFAULT_LINES: [&str; 11] = [
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
        "c 136:* rwm",
        "c 10:200 rwm",
    ];

    #[test]
    fn no_rules_deny_everything_but_the_defaults() {
        let (file, values) = lines(&[]);
        assert_eq!(file, "devices.deny");
        assert_eq!(values, DEFAULT_LINES);
        assert_eq!(lines(&[deny("a")]), (file, values));
    }

    #[test]
    fn podmans_rules_merge_with_the_defaults() {
        let (_, values) = lines(&[deny("a"), allow("c 1:5 rwm"), allow("c 1:3 rwm")]);
        assert_eq!(values.len(), DEFAULT_LINES.len());
    }

    #[test]
    fn privileged_needs_no_program_and_no_lines() {
        let list = List::new(&[allow("a")]).unwrap();
        assert!(list.allows_everything());
        assert!(list.v1().exceptions.is_empty());
        assert!(List::new(&[deny("a"), allow("c 1:3 rwm"), allow("a")]).unwrap().allows_everything());
    }

    #[test]
    fn all_with_numbers_or_less_access_means_both_kinds_not_everything() {
        let (file, values) = lines(&[deny("a"), allow("a 8:0 r")]);
        assert_eq!(file, "devices.deny");
        assert!(values.contains(&"c 8:0 r".into()) && values.contains(&"b 8:0 r".into()), "{values:?}");
        assert_eq!(
            lines(&[allow("a"), deny("a *:* w")]),
            ("devices.allow".into(), vec!["c *:* w".into(), "b *:* w".into()])
        );
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_refused_by_name() {
        for rules in [
            [deny("a"), allow("c *:* rw"), deny("c 1:3 r")],
            [allow("a"), deny("c 1:* rw"), allow("c 1:3 r")],
            [deny("a"), allow("c 1:* rw"), deny("c *:3 r")],
        ] {
            let error = List::new(&rules).unwrap_err();
            assert_eq!(error.property(), Some("linux.resources.devices[2]"));
            assert!(error.to_string().contains("devices[1]"), "{error}");
        }
    }

    #[test]
    fn one_exception_covers_what_several_rules_give() {
        // v1 looks for one exception with all of the access: c *:* r and c 1:3 w must open 1:3 for both.
        let (_, values) = lines(&[deny("a"), allow("c *:* r"), allow("c 1:3 w")]);
        assert!(values.contains(&"c *:* rm".into()), "{values:?}");
        assert!(values.contains(&"c 1:3 rwm".into()), "{values:?}");
        let (_, values) = lines(&[deny("a"), allow("b 8:* r"), allow("b *:1 w")]);
        assert!(values.contains(&"b 8:1 rw".into()), "{values:?}");
    }

    /// security/device_cgroup.c: devcgroup_legacy_check_permission.
    fn v1_allows(list: &List, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let device = Pattern { kind, major: Some(major), minor: Some(minor) };
        let mut matching = list.needed().filter(|e| e.pattern.covers(&device));
        if list.default_allow {
            !matching.any(|e| e.access & access != 0)
        } else {
            matching.any(|e| access & !e.access == 0)
        }
    }

    /// What the ordered list says: for each kind of access the last rule that matches decides.
    fn ordered_allows(rules: &[DeviceRule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let decide = |bit: u8| {
            let last = rules.iter().rev().find(|r| {
                let has = r.read && bit == READ || r.write && bit == WRITE || r.mknod && bit == MKNOD;
                let is_kind = match r.kind {
                    DeviceRuleKind::All => true,
                    DeviceRuleKind::Char => kind == Kind::Char,
                    DeviceRuleKind::Block => kind == Kind::Block,
                };
                has && is_kind && r.major.is_none_or(|n| n == major) && r.minor.is_none_or(|n| n == minor)
            });
            last.is_some_and(|r| r.allow)
        };
        [READ, WRITE, MKNOD].iter().filter(|bit| access & **bit != 0).all(|bit| decide(*bit))
    }

    /// Runs a program as the kernel would, with the few instructions that ours have.
    fn run(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: u8) -> u64 {
        let context = [kernel_type(kind) as u32 | (kernel_access(access) as u32) << 16, major, minor];
        let mut registers = [0u64; 11];
        for i in program {
            let (destination, source) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
            match i.code {
                LOAD_WORD => registers[destination] = context[i.offset as usize / 4].into(),
                ALU32_MOV_REGISTER => registers[destination] = registers[source] as u32 as u64,
                ALU32_AND => registers[destination] = (registers[destination] as u32 & i.immediate as u32).into(),
                ALU32_XOR => registers[destination] = (registers[destination] as u32 ^ i.immediate as u32).into(),
                ALU32_OR_REGISTER => {
                    registers[destination] = (registers[destination] as u32 | registers[source] as u32).into();
                }
                ALU32_SHIFT_RIGHT => registers[destination] = (registers[destination] as u32 >> i.immediate).into(),
                ALU64_MOV => registers[destination] = i.immediate as i64 as u64,
                ALU64_ADD => registers[destination] = registers[destination].wrapping_add_signed(i.immediate.into()),
                ALU64_AND => registers[destination] &= i.immediate as i64 as u64,
                ALU64_AND_REGISTER => registers[destination] &= registers[source],
                ALU64_OR_REGISTER => registers[destination] |= registers[source],
                ALU64_NEGATE => registers[destination] = registers[destination].wrapping_neg(),
                ALU64_SHIFT_RIGHT => registers[destination] >>= i.immediate,
                EXIT => return registers[0],
                code => panic!("unknown opcode {code:#x}"),
            }
        }
        panic!("does not end with an exit");
    }

    fn for_every_access(mut check: impl FnMut(Kind, u32, u32, u8)) {
        for kind in [Kind::Char, Kind::Block] {
            for major in [1, 2, 0xffff_fffe] {
                for minor in [1, 3] {
                    // What the kernel asks for: open(2) one or both of two, mknod(2) the third alone.
                    for access in [READ, WRITE, READ | WRITE, MKNOD] {
                        check(kind, major, minor, access);
                    }
                }
            }
        }
    }

    fn check_all(rules: &[DeviceRule], accepted: &mut u32) {
        let Ok(list) = List::new(rules) else { return };
        *accepted += 1;
        let mut complete = rules.to_vec();
        if !list.default_allow {
            complete.extend(DEFAULTS.map(|(kind, major, minor, access)| DeviceRule {
                allow: true,
                kind: if kind == Kind::Char { DeviceRuleKind::Char } else { DeviceRuleKind::Block },
                major,
                minor,
                read: access & READ != 0,
                write: access & WRITE != 0,
                mknod: access & MKNOD != 0,
            }));
        }
        let program = list.program();
        assert!(program.len() <= 4096);
        for_every_access(|kind, major, minor, access| {
            let ordered = ordered_allows(&complete, kind, major, minor, access);
            let context = || format!("{rules:?} {kind:?} {major}:{minor} {access}");
            assert_eq!(v1_allows(&list, kind, major, minor, access), ordered, "v1: {}", context());
            assert_eq!(run(&program, kind, major, minor, access) == 1, ordered, "program: {}", context());
        });
    }

    #[test]
    fn systemd_has_names_for_what_is_allowed() {
        let allowed = |rules: &[DeviceRule]| List::new(rules).unwrap().allowed();
        let found =
            allowed(&[rule(false, "a"), rule(true, "c 1:11 r"), rule(true, "b 8:* rw"), rule(true, "c *:3 rwm")])
                .unwrap();
        let entry = |device: &str, access: &str| (device.to_owned(), access.to_owned());
        for expected in [
            entry("char-*", "m"),
            entry("block-*", "m"),
            entry("/dev/char/1:3", "rwm"),
            entry("/dev/char/1:11", "r"),
            entry("block-8", "rw"),
            entry("char-136", "rwm"),
        ] {
            assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
        }
        // It has no form for any major number: that would be all devices.
        assert!(found.iter().all(|(device, access)| device != "char-*" || access == "m"), "{found:?}");
        assert_eq!(allowed(&[rule(true, "a")]), None);
        assert_eq!(allowed(&[rule(true, "a"), rule(false, "c 1:11 rwm")]), None);
    }

    #[test]
    fn v1_lines_and_program_answer_as_the_ordered_rules_do() {
        let numbers = [None, Some(1), Some(0xffff_fffe)];
        let mut every = Vec::new();
        for allow in [true, false] {
            for kind in KINDS {
                for major in numbers {
                    for minor in [None, Some(3)] {
                        for access in [ALL, READ] {
                            every.push(DeviceRule {
                                allow,
                                kind,
                                major,
                                minor,
                                read: access & READ != 0,
                                write: access & WRITE != 0,
                                mknod: access & MKNOD != 0,
                            });
                        }
                    }
                }
            }
        }
        let mut accepted = 0;
        for first in &every {
            check_all(std::slice::from_ref(first), &mut accepted);
            for second in &every {
                check_all(&[first.clone(), second.clone()], &mut accepted);
            }
        }
        // Longer lists, by a fixed walk through all rules (xorshift).
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut pick = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            every[(random % every.len() as u64) as usize].clone()
        };
        for length in 3..7 {
            for _ in 0..500 {
                let mut rules: Vec<_> = (0..length).map(|_| pick()).collect();
                check_all(&rules, &mut accepted);
                rules.reverse();
                check_all(&rules, &mut accepted);
            }
        }
        assert!(accepted > 5_000, "only {accepted} lists were accepted");
    }
}
