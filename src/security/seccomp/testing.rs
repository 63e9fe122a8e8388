//! For tests, here and in tests/: runs a filter as the kernel does, and checks what the kernel checks before.

use super::Instruction;

/// What a filter sees of a call (`struct seccomp_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub audit: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let big_endian = self.audit & 0x4000_0000 == 0;
        match offset {
            0 => self.number,
            4 => self.audit,
            8 | 12 => 0,
            _ => {
                let arg = self.args[(offset as usize - 16) / 8];
                if (offset % 8 == 4) == big_endian { arg as u32 } else { (arg >> 32) as u32 }
            }
        }
    }
}

/// The verdict of `program` on `call`, and how many instructions that took.
pub fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut at, mut accumulator, mut executed) = (0, 0u32, 0);
    loop {
        let instruction = program[at];
        let Instruction { code, jt, jf, k } = instruction;
        executed += 1;
        let jump = |yes: bool| at + 1 + usize::from(if yes { jt } else { jf });
        at = match code {
            0x20 => {
                accumulator = call.word(k);
                at + 1
            }
            0x54 => {
                accumulator &= k;
                at + 1
            }
            0x05 => at + 1 + k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x06 => return (k, executed),
            _ => panic!("unexpected {instruction:?}"),
        };
    }
}

/// Panics where the kernel refuses a filter (net/core/filter.c `bpf_check_classic`, kernel/seccomp.c
/// `seccomp_check_filter`), and where it reads words of a call that mean nothing.
pub fn check(program: &[Instruction]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match instruction.code {
            0x20 => assert!(instruction.k < 64 && instruction.k % 4 == 0, "{at}: {instruction:?}"),
            0x54 | 0x06 => {}
            0x05 => assert!((instruction.k as usize) < left, "{at}: {instruction:?}"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(usize::from(instruction.jt.max(instruction.jf)) < left, "{at}: {instruction:?}");
            }
            _ => panic!("{at}: {instruction:?}"),
        }
    }
    assert_eq!(program.last().map(|last| last.code), Some(0x06), "does not end with a return");
}
