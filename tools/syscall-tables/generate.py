#!/usr/bin/env python3
"""Writes src/security/seccomp/tables.rs: every system call name with its number on each architecture.

The numbers come from the kernel headers in Debian's linux-libc-dev, which holds all architectures in one package
since Debian 13. SUITES is in order of authority: a later suite only adds names that the kernel has dropped since,
because profiles still name them and older kernels still have them (31-bit s390 went altogether after 6.18).

Needs apt-get and dpkg; runs as any user, leaves the machine's own package lists alone.

    tools/syscall-tables/generate.py > src/security/seccomp/tables.rs
"""

import pathlib
import re
import subprocess
import tempfile

SUITES = ["sid", "trixie"]
ARCHIVE = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Column (a constant in tables.rs), its headers below usr/lib/linux/uapi.
COLUMNS = [
    ("X86_64", ["x86/asm/unistd_64.h"]),
    ("X86", ["x86/asm/unistd_32.h"]),
    ("X32", ["x86/asm/unistd_x32.h"]),
    ("AARCH64", ["arm64/asm/unistd_64.h"]),
    ("ARM", ["arm/asm/unistd-eabi.h", "arm/asm/unistd.h"]),
    ("RISCV64", ["riscv/asm/unistd_64.h"]),
    ("S390X", ["s390/asm/unistd_64.h"]),
    ("S390", ["s390/asm/unistd_32.h"]),
    ("PPC64", ["powerpc/asm/unistd_64.h"]),
    ("PPC", ["powerpc/asm/unistd_32.h"]),
    ("LOONGARCH64", ["loongarch/asm/unistd_64.h"]),
    ("MIPS_O32", ["mips/asm/unistd_o32.h"]),
    ("MIPS_N32", ["mips/asm/unistd_n32.h"]),
    ("MIPS_N64", ["mips/asm/unistd_n64.h"]),
    ("M68K", ["m68k/asm/unistd_32.h"]),
    ("PARISC", ["parisc/asm/unistd_32.h"]),
    ("PARISC64", ["parisc/asm/unistd_64.h"]),
    ("SH", ["sh/asm/unistd_32.h"]),
]

# Where an architecture's numbers begin; tables.rs holds the distance from here (seccomp/profile.rs adds it again).
BASES = {"__X32_SYSCALL_BIT": 0, "__NR_SYSCALL_BASE": 0, "__NR_Linux": 0}
# Arm's private calls (cacheflush and its like) begin at 0xf0000; the table keeps them at 0x400, above all others.
ARM_PRIVATE = 0x400
ABSENT = 0xFFFF

DEFINE = re.compile(r"^#define\s+__(NR|ARM_NR)_(\w+)\s+\(?(?:(\w+)\s*\+\s*)?(0x[0-9a-fA-F]+|\d+)\)?\s*$")
ALIAS = re.compile(r"^#define\s+__NR_(\w+)\s+__NR_(\w+)\s*$")
NOT_CALLS = {"SYSCALL_BASE", "OABI_SYSCALL_BASE", "SYSCALL_MASK", "Linux", "BASE", "syscalls"}


def unpack(suite, work):
    """Fetches linux-libc-dev of a suite; returns its version and the directory that holds the headers."""
    root = work / suite
    for directory in ["etc", "lists/partial", "cache/archives/partial", "state", "out"]:
        (root / directory).mkdir(parents=True)
    (root / "state/status").touch()
    (root / "etc/debian.sources").write_text(
        f"Types: deb\nURIs: {ARCHIVE}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n")
    apt = ["apt-get", "-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={root}/etc",
           "-o", f"Dir::State={root}/state", "-o", f"Dir::State::lists={root}/lists",
           "-o", f"Dir::State::status={root}/state/status", "-o", f"Dir::Cache={root}/cache",
           "-o", "APT::Sandbox::User=" + subprocess.check_output(["id", "-un"], text=True).strip()]
    subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*apt, "download", "linux-libc-dev"], check=True, stdout=subprocess.DEVNULL, cwd=root)
    package = next(root.glob("linux-libc-dev_*.deb"))
    subprocess.run(["dpkg", "-x", package, root / "out"], check=True)
    return package.name.split("_")[1], root / "out/usr/lib/linux/uapi"


def read(headers):
    """The calls that one architecture's headers define, as name → number."""
    calls, aliases = {}, {}
    for header in headers:
        for line in header.read_text().splitlines() if header.exists() else []:
            if (found := DEFINE.match(line)) and found[2] not in NOT_CALLS:
                kind, name, base, number = found.groups()
                if kind == "ARM_NR":
                    calls[name] = ARM_PRIVATE + int(number, 0)
                else:
                    calls[name] = BASES[base or "__NR_Linux"] + int(number, 0)
            elif found := ALIAS.match(line):
                aliases[found[1]] = found[2]
    return calls | {alias: calls[name] for alias, name in aliases.items() if name in calls}


def wrap(items, indent="    ", width=120):
    line, lines = indent, []
    for item in items:
        if len(line) + len(item) + 2 > width:
            lines.append(line.rstrip())
            line = indent
        line += item + ", "
    return "\n".join([*lines, line.rstrip()])


def main():
    columns, versions = {column: {} for column, _ in COLUMNS}, []
    with tempfile.TemporaryDirectory() as work:
        for suite in SUITES:
            version, root = unpack(suite, pathlib.Path(work))
            versions.append(version)
            for column, headers in COLUMNS:
                columns[column] = read([root / header for header in headers]) | columns[column]

    names = sorted(set().union(*columns.values()))
    offsets, blob = [0], ""
    for name in names:
        blob += name
        offsets.append(len(blob))
    letters = [sum(name < letter for name in names) for letter in "abcdefghijklmnopqrstuvwxyz{"]
    assert len(blob) < 0x10000 and names[0][0] == "_" and all(name[0] in "_abcdefghijklmnopqrstuvwxyz" for name in names)

    print(f"""\
//! System call numbers of Linux, by name and architecture.
//!
//! Generated by tools/syscall-tables/generate.py from linux-libc-dev {" and ".join(versions)}; do not edit.

/// How many names there are.
pub(super) const COUNT: usize = {len(names)};

/// In a column: the architecture does not have the call.
pub(super) const ABSENT: u16 = {ABSENT:#x};
const X: u16 = ABSENT;

/// Arm's private calls begin here in its column, and at `0xf0000` in the kernel.
pub(super) const ARM_PRIVATE: u16 = {ARM_PRIVATE:#x};

/// All names, sorted, without separators: one string instead of a slice of slices, which would need a relocation each.
pub(super) const NAMES: &str = concat!(""")
    line = ""
    for name in [*names, None]:
        if name is None or len(line) + len(name) > 112:
            print(f'    "{line}",')
            line = ""
        line += name or ""
    print(f""");

/// Where each name begins in `NAMES`; one more entry marks the end of the last.
pub(super) static OFFSETS: [u16; COUNT + 1] = [
{wrap(map(str, offsets))}
];

/// How many names sort before each letter from `a` to the one after `z`.
pub(super) static LETTERS: [u16; 27] = [
{wrap(map(str, letters))}
];""")
    for column, _ in COLUMNS:
        numbers = [columns[column].get(name, ABSENT) for name in names]
        assert all(number == ABSENT or number < ARM_PRIVATE + 16 for number in numbers)
        cells = ["X" if number == ABSENT else str(number) for number in numbers]
        print(f"\npub(super) static {column}: [u16; COUNT] = [\n{wrap(cells)}\n];")


if __name__ == "__main__":
    main()
