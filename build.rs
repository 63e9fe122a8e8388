//! Tells the linker where the program begins: src/sys/entry.rs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        // An entry point that is missing would be no more than a warning: the second name for it is an error then.
        for option in ["--defsym=kelson_start=kelson_entry", "--entry=kelson_entry"] {
            println!("cargo::rustc-link-arg-bin=kelson=-Wl,{option}");
        }
    }
}
