//! Writes classic BPF from its last instruction to its first, so that every jump knows its target.
//!
//! A jump reaches 255 instructions. A return out of reach is repeated nearby, anything else gets an unconditional jump
//! nearby, which reaches the whole program.

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// Loads the 32-bit word at offset `k` of `struct seccomp_data` into the accumulator (`BPF_LD | BPF_W | BPF_ABS`).
pub const LOAD: u16 = 0x20;
/// Keeps only the bits `k` of the accumulator (`BPF_ALU | BPF_AND | BPF_K`).
pub const AND: u16 = 0x54;
/// Skips `k` instructions (`BPF_JMP | BPF_JA`).
pub const JUMP: u16 = 0x05;
/// Skips `jt` instructions if the accumulator is `k`, else `jf` (`BPF_JMP | BPF_JEQ | BPF_K`).
pub const EQUAL: u16 = 0x15;
/// The same if the accumulator is greater than `k` (`BPF_JMP | BPF_JGT | BPF_K`).
pub const GREATER: u16 = 0x25;
/// The same if the accumulator is at least `k` (`BPF_JMP | BPF_JGE | BPF_K`).
pub const AT_LEAST: u16 = 0x35;
/// The same if the accumulator has any of the bits `k` (`BPF_JMP | BPF_JSET | BPF_K`).
pub const ANY_BIT: u16 = 0x45;
/// Ends with the verdict `k` (`BPF_RET | BPF_K`).
pub const RETURN: u16 = 0x06;

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// End with this verdict.
    Return(u32),
    /// An instruction that is already written, counted from the end of the program.
    At(usize),
}

/// The program so far; see the module's head.
pub struct Assembler {
    /// Last instruction first.
    instructions: Vec<Instruction>,
    /// The latest return of each verdict.
    returns: Vec<(u32, usize)>,
}

/// How far away a target may be before it gets a stand-in. A conditional jump has two targets, and the stand-in of the
/// second pushes the first one further away: hence less than 255.
const REACH: usize = 250;

impl Assembler {
    pub fn new() -> Self {
        Self { instructions: Vec::with_capacity(512), returns: Vec::with_capacity(8) }
    }

    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// The program, first instruction first.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.instructions.reverse();
        self.instructions
    }

    /// Compares the accumulator with `k` and goes to `yes` or `no`.
    pub fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let (jt, jf) = (self.distance(yes), self.distance(no));
        // REACH keeps both below 256.
        self.push(Instruction { code, jt: jt as u8, jf: jf as u8, k })
    }

    /// Does `code` with `k`, then goes to `next`.
    pub fn then(&mut self, code: u16, k: u32, next: Target) -> Target {
        self.adjoin(next);
        self.push(Instruction { code, jt: 0, jf: 0, k })
    }

    /// Sees to it that falling through leads to `target`.
    fn adjoin(&mut self, target: Target) {
        match target {
            Target::Return(verdict) => {
                if self.returns.iter().all(|(v, at)| *v != verdict || *at + 1 != self.len()) {
                    self.push_return(verdict);
                }
            }
            Target::At(at) if at + 1 == self.len() => {}
            Target::At(at) => {
                self.push_jump(at);
            }
        }
    }

    /// A written instruction within `REACH` that leads to `target`.
    fn near(&mut self, target: Target) -> usize {
        let written = match target {
            Target::At(at) => Some(at),
            Target::Return(verdict) => self.returns.iter().find(|(v, _)| *v == verdict).map(|(_, at)| *at),
        };
        match (target, written) {
            (_, Some(at)) if self.distance(at) <= REACH => at,
            (Target::At(at), _) => self.push_jump(at),
            (Target::Return(verdict), _) => self.push_return(verdict),
        }
    }

    /// How many instructions the next one to be written has to skip to reach `at`.
    fn distance(&self, at: usize) -> usize {
        self.len() - 1 - at
    }

    fn push_jump(&mut self, at: usize) -> usize {
        let k = self.distance(at) as u32;
        self.push(Instruction { code: JUMP, jt: 0, jf: 0, k });
        self.len() - 1
    }

    fn push_return(&mut self, verdict: u32) -> usize {
        self.push(Instruction { code: RETURN, jt: 0, jf: 0, k: verdict });
        let at = self.len() - 1;
        match self.returns.iter_mut().find(|(v, _)| *v == verdict) {
            Some((_, latest)) => *latest = at,
            None => self.returns.push((verdict, at)),
        }
        at
    }

    fn push(&mut self, instruction: Instruction) -> Target {
        self.instructions.push(instruction);
        Target::At(self.len() - 1)
    }
}
