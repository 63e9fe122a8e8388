//! A seccomp profile as the compiler takes it: `linux.seccomp` of config.json with its words resolved.

use std::borrow::Cow;

use super::tables::{self, COUNT};

/// `linux.seccomp`, except for flags and listener, which are not part of the program (config-linux.md#seccomp).
#[derive(Clone, Debug)]
pub struct Profile<'a> {
    /// What happens to a call that no rule matches.
    pub default_action: Action,
    /// `defaultErrnoRet`; `None` is EPERM. Only for actions that take one.
    pub default_errno: Option<u32>,
    /// The native architecture is always covered, named or not.
    pub architectures: Vec<Arch>,
    pub rules: Vec<Rule<'a>>,
}

/// One entry of `linux.seccomp.syscalls`.
#[derive(Clone, Debug)]
pub struct Rule<'a> {
    /// System call names, at least one; those that Linux does not have are skipped.
    pub names: Vec<Cow<'a, str>>,
    pub action: Action,
    /// `errnoRet`; `None` is EPERM. Only for actions that take one.
    pub errno: Option<u32>,
    /// All must hold; but if two look at the same argument, any of them is enough (so do runc and crun).
    pub args: Vec<Arg>,
}

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arg {
    /// 0 to 5.
    pub index: u32,
    /// What the argument is compared with; for `MaskedEqual` the mask.
    pub value: u64,
    /// For `MaskedEqual` what the masked argument is compared with; unused otherwise.
    pub value_two: u64,
    pub op: Operator,
}

/// `SCMP_ACT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `SCMP_ACT_KILL` and `SCMP_ACT_KILL_THREAD`.
    KillThread,
    KillProcess,
    Trap,
    Errno,
    Trace,
    Allow,
    Log,
    Notify,
}

impl Action {
    /// Every name that the spec has, with what it means.
    pub const NAMES: [(&str, Self); 9] = [
        ("SCMP_ACT_ALLOW", Self::Allow),
        ("SCMP_ACT_ERRNO", Self::Errno),
        ("SCMP_ACT_KILL", Self::KillThread),
        ("SCMP_ACT_KILL_PROCESS", Self::KillProcess),
        ("SCMP_ACT_KILL_THREAD", Self::KillThread),
        ("SCMP_ACT_LOG", Self::Log),
        ("SCMP_ACT_NOTIFY", Self::Notify),
        ("SCMP_ACT_TRACE", Self::Trace),
        ("SCMP_ACT_TRAP", Self::Trap),
    ];

    /// The action that the spec calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        find(&Self::NAMES, name)
    }

    /// What the spec calls it; the first of two names.
    pub fn name(self) -> &'static str {
        name_of(&Self::NAMES, self)
    }

    /// Whether `errnoRet` means something: the error for `Errno`, a message to the tracer for `Trace`.
    pub fn takes_errno(self) -> bool {
        matches!(self, Self::Errno | Self::Trace)
    }

    /// What the filter returns for this action without an error number (linux/seccomp.h, `SECCOMP_RET_*`).
    pub(super) fn code(self) -> u32 {
        match self {
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
            Self::Trap => 0x0003_0000,
            Self::Errno => 0x0005_0000,
            Self::Notify => 0x7fc0_0000,
            Self::Trace => 0x7ff0_0000,
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

/// `SCMP_CMP_*`: how an argument is compared, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// `argument & value == value_two & value`, as libseccomp reads it.
    MaskedEqual,
}

impl Operator {
    /// Every name that the spec has, with what it means.
    pub const NAMES: [(&str, Self); 7] = [
        ("SCMP_CMP_EQ", Self::Equal),
        ("SCMP_CMP_GE", Self::GreaterOrEqual),
        ("SCMP_CMP_GT", Self::Greater),
        ("SCMP_CMP_LE", Self::LessOrEqual),
        ("SCMP_CMP_LT", Self::Less),
        ("SCMP_CMP_MASKED_EQ", Self::MaskedEqual),
        ("SCMP_CMP_NE", Self::NotEqual),
    ];

    /// The operator that the spec calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        find(&Self::NAMES, name)
    }
}

/// `SCMP_ARCH_*`: a convention for making system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    LoongArch64,
    M68k,
    Mips,
    Mips64,
    Mips64N32,
    Mipsel,
    Mipsel64,
    Mipsel64N32,
    Parisc,
    Parisc64,
    Ppc,
    Ppc64,
    Ppc64le,
    Riscv64,
    S390,
    S390x,
    Sh,
    Sheb,
}

impl Arch {
    /// Every name that the spec has, with what it means.
    pub const NAMES: [(&str, Self); 23] = [
        ("SCMP_ARCH_AARCH64", Self::Aarch64),
        ("SCMP_ARCH_ARM", Self::Arm),
        ("SCMP_ARCH_LOONGARCH64", Self::LoongArch64),
        ("SCMP_ARCH_M68K", Self::M68k),
        ("SCMP_ARCH_MIPS", Self::Mips),
        ("SCMP_ARCH_MIPS64", Self::Mips64),
        ("SCMP_ARCH_MIPS64N32", Self::Mips64N32),
        ("SCMP_ARCH_MIPSEL", Self::Mipsel),
        ("SCMP_ARCH_MIPSEL64", Self::Mipsel64),
        ("SCMP_ARCH_MIPSEL64N32", Self::Mipsel64N32),
        ("SCMP_ARCH_PARISC", Self::Parisc),
        ("SCMP_ARCH_PARISC64", Self::Parisc64),
        ("SCMP_ARCH_PPC", Self::Ppc),
        ("SCMP_ARCH_PPC64", Self::Ppc64),
        ("SCMP_ARCH_PPC64LE", Self::Ppc64le),
        ("SCMP_ARCH_RISCV64", Self::Riscv64),
        ("SCMP_ARCH_S390", Self::S390),
        ("SCMP_ARCH_S390X", Self::S390x),
        ("SCMP_ARCH_SH", Self::Sh),
        ("SCMP_ARCH_SHEB", Self::Sheb),
        ("SCMP_ARCH_X32", Self::X32),
        ("SCMP_ARCH_X86", Self::X86),
        ("SCMP_ARCH_X86_64", Self::X86_64),
    ];

    /// The architecture that the spec calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        find(&Self::NAMES, name)
    }

    /// What the spec calls it.
    pub fn name(self) -> &'static str {
        name_of(&Self::NAMES, self)
    }

    /// What this binary was built for.
    pub const fn native() -> Self {
        cfg_select! {
            all(target_arch = "x86_64", target_pointer_width = "32") => Self::X32,
            target_arch = "x86_64" => Self::X86_64,
            target_arch = "x86" => Self::X86,
            target_arch = "aarch64" => Self::Aarch64,
            target_arch = "arm" => Self::Arm,
            target_arch = "loongarch64" => Self::LoongArch64,
            all(target_arch = "powerpc64", target_endian = "little") => Self::Ppc64le,
            target_arch = "powerpc64" => Self::Ppc64,
            target_arch = "riscv64" => Self::Riscv64,
            target_arch = "s390x" => Self::S390x,
        }
    }

    /// How the kernel describes a call made by this convention to a filter.
    pub(super) fn traits(self) -> Traits {
        use Width::{Narrow, Wide};
        // linux/audit.h: the ELF machine number, 1 << 31 for 64 bits, 1 << 30 for little-endian, 1 << 29 for MIPS n32.
        let (audit, column, base, width) = match self {
            Self::X86_64 => (0xc000_003e, &tables::X86_64, 0, Wide),
            Self::X86 => (0x4000_0003, &tables::X86, 0, Narrow),
            Self::X32 => (0xc000_003e, &tables::X32, X32_BIT, Narrow),
            Self::Aarch64 => (0xc000_00b7, &tables::AARCH64, 0, Wide),
            Self::Arm => (0x4000_0028, &tables::ARM, 0, Narrow),
            Self::LoongArch64 => (0xc000_0102, &tables::LOONGARCH64, 0, Wide),
            Self::M68k => (0x0000_0004, &tables::M68K, 0, Narrow),
            Self::Mips => (0x0000_0008, &tables::MIPS_O32, 4000, Narrow),
            Self::Mips64 => (0x8000_0008, &tables::MIPS_N64, 5000, Wide),
            Self::Mips64N32 => (0xa000_0008, &tables::MIPS_N32, 6000, Narrow),
            Self::Mipsel => (0x4000_0008, &tables::MIPS_O32, 4000, Narrow),
            Self::Mipsel64 => (0xc000_0008, &tables::MIPS_N64, 5000, Wide),
            Self::Mipsel64N32 => (0xe000_0008, &tables::MIPS_N32, 6000, Narrow),
            Self::Parisc => (0x0000_000f, &tables::PARISC, 0, Narrow),
            Self::Parisc64 => (0x8000_000f, &tables::PARISC64, 0, Wide),
            Self::Ppc => (0x0000_0014, &tables::PPC, 0, Narrow),
            Self::Ppc64 => (0x8000_0015, &tables::PPC64, 0, Wide),
            Self::Ppc64le => (0xc000_0015, &tables::PPC64, 0, Wide),
            Self::Riscv64 => (0xc000_00f3, &tables::RISCV64, 0, Wide),
            Self::S390 => (0x0000_0016, &tables::S390, 0, Narrow),
            Self::S390x => (0x8000_0016, &tables::S390X, 0, Wide),
            Self::Sh => (0x4000_002a, &tables::SH, 0, Narrow),
            Self::Sheb => (0x0000_002a, &tables::SH, 0, Narrow),
        };
        Traits { audit, column, base, width, big_endian: audit & 0x4000_0000 == 0 }
    }
}

/// Set in the number of every x32 call; x86_64 has none that high (asm/unistd.h, `__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// See [`Arch::traits`].
pub(super) struct Traits {
    /// `AUDIT_ARCH_*`, the `arch` field of `struct seccomp_data`.
    pub audit: u32,
    pub column: &'static [u16; COUNT],
    /// Added to a number of the column.
    pub base: u32,
    pub width: Width,
    pub big_endian: bool,
}

/// How much of an argument is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// The low 32 bits, with the low 32 bits of the profile's value: `-1` may be written with 32 or with 64 ones.
    Narrow,
    Wide,
}

fn name_of<T: PartialEq + Copy>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}

fn find<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}
