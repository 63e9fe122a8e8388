//! A failing execve says which of these it is, with the words that callers look for (podman's and Docker's 126, 127).

use std::fs;

use crate::harness::{Bundle, Context, Outcome, Peer, Test, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "no_such_file", run: no_such_file },
    Test { name: "not_in_path", run: not_in_path },
    Test { name: "not_executable", run: not_executable },
    Test { name: "not_executable_in_path", run: not_executable_in_path },
    Test { name: "is_a_directory", run: is_a_directory },
    Test { name: "wrong_architecture", run: wrong_architecture },
    Test { name: "missing_elf_interpreter", run: missing_elf_interpreter },
    Test { name: "missing_script_interpreter", run: missing_script_interpreter },
    Test { name: "crlf_in_the_first_line", run: crlf },
    Test { name: "noexec_mount", run: noexec_mount },
    Test { name: "text_without_a_first_line", run: text_file },
    Test { name: "empty_file", run: empty_file },
    Test { name: "user_may_not_reach_it", run: unreachable },
    Test { name: "cwd_is_a_file", run: cwd_is_a_file },
    Test { name: "no_arguments_at_all", run: no_arguments },
    Test { name: "missing_in_the_background", run: missing_detached },
    Test { name: "create_fails_and_not_start", run: create_fails },
    Test { name: "exec_of_a_missing_program", run: exec_missing },
    Test { name: "exec_of_a_file_that_is_not_executable", run: exec_not_executable },
    Test { name: "exec_that_fails_leaves_no_pid_file", run: exec_pid_file },
    Test { name: "script_runs", run: script_runs },
];

/// podman/libpod/oci_util.go: these words become 127 and 126.
const MISSING: &[&str] = &["executable file not found in", "no such file or directory", "open executable"];
const DENIED: &[&str] = &["permission denied", "operation not permitted"];

/// Runs it in the foreground: the error holds a word of `either` and each of `words`; Kelson exits with `code`.
fn fails(bundle: &mut Bundle, program: &str, code: i32, either: &[&str], words: &[&str]) -> Outcome {
    bundle.set("/process/args", json!([program]));
    let ctx = bundle.context;
    let run = bundle.run()?.fails_saying_one_of(either)?;
    let run = run.fails_saying(&[program])?;
    if ctx.peer == Peer::Kelson {
        check_eq!(run.code, code, "exit code\n  {}", run.told());
        let run = run.fails_saying(words)?;
        check_eq!(run.err().trim_end().lines().count(), 1, "lines of the error\n  {}", run.told());
    }
    check!(ctx.state_entries().is_empty(), "a container is left after a failed run");
    Ok(())
}

fn no_such_file(ctx: &Context) -> Outcome {
    fails(&mut ctx.bundle()?, "/bin/nothing", 127, MISSING, &[])
}

fn not_in_path(ctx: &Context) -> Outcome {
    fails(&mut ctx.bundle()?, "nothing-of-this-name", 127, &["executable file not found in"], &["$PATH"])
}

fn not_executable(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/bin/plain", "#!/bin/guest\n")?;
    fails(&mut bundle, "/bin/plain", 126, DENIED, &[])
}

/// execvp(3) goes on after EACCES and reports it in the end.
fn not_executable_in_path(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/bin/plain", "x")?;
    bundle.set("/process/args", json!(["plain"]));
    let run = bundle.run()?.fails_saying_one_of(&[DENIED, MISSING].concat())?;
    if ctx.peer == Peer::Kelson {
        check_eq!(run.code, 126, "exit code\n  {}", run.told());
    }
    Ok(())
}

fn is_a_directory(ctx: &Context) -> Outcome {
    fails(&mut ctx.bundle()?, "/etc", 126, &["permission denied", "is a directory"], &["directory"])
}

/// The config is wrong, no program: not the codes of a shell.
fn no_arguments(ctx: &Context) -> Outcome {
    for args in [json!([]), json!([""]), json!(["/bin/guest", 3])] {
        let mut bundle = ctx.bundle()?;
        bundle.set("/process/args", args);
        let run = bundle.run()?.fails()?;
        if ctx.peer == Peer::Kelson {
            check_eq!(run.code, 1, "exit code\n  {}", run.told());
        }
    }
    Ok(())
}

fn missing_detached(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/args", json!(["/bin/nothing"])).option("--detach");
    let run = bundle.run()?.fails()?;
    check_eq!(run.code, 1, "exit code\n  {}", run.told());
    Ok(())
}

fn wrong_architecture(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut elf = fs::read(&ctx.guest)?;
    // e_machine: 40 is ARM, which no x86, arm64 or riscv kernel runs (arm64 without compat).
    elf[18] = 40;
    elf[19] = 0;
    bundle.executable("/bin/foreign", elf)?;
    fails(&mut bundle, "/bin/foreign", 126, &["exec format error"], &["arm"])
}

/// The guest's header with an interpreter segment that names a missing file.
fn with_interpreter(elf: &[u8], interpreter: &[u8]) -> Vec<u8> {
    let mut elf = elf.to_vec();
    let u64_at = |b: &[u8], at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap_or_default()) as usize;
    let u16_at = |b: &[u8], at: usize| u16::from_le_bytes(b[at..at + 2].try_into().unwrap_or_default()) as usize;
    let (table, size, count) = (u64_at(&elf, 32), u16_at(&elf, 54), u16_at(&elf, 56));
    let name_at = elf.len();
    for i in 0..count {
        let at = table + i * size;
        let kind = u32::from_le_bytes(elf[at..at + 4].try_into().unwrap_or_default());
        // PT_NOTE, PT_TLS, PT_GNU_*: any segment that is not loaded becomes PT_INTERP.
        if kind != 1 && kind != 6 {
            elf[at..at + 4].copy_from_slice(&3u32.to_le_bytes());
            elf[at + 8..at + 16].copy_from_slice(&(name_at as u64).to_le_bytes());
            elf[at + 32..at + 40].copy_from_slice(&(interpreter.len() as u64 + 1).to_le_bytes());
            break;
        }
    }
    elf.extend_from_slice(interpreter);
    elf.push(0);
    elf
}

fn missing_elf_interpreter(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let elf = with_interpreter(&fs::read(&ctx.guest)?, b"/lib/ld-not-there.so.2");
    bundle.executable("/bin/dynamic", elf)?;
    fails(&mut bundle, "/bin/dynamic", 127, MISSING, &["/lib/ld-not-there.so.2", "interpreter"])
}

fn missing_script_interpreter(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.executable("/bin/script", "#!/opt/missing/python3 -u\nprint(1)\n")?;
    fails(&mut bundle, "/bin/script", 127, MISSING, &["/opt/missing/python3", "interpreter"])
}

fn crlf(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.executable("/bin/windows", "#!/bin/guest\r\n")?;
    fails(&mut bundle, "/bin/windows", 127, MISSING, &["crlf"])
}

fn noexec_mount(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let dir = ctx.new_dir("source")?;
    fs::copy(&ctx.guest, dir.join("guest"))?;
    bundle.mount("/mnt/t", "bind", &dir, &["bind", "noexec"]);
    fails(&mut bundle, "/mnt/t/guest", 126, DENIED, &["noexec"])
}

fn text_file(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.executable("/bin/text", "echo hello\n")?;
    fails(&mut bundle, "/bin/text", 126, &["exec format error"], &["#!"])
}

fn empty_file(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.executable("/bin/empty", "")?;
    fails(&mut bundle, "/bin/empty", 126, &["exec format error"], &["empty"])
}

fn unreachable(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs.join("closed"))?;
    fs::copy(&ctx.guest, bundle.rootfs.join("closed/guest"))?;
    fs::set_permissions(bundle.rootfs.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    fails(&mut bundle, "/closed/guest", 126, DENIED, &[])
}

fn cwd_is_a_file(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/cwd", "/etc/passwd").refused(&["/etc/passwd", "not a directory"])
}

/// What can be known at create is said there: a driver shows it as the reason.
fn create_fails(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.set("/process/args", json!(["/bin/nothing"])).container()?;
    container.create()?.fails_saying(&["/bin/nothing"])?.fails_saying_one_of(MISSING)?;
    check!(ctx.state_entries().is_empty(), "a container is left after a failed create");
    Ok(())
}

fn exec_missing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let run = container.exec_command(&[], &["/bin/nothing"]).run()?.fails_saying(&["/bin/nothing"])?;
    let run = run.fails_saying_one_of(MISSING)?;
    if ctx.peer == Peer::Kelson {
        check_eq!(run.code, 255, "exit code\n  {}", run.told());
    }
    check_eq!(container.status()?, "running", "status after a failed exec");
    container.end()
}

fn exec_not_executable(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let run = container.exec_command(&[], &["/etc/passwd"]).run()?.fails_saying_one_of(DENIED)?;
    if ctx.peer == Peer::Kelson {
        check_eq!(run.code, 255, "exit code\n  {}", run.told());
    }
    container.end()
}

/// Only execve(2) finds out what is wrong with the program: the PID is known by then, and soon another's.
fn exec_pid_file(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.executable("/bin/empty", "")?;
    let container = bundle.guest(&["sleep"]).start()?;
    let file = ctx.dir.join("exec.pid");
    let exec = |program: &str| {
        let options = ["--detach", "--pid-file", &file.to_string_lossy()];
        container.exec_command(&options, &[program, "sleep"]).run()
    };
    exec("/bin/empty")?.fails()?;
    check!(!file.exists(), "a failed exec left its PID file: {:?}", fs::read_to_string(&file));
    exec("/bin/guest")?.ok()?;
    check!(file.exists(), "exec wrote no PID file");
    container.end()
}

fn script_runs(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.executable("/bin/script", "#!/bin/guest print\n")?;
    bundle.set("/process/args", json!(["script"]));
    let run = bundle.run()?.ok()?;
    check_eq!(run.out(), "/bin/script\n", "output of the interpreter");
    Ok(())
}
