//! `tool -mb N` takes N MiB of memory and tells how far it came; `tool -hang LABEL` does nothing, for ps(1) to find it by its LABEL.
//!
//! With both it holds the memory. The flags are those of the tool in the post that docs/tour.md follows.

#![forbid(unsafe_code)]

use std::process::ExitCode;

const MIB: usize = 1 << 20;
/// Told after each of these.
const STEP_MIB: usize = 25;

struct Flags {
    mib: usize,
    label: Option<String>,
}

fn main() -> ExitCode {
    let Some(flags) = read(std::env::args().skip(1)) else {
        eprintln!("usage: tool [-mb N] [-hang LABEL]");
        return ExitCode::from(2);
    };
    let taken = take(flags.mib);
    if let Some(label) = flags.label {
        println!("hang on, {label}");
        loop {
            std::thread::park();
        }
    }
    drop(taken);
    ExitCode::SUCCESS
}

/// `None`: they say nothing that this program knows.
fn read(mut words: impl Iterator<Item = String>) -> Option<Flags> {
    let mut flags = Flags { mib: 0, label: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "-mb" => flags.mib = words.next()?.parse().ok()?,
            "-hang" => flags.label = Some(words.next()?),
            _ => return None,
        }
    }
    (flags.mib > 0 || flags.label.is_some()).then_some(flags)
}

/// Memory counts from the first write to each page on: ones are written, where zeros would be the kernel's shared page.
fn take(mib: usize) -> Vec<Vec<u8>> {
    let mut taken = Vec::with_capacity(mib);
    for count in 1..=mib {
        taken.push(vec![1; MIB]);
        if count % STEP_MIB == 0 || count == mib {
            println!("{count} MB");
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        let read = |words: &str| {
            read(words.split_whitespace().map(str::to_owned)).map(|flags| (flags.mib, flags.label.unwrap_or_default()))
        };
        assert_eq!(read("-mb 200"), Some((200, String::new())));
        assert_eq!(read("-hang a -mb 1"), Some((1, "a".to_owned())));
        for words in ["", "-mb", "-mb x", "-mb 0", "-hang", "200"] {
            assert_eq!(read(words), None, "{words}");
        }
    }
}
