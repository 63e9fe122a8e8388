//! Programs that make networks: where they are, and what they say when they fail.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use kelson::error::{Context, Error, Result};

/// Where administrators' programs are, which PATH need not name.
const ADMINISTRATORS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// PATH, and where iptables(8) and such programs are.
pub fn search_path() -> String {
    match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{ADMINISTRATORS}"),
        _ => ADMINISTRATORS.into(),
    }
}

/// The program called `name` in one of `directories`, which are separated by colons.
pub fn find_in(directories: &str, name: &str) -> Option<PathBuf> {
    directories
        .split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

/// Runs `program` with `input` on its standard input to its end.
pub fn run(program: &Path, args: &[&str], environment: &[(&str, &str)], input: &str) -> Result<Output> {
    let doing = || format!("run {}", program.display());
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", search_path())
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It failed early, and says why.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written.doing(doing)?,
        }
    }
    child.wait_with_output().doing(doing)
}

/// What a failed program said, on one line.
pub fn said(status: ExitStatus, text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match (lines.is_empty(), status.code(), status.signal()) {
        (false, ..) => lines.join("; "),
        (true, Some(code), _) => format!("exit status {code}"),
        (true, None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    }
}

/// That a program is not there.
pub fn missing(name: &str, package: &'static str) -> Error {
    Error::other(format!("the program {name} is not installed")).hint(package)
}
