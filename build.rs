//! Tells the linker where the program begins (src/sys/entry.rs), and how it is laid out (link/).

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_optimized = !is("OPT_LEVEL", "0");
    // Without optimization the compiler makes calls of memcpy, whose address is not known so early.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && is_optimized {
        // An entry point that is missing would be no more than a warning: the second name for it is an error then.
        for option in ["--defsym=kelson_start=kelson_entry", "--entry=kelson_entry"] {
            link(option);
        }
    }
    // glibc unwinds where it ends threads.
    if is("CARGO_CFG_TARGET_ENV", "musl") && is_optimized {
        let tree = env::var("CARGO_MANIFEST_DIR").expect("cargo tells where the package is");
        for script in ["order.ld", "no-unwind.ld"] {
            println!("cargo::rerun-if-changed=link/{script}");
            link(&format!("--script={tree}/link/{script}"));
        }
    }
}

/// Gives the linker of the program an option.
fn link(option: &str) {
    println!("cargo::rustc-link-arg-bin=kelson=-Wl,{option}");
}
