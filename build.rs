//! Tells the linker where the program begins: src/sys/entry.rs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Without optimization the compiler makes calls of memcpy, whose address is not known so early.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && !is("OPT_LEVEL", "0") {
        // An entry point that is missing would be no more than a warning: the second name for it is an error then.
        for option in ["--defsym=kelson_start=kelson_entry", "--entry=kelson_entry"] {
            println!("cargo::rustc-link-arg-bin=kelson=-Wl,{option}");
        }
    }
}
