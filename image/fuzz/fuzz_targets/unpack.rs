//! A layer of arbitrary bytes: nothing is written outside its directory, and nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

fuzz_target!(|data: &[u8]| {
    hostile::check(&hostile::with_checksums(data));
});
