//! System calls by name: which entry of the tables, which number, and which calls hide behind another.

use super::profile::{Arch, Traits};
use super::tables::{ABSENT, ARM_PRIVATE, COUNT, LETTERS, NAMES, OFFSETS};

/// The number of the system call `name` on `arch` as a filter sees it; `None` if `arch` has no such call.
pub fn number(name: &str, arch: Arch) -> Option<u32> {
    let traits = arch.traits();
    slot(&traits, find(name)?).map(|slot| slot_number(&traits, slot))
}

/// The name of the call that has `number` where the kernel calls the architecture `audit` (linux/audit.h, `AUDIT_ARCH_*`).
pub fn name(number: u32, audit: u32) -> Option<&'static str> {
    let archs = Arch::NAMES.iter().map(|(_, arch)| arch.traits()).filter(|traits| traits.audit == audit);
    let of = |traits: Traits| {
        (0..COUNT).find(|index| slot(&traits, *index).is_some_and(|slot| slot_number(&traits, slot) == number))
    };
    archs.filter_map(of).map(entry).next()
}

/// The entry for `name` in every column.
pub(super) fn find(name: &str) -> Option<usize> {
    let (mut low, mut high) = match name.bytes().next()? {
        letter @ b'a'..=b'z' => {
            let letter = usize::from(letter - b'a');
            (usize::from(LETTERS[letter]), usize::from(LETTERS[letter + 1]))
        }
        _ => (0, usize::from(LETTERS[0])),
    };
    while low < high {
        let middle = (low + high) / 2;
        match entry(middle).cmp(name) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

fn entry(index: usize) -> &'static str {
    &NAMES[usize::from(OFFSETS[index])..usize::from(OFFSETS[index + 1])]
}

/// Slots are numbers made dense: without the architecture's base, and with Arm's private calls moved down.
pub(super) fn slot(traits: &Traits, entry: usize) -> Option<usize> {
    Some(traits.column[entry]).filter(|slot| *slot != ABSENT).map(usize::from)
}

/// The first slot after those that Linux numbers from the base up; what follows are private calls of Arm.
pub(super) const PRIVATE: usize = ARM_PRIVATE as usize;

/// The first of Arm's private numbers (asm/unistd.h, `__ARM_NR_BASE`).
pub(super) const PRIVATE_NUMBER: u32 = 0x000f_0000;

pub(super) fn slot_number(traits: &Traits, slot: usize) -> u32 {
    match slot.checked_sub(PRIVATE) {
        Some(private) => PRIVATE_NUMBER + private as u32,
        None => traits.base + slot as u32,
    }
}

/// A call that some architectures also, or only, have as the first argument of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    /// The one that Linux numbers: `socketcall` or `ipc`.
    pub outer: Outer,
    /// Its first argument (linux/net.h `SYS_*`, linux/ipc.h).
    pub selector: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outer {
    Socketcall,
    Ipc,
}

/// The slot of the call that leads to `inner`; `None` on the many architectures that do without.
pub(super) fn outer_slot(traits: &Traits, inner: Inner) -> Option<usize> {
    slot(traits, find(inner.outer.name())?)
}

impl Outer {
    fn name(self) -> &'static str {
        match self {
            Self::Socketcall => "socketcall",
            Self::Ipc => "ipc",
        }
    }
}

/// The way to reach `name` through another call.
pub(super) fn inner(name: &str) -> Option<Inner> {
    use Outer::{Ipc, Socketcall};
    let (outer, selector) = match name {
        "socket" => (Socketcall, 1),
        "bind" => (Socketcall, 2),
        "connect" => (Socketcall, 3),
        "listen" => (Socketcall, 4),
        "accept" => (Socketcall, 5),
        "getsockname" => (Socketcall, 6),
        "getpeername" => (Socketcall, 7),
        "socketpair" => (Socketcall, 8),
        "send" => (Socketcall, 9),
        "recv" => (Socketcall, 10),
        "sendto" => (Socketcall, 11),
        "recvfrom" => (Socketcall, 12),
        "shutdown" => (Socketcall, 13),
        "setsockopt" => (Socketcall, 14),
        "getsockopt" => (Socketcall, 15),
        "sendmsg" => (Socketcall, 16),
        "recvmsg" => (Socketcall, 17),
        "accept4" => (Socketcall, 18),
        "recvmmsg" => (Socketcall, 19),
        "sendmmsg" => (Socketcall, 20),
        "semop" => (Ipc, 1),
        "semget" => (Ipc, 2),
        "semctl" => (Ipc, 3),
        "semtimedop" => (Ipc, 4),
        "msgsnd" => (Ipc, 11),
        "msgrcv" => (Ipc, 12),
        "msgget" => (Ipc, 13),
        "msgctl" => (Ipc, 14),
        "shmat" => (Ipc, 21),
        "shmdt" => (Ipc, 22),
        "shmget" => (Ipc, 23),
        "shmctl" => (Ipc, 24),
        _ => return None,
    };
    Some(Inner { outer, selector })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_name_and_nothing_else() {
        for index in 0..COUNT {
            assert_eq!(find(entry(index)), Some(index), "{}", entry(index));
        }
        for name in ["", "rea", "readx", "Read", "zzz", "_", "~", "sys_read", "écrire"] {
            assert_eq!(find(name), None, "{name}");
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        let table = [
            ("read", Arch::X86_64, Some(0)),
            ("clone3", Arch::X86_64, Some(435)),
            ("mseal", Arch::X86_64, Some(462)),
            ("read", Arch::X86, Some(3)),
            ("socketcall", Arch::X86, Some(102)),
            ("socketcall", Arch::X86_64, None),
            ("read", Arch::X32, Some(0x4000_0000)),
            ("execve", Arch::X32, Some(0x4000_0000 + 520)),
            ("open", Arch::Aarch64, None),
            ("openat", Arch::Aarch64, Some(56)),
            ("cacheflush", Arch::Arm, Some(0x000f_0002)),
            ("sync_file_range2", Arch::Arm, Some(341)),
            ("riscv_hwprobe", Arch::Riscv64, Some(258)),
            ("s390_pci_mmio_read", Arch::S390x, Some(353)),
            ("chown32", Arch::S390, Some(212)),
            ("swapcontext", Arch::Ppc64le, Some(249)),
            ("clone", Arch::LoongArch64, Some(220)),
            ("read", Arch::Mips, Some(4003)),
            ("read", Arch::Mipsel64, Some(5000)),
            ("read", Arch::Mips64N32, Some(6000)),
        ];
        for (name, arch, expected) in table {
            assert_eq!(number(name, arch), expected, "{name} on {arch:?}");
        }
    }

    #[test]
    fn numbers_have_names() {
        for (number, audit, expected) in [
            (165, 0xc000_003e, Some("mount")),
            (0x4000_0000 + 520, 0xc000_003e, Some("execve")),
            (21, 0x4000_0003, Some("mount")),
            (40, 0xc000_00b7, Some("mount")),
            (9999, 0xc000_003e, None),
            (0, 0, None),
        ] {
            assert_eq!(name(number, audit), expected, "{number} of {audit:#x}");
        }
    }

    #[test]
    fn inner_calls_exist() {
        for index in 0..COUNT {
            if let Some(inner) = inner(entry(index)) {
                assert!(find(inner.outer.name()).is_some(), "{}", entry(index));
            }
        }
    }
}
