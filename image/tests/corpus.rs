//! The files of tests/corpus/, which are called what they are, and what becomes of them when bytes change.
//!
//! `KELSON_MUTATIONS=N` makes N of each file, in place of 100. The files are written by src/unpack/tests/seeds.rs.

use std::fs;
use std::path::PathBuf;

mod hostile;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() > 20, "the corpus is not there");
    files
}

#[test]
fn each_file_is_taken_or_refused_as_its_name_says() {
    for (name, archive) in corpus() {
        let is_taken = hostile::check(&archive);
        assert_eq!(is_taken, !name.starts_with("refused-"), "{name}");
    }
}

/// xorshift64*: the same sequence on each run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }
}

/// Values that decide something in a header.
const TELLING: &[&[u8]] = &[
    b"0",
    b"7",
    b"/",
    b"..",
    b"../",
    b"\0",
    b"\xff",
    b"\x80",
    b"x",
    b"g",
    b"L",
    b"K",
    b"S",
    b"1",
    b"2",
    b"5",
    b".wh.",
    b".wh..wh..opq",
    b"77777777777",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b" ",
    b"\n",
    b"=",
    b"9",
];

fn mutate(archive: &mut Vec<u8>, others: &[(String, Vec<u8>)], random: &mut Random) {
    let at = random.next(archive.len());
    match random.next(6) {
        0 => archive[at] ^= 1 << random.next(8),
        1 | 2 => {
            let value = TELLING[random.next(TELLING.len())];
            // Where names, numbers and types are.
            let field = [0, 100, 124, 136, 156, 157, 257, 345, 386, 482][random.next(10)];
            let at = if random.next(2) == 0 { at } else { at / 512 * 512 + field };
            let end = (at + value.len()).min(archive.len());
            if at < end {
                archive[at..end].copy_from_slice(&value[..end - at]);
            }
        }
        3 => archive.truncate(at.max(1)),
        // Blocks of another, put between.
        4 => {
            let other = &others[random.next(others.len())].1;
            let from = random.next(other.len() / 512 + 1) * 512;
            let until = (from + 512 * (1 + random.next(3))).min(other.len());
            let at = (at / 512 * 512).min(archive.len());
            archive.splice(at..at, other[from..until].iter().copied());
        }
        _ => {
            let until = (at + 512 * random.next(3)).min(archive.len());
            archive.drain(at..until);
        }
    }
    if archive.is_empty() {
        archive.push(0);
    }
}

#[test]
fn nothing_that_is_mutated_leaves_its_directory() {
    let rounds = std::env::var("KELSON_MUTATIONS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(100);
    let corpus = corpus();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut taken = 0_u32;
    for (name, archive) in &corpus {
        for _ in 0..rounds {
            let mut mutated = archive.clone();
            if mutated.is_empty() {
                mutated.push(0);
            }
            for _ in 0..1 + random.next(4) {
                mutate(&mut mutated, &corpus, &mut random);
            }
            let mutated = hostile::with_checksums(&mutated);
            let outcome = std::panic::catch_unwind(|| hostile::check(&mutated));
            match outcome {
                Ok(is_taken) => taken += u32::from(is_taken),
                Err(panic) => {
                    let path = std::env::temp_dir().join("kelson-mutated");
                    fs::write(&path, &mutated).unwrap();
                    eprintln!("made of {name}, kept as {}", path.display());
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    // Were all refused, the changes would be too coarse to reach anything.
    assert!(taken > 100, "{taken}");
}
