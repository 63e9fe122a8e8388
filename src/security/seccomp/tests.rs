//! What a profile means, case by case. The breadth is in tests/seccomp_differential.rs.

use super::testing::{Call, check, run};
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;
const EPERM: u32 = 0x0005_0000 | 1;

fn profile(default_action: Action, rules: Vec<Rule<'_>>) -> Profile<'_> {
    Profile { default_action, default_errno: None, architectures: vec![], rules }
}

fn rule<'a>(names: &[&'a str], action: Action, args: &[Arg]) -> Rule<'a> {
    Rule { names: names.iter().map(|name| (*name).into()).collect(), action, errno: None, args: args.to_vec() }
}

fn arg(index: u32, op: Operator, value: u64) -> Arg {
    Arg { index, value, value_two: 0, op }
}

fn compiled(profile: &Profile<'_>, native: Arch) -> Program {
    let program = compile(profile, native).unwrap();
    check(&program.instructions);
    program
}

fn ask(program: &Program, name: &str, arch: Arch, args: [u64; 6]) -> u32 {
    ask_number(program, number(name, arch).unwrap(), arch, args)
}

fn ask_number(program: &Program, number: u32, arch: Arch, args: [u64; 6]) -> u32 {
    run(&program.instructions, &Call { number, audit: arch.traits().audit, args }).0
}

#[test]
fn every_action_has_its_verdict() {
    let table = [
        (Action::KillThread, None, 0),
        (Action::KillProcess, None, 0x8000_0000),
        (Action::Trap, None, 0x0003_0000),
        (Action::Errno, None, 0x0005_0001),
        (Action::Errno, Some(0), 0x0005_0000),
        (Action::Errno, Some(22), 0x0005_0016),
        (Action::Trace, None, 0x7ff0_0001),
        (Action::Trace, Some(0xffff), 0x7ff0_ffff),
        (Action::Log, None, 0x7ffc_0000),
        (Action::Notify, None, 0x7fc0_0000),
    ];
    for (action, errno, expected) in table {
        let profile = profile(Action::Allow, vec![Rule { errno, ..rule(&["getpid"], action, &[]) }]);
        let program = compiled(&profile, Arch::X86_64);
        assert_eq!(ask(&program, "getpid", Arch::X86_64, [0; 6]), expected, "{action:?}");
        assert_eq!(ask(&program, "getppid", Arch::X86_64, [0; 6]), ALLOW);
    }
}

#[test]
fn operators_compare_64_bits_unsigned() {
    const BIG: u64 = 0x0000_0001_0000_0005;
    let values = [0, 4, 5, 6, u64::from(u32::MAX), 1 << 32, BIG - 1, BIG, BIG + 1, 0x2_0000_0000, u64::MAX];
    for bound in [0, 5, u64::from(u32::MAX), BIG, u64::MAX] {
        for value in values {
            let table = [
                (Operator::NotEqual, value != bound),
                (Operator::Less, value < bound),
                (Operator::LessOrEqual, value <= bound),
                (Operator::Equal, value == bound),
                (Operator::GreaterOrEqual, value >= bound),
                (Operator::Greater, value > bound),
            ];
            for (op, expected) in table {
                let profile = profile(Action::Errno, vec![rule(&["ioctl"], Action::Allow, &[arg(5, op, bound)])]);
                let got = ask(&compiled(&profile, Arch::X86_64), "ioctl", Arch::X86_64, [9, 9, 9, 9, 9, value]);
                assert_eq!(got == ALLOW, expected, "{value:#x} {op:?} {bound:#x}");
            }
        }
    }
}

#[test]
fn masked_values_ignore_bits_outside_the_mask() {
    // (mask, value, argument, matches)
    let table = [
        (0x7e02_0000, 0, 0x11, true),
        (0x7e02_0000, 0, 0x1000_0000, false),
        (0xff, 0x1ff, 0xff, true),
        (0xff, 0x1ff, 0xfe, false),
        (0xf_0000_0000, 0x1_0000_0000, 0x1_ffff_ffff, true),
        (0xf_0000_0000, 0x1_0000_0000, 0x2_ffff_ffff, false),
        (0xf_0000_000f, 0x1_0000_0001, 0x1_0000_0011, true),
        (0xf_0000_000f, 0x1_0000_0001, 0x1_0000_0012, false),
        (0xffff_ffff_ffff_ffff, 7, 7, true),
        (0xffff_ffff_ffff_ffff, 7, 0x1_0000_0007, false),
        (0, 5, 3, true),
    ];
    for (mask, value_two, argument, matches) in table {
        let masked = Arg { index: 0, value: mask, value_two, op: Operator::MaskedEqual };
        let profile = profile(Action::Errno, vec![rule(&["clone"], Action::Allow, &[masked])]);
        let got = ask(&compiled(&profile, Arch::X86_64), "clone", Arch::X86_64, [argument, 0, 0, 0, 0, 0]);
        assert_eq!(got == ALLOW, matches, "{argument:#x} & {mask:#x} == {value_two:#x}");
    }
}

#[test]
fn narrow_architectures_compare_the_low_words() {
    for (arch, matches) in [(Arch::X86, true), (Arch::X32, true), (Arch::Arm, true), (Arch::X86_64, false)] {
        let conditions = [arg(0, Operator::Equal, u64::MAX)];
        let profile = Profile {
            architectures: vec![arch],
            ..profile(Action::Errno, vec![rule(&["personality"], Action::Allow, &conditions)])
        };
        let got = ask(&compiled(&profile, Arch::X86_64), "personality", arch, [0xffff_ffff, 0, 0, 0, 0, 0]);
        assert_eq!(got == ALLOW, matches, "{arch:?}");
    }
}

#[test]
fn big_endian_words_are_swapped() {
    let profile =
        profile(Action::Errno, vec![rule(&["ioctl"], Action::Allow, &[arg(1, Operator::Greater, 0x1_0000_0002)])]);
    for (native, low, high) in [(Arch::S390x, 28, 24), (Arch::Ppc64le, 24, 28)] {
        let program = compiled(&profile, native);
        let loads: Vec<u32> = program.instructions.iter().filter(|i| i.code == LOAD).map(|i| i.k).collect();
        assert_eq!(loads, [ARCH_OFFSET, NUMBER_OFFSET, high, low], "{native:?}");
        assert_eq!(ask(&program, "ioctl", native, [0, 0x1_0000_0003, 0, 0, 0, 0]), ALLOW);
        assert_eq!(ask(&program, "ioctl", native, [0, 0x1_0000_0002, 0, 0, 0, 0]), EPERM);
    }
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let conditions = [arg(2, Operator::NotEqual, 9), arg(0, Operator::Equal, 16)];
    let profile = profile(Action::Errno, vec![rule(&["socket"], Action::Allow, &conditions)]);
    let program = compiled(&profile, Arch::X86_64);
    for (family, protocol, expected) in [(16, 8, ALLOW), (16, 9, EPERM), (15, 8, EPERM), (15, 9, EPERM)] {
        assert_eq!(ask(&program, "socket", Arch::X86_64, [family, 0, protocol, 0, 0, 0]), expected);
    }
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let conditions = [arg(0, Operator::Equal, 1), arg(0, Operator::Equal, 2), arg(1, Operator::Equal, 3)];
    let profile = profile(Action::Errno, vec![rule(&["prctl"], Action::Allow, &conditions)]);
    let program = compiled(&profile, Arch::X86_64);
    for (args, expected) in [([1, 0], ALLOW), ([2, 0], ALLOW), ([9, 3], ALLOW), ([9, 9], EPERM)] {
        assert_eq!(ask(&program, "prctl", Arch::X86_64, [args[0], args[1], 0, 0, 0, 0]), expected, "{args:?}");
    }
}

#[test]
fn a_rule_without_conditions_decides_alone() {
    let conditional = || rule(&["ioctl"], Action::Errno, &[arg(1, Operator::Equal, 0x5412)]);
    let plain = |action| rule(&["ioctl"], action, &[]);
    let table = [
        (vec![conditional(), plain(Action::Allow)], ALLOW),
        (vec![plain(Action::Allow), conditional()], ALLOW),
        (vec![plain(Action::Allow), plain(Action::Errno)], ALLOW),
        (vec![plain(Action::Errno), plain(Action::Allow)], EPERM),
        // The default action: as if it were not there.
        (vec![plain(Action::KillThread), conditional()], EPERM),
        (vec![plain(Action::KillThread)], 0),
    ];
    for (i, (rules, expected)) in table.into_iter().enumerate() {
        let program = compiled(&profile(Action::KillThread, rules), Arch::X86_64);
        assert_eq!(ask(&program, "ioctl", Arch::X86_64, [0, 0x5412, 0, 0, 0, 0]), expected, "case {i}");
    }
}

#[test]
fn of_two_conditional_rules_the_more_specific_decides() {
    use Operator::{Equal, Greater, Less, NotEqual};
    // Verdict of the call (22, 0): the first rule allows, the second logs.
    let table = [
        (arg(0, Equal, 22), arg(0, Greater, 5), true),
        (arg(0, Greater, 5), arg(0, Equal, 22), false),
        (arg(0, Greater, 5), arg(0, Greater, 9), false),
        (arg(0, Greater, 9), arg(0, Greater, 5), true),
        (arg(0, Less, 30), arg(0, Less, 25), false),
        (arg(0, Less, 30), arg(0, Greater, 5), true),
        (arg(0, Greater, 5), arg(0, Less, 30), false),
        (arg(0, Equal, 22), arg(1, Less, 1), false),
        // No preference: the earlier.
        (arg(0, Equal, 22), arg(0, NotEqual, 21), true),
        (arg(0, NotEqual, 21), arg(0, Equal, 22), true),
        (arg(0, Equal, 22), arg(0, Equal, 22), true),
    ];
    for (first, second, allowed) in table {
        let rules = vec![rule(&["prctl"], Action::Allow, &[first]), rule(&["prctl"], Action::Log, &[second])];
        let program = compiled(&profile(Action::Errno, rules), Arch::X86_64);
        let got = ask(&program, "prctl", Arch::X86_64, [22, 0, 0, 0, 0, 0]);
        assert_eq!(got == ALLOW, allowed, "{first:?} {second:?}");
    }
}

#[test]
fn calls_newer_than_the_profile_are_enosys_unless_the_default_permits() {
    let last = number("clone3", Arch::X86_64).unwrap();
    let table = [
        (Action::Errno, ENOSYS),
        (Action::KillThread, ENOSYS),
        (Action::KillProcess, ENOSYS),
        (Action::Trap, ENOSYS),
        (Action::Trace, 0x7ff0_0001),
        (Action::Log, 0x7ffc_0000),
        (Action::Allow, ALLOW),
    ];
    for (default, expected) in table {
        // A rule with the default action is skipped, but its name is known to the profile.
        let rules = vec![rule(&["clone3"], default, &[]), rule(&["read"], Action::Log, &[])];
        let program = compiled(&profile(default, rules), Arch::X86_64);
        assert_eq!(ask_number(&program, last + 1, Arch::X86_64, [0; 6]), expected, "{default:?}");
        assert_ne!(ask_number(&program, last, Arch::X86_64, [0; 6]), ENOSYS, "{default:?}");
        assert_eq!(ask_number(&program, u32::MAX, Arch::X86_64, [0; 6]), expected, "{default:?}");
    }
}

#[test]
fn a_profile_that_names_no_call_has_no_newest() {
    for rules in [vec![], vec![rule(&["no_such_call"], Action::Allow, &[])]] {
        let program = compiled(&profile(Action::Errno, rules), Arch::X86_64);
        assert_eq!(ask_number(&program, 0, Arch::X86_64, [0; 6]), EPERM);
        assert_eq!(ask_number(&program, 1000, Arch::X86_64, [0; 6]), EPERM);
        assert_eq!(ask_number(&program, u32::MAX, Arch::X86_64, [0; 6]), EPERM);
    }
}

#[test]
fn arm_private_calls_are_not_the_newest() {
    let rules = vec![rule(&["read", "openat2", "cacheflush"], Action::Allow, &[])];
    let program = compiled(&profile(Action::Errno, rules), Arch::Arm);
    let table = [(3, ALLOW), (4, EPERM), (437, ALLOW), (438, ENOSYS), (0xf_0001, EPERM), (0xf_0002, ALLOW)];
    for (number, expected) in table.into_iter().chain([(0xf_0000, EPERM), (0xe_ffff, ENOSYS), (0xf_0003, ENOSYS)]) {
        assert_eq!(ask_number(&program, number, Arch::Arm, [0; 6]), expected, "{number:#x}");
    }
}

#[test]
fn s390_setup_stands_for_unknown_calls() {
    let rules = || vec![rule(&["read"], Action::Allow, &[])];
    let program = compiled(&profile(Action::Errno, rules()), Arch::S390x);
    assert_eq!(ask_number(&program, 0, Arch::S390x, [0; 6]), ENOSYS);
    let program = compiled(&profile(Action::Log, rules()), Arch::S390x);
    assert_eq!(ask_number(&program, 0, Arch::S390x, [0; 6]), 0x7ffc_0000);
}

#[test]
fn other_architectures_are_killed() {
    let rules = || vec![rule(&["getpid"], Action::Errno, &[])];
    let one = compiled(&profile(Action::Allow, rules()), Arch::X86_64);
    let two = Profile { architectures: vec![Arch::X32, Arch::X86_64], ..profile(Action::Allow, rules()) };
    let two = compiled(&two, Arch::X86_64);
    let table = [
        (Arch::X86_64, 39, EPERM, EPERM),
        (Arch::X86_64, 40, ALLOW, ALLOW),
        // x32 calls carry x86_64's architecture.
        (Arch::X32, X32_BIT + 39, KILL_PROCESS, EPERM),
        (Arch::X32, X32_BIT + 40, KILL_PROCESS, ALLOW),
        (Arch::X32, X32_BIT, KILL_PROCESS, ALLOW),
        (Arch::X86, 20, KILL_PROCESS, KILL_PROCESS),
        (Arch::Aarch64, 172, KILL_PROCESS, KILL_PROCESS),
        // -1 is no x32 call but one that a tracer skips.
        (Arch::X86_64, u32::MAX, ALLOW, ALLOW),
    ];
    for (arch, number, alone, both) in table {
        assert_eq!(ask_number(&one, number, arch, [0; 6]), alone, "{arch:?} {number:#x}");
        assert_eq!(ask_number(&two, number, arch, [0; 6]), both, "{arch:?} {number:#x}");
    }
}

#[test]
fn rules_for_sockets_cover_socketcall() {
    let rules =
        vec![rule(&["socket"], Action::Allow, &[arg(0, Operator::Equal, 1)]), rule(&["shmat"], Action::Log, &[])];
    let profile = Profile { architectures: vec![Arch::X86], ..profile(Action::Errno, rules) };
    let program = compiled(&profile, Arch::X86_64);
    let table = [
        ("socket", [1, 0], ALLOW),
        ("socket", [2, 0], EPERM),
        ("socketcall", [1, 7], ALLOW),
        ("socketcall", [2, 7], EPERM),
        ("ipc", [21, 0], 0x7ffc_0000),
        ("ipc", [22, 0], EPERM),
    ];
    for (name, [first, second], expected) in table {
        assert_eq!(ask(&program, name, Arch::X86, [first, second, 0, 0, 0, 0]), expected, "{name} {first}");
    }
}

#[test]
fn every_name_of_the_spec_is_known() {
    for (name, arch) in Arch::NAMES {
        assert_eq!(Arch::from_name(name), Some(arch));
        let read = number("read", arch).unwrap();
        let rules = vec![rule(&["read"], Action::Allow, &[]), rule(&["write"], Action::Errno, &[])];
        let program = compiled(&profile(Action::Trap, rules), arch);
        assert_eq!(ask_number(&program, read, arch, [0; 6]), ALLOW, "{name}");
        assert_eq!(ask(&program, "write", arch, [0; 6]), EPERM, "{name}");
    }
    assert_eq!(Arch::from_name("SCMP_ARCH_VAX"), None);
    assert_eq!(Action::from_name("SCMP_ACT_KILL"), Some(Action::KillThread));
    assert_eq!(Action::from_name("ALLOW"), None);
    assert_eq!(Operator::from_name("SCMP_CMP_MASKED_EQ"), Some(Operator::MaskedEqual));
    assert_eq!(Operator::from_name("SCMP_CMP_XX"), None);
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let allow = || rule(&["read"], Action::Allow, &[]);
    let table = [
        (profile(Action::Notify, vec![]), "linux.seccomp.defaultAction"),
        (Profile { default_errno: Some(1), ..profile(Action::KillThread, vec![]) }, "linux.seccomp.defaultErrnoRet"),
        (Profile { default_errno: Some(4096), ..profile(Action::Errno, vec![]) }, "linux.seccomp.defaultErrnoRet"),
        (Profile { default_errno: Some(65536), ..profile(Action::Trace, vec![]) }, "linux.seccomp.defaultErrnoRet"),
        (profile(Action::Errno, vec![allow(), rule(&[], Action::Allow, &[])]), "linux.seccomp.syscalls[1].names"),
        (profile(Action::Errno, vec![Rule { errno: Some(1), ..allow() }]), "linux.seccomp.syscalls[0].errnoRet"),
        (
            profile(Action::Errno, vec![rule(&["read"], Action::Allow, &[arg(6, Operator::Equal, 0)])]),
            "linux.seccomp.syscalls[0].args[0].index",
        ),
    ];
    for (profile, property) in table {
        assert_eq!(compile(&profile, Arch::X86_64).unwrap_err().property(), Some(property));
    }
}

#[test]
fn a_program_that_is_too_long_names_its_length() {
    // Masks cannot be searched by halves: four instructions each.
    let masked = |i: u64| Arg { index: 0, value: i, value_two: i, op: Operator::MaskedEqual };
    let rules = |count| (1..=count).map(|i| rule(&["ioctl"], Action::Allow, &[masked(i)])).collect();
    assert!(compile(&profile(Action::Errno, rules(1000)), Arch::X86_64).is_ok());
    let error = compile(&profile(Action::Errno, rules(2000)), Arch::X86_64).unwrap_err().to_string();
    assert!(error.contains("instructions, the kernel takes 4096"), "{error}");
    assert!(compile(&profile(Action::Errno, rules(10_000)), Arch::X86_64).is_err());
}

#[test]
fn long_jumps_reach() {
    let rules: Vec<_> = (0..900).map(|i| rule(&["ioctl"], Action::Allow, &[arg(1, Operator::Equal, i * 3)])).collect();
    let rules = rules.into_iter().chain([rule(&["read", "write"], Action::Log, &[arg(0, Operator::NotEqual, 1)])]);
    let profile = Profile { architectures: vec![Arch::X86, Arch::X32], ..profile(Action::Errno, rules.collect()) };
    let program = compiled(&profile, Arch::X86_64);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for value in 0..2701 {
            let expected = if value % 3 == 0 && value < 2700 { ALLOW } else { EPERM };
            assert_eq!(ask(&program, "ioctl", arch, [0, value, 0, 0, 0, 0]), expected, "{arch:?} {value}");
        }
        assert_eq!(ask(&program, "read", arch, [0; 6]), 0x7ffc_0000);
        assert_eq!(ask(&program, "write", arch, [1, 0, 0, 0, 0, 0]), EPERM);
    }
}
