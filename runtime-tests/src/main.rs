//! Command line of the tests.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use runtime_tests::harness::Peer;
use runtime_tests::runner::{self, Options};
use runtime_tests::tracer;

const HELP: &str = "\
runtime-tests --runtime PATH [OPTION…] [NAME…]

Runs bundles against an OCI runtime and judges what a guest inside sees. As root.
NAME selects tests whose full name contains it.

  --runtime PATH         the runtime under test
  --guest PATH           the static guest (default: `guest` beside this program)
  --known FILE           list of known differences (default: runtime-tests/known.toml if it is there)
  --peer NAME            conventions to expect: kelson, runc or crun (default: the first word of --version)
  --cgroup host|v1|v2    what to show below /sys/fs/cgroup, in a private mount namespace
  --systemd-cgroup       make the containers by the systemd driver, on a host that systemd runs
  --jobs N               tests at the same time (default 2)
  --slow N               stretch every deadline N times
  --skip NAME            leave out tests whose full name contains it; can be repeated
  --no-newer-syscalls    run the runtime under a filter that answers ENOSYS to clone3, openat2, mount_setattr, fsopen,
                         fspick, open_tree, close_range, pidfd_open
  --quiet                print failures and totals only
  --list                 print the names and run nothing
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("runtime-tests: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let beside = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("guest");
    let mut options = Options {
        runtime: PathBuf::new(),
        guest: beside,
        known: None,
        peer: None,
        jobs: 2,
        no_newer_syscalls: false,
        cgroup: None,
        systemd: false,
        slow: 1,
        names: vec![],
        skip: vec![],
        quiet: false,
    };
    let mut list = false;
    let mut parser = lexopt::Parser::from_env();
    let text = |p: &mut lexopt::Parser| -> Result<String, String> {
        p.value().and_then(|v| v.string()).map_err(|e| e.to_string())
    };
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("runtime") => options.runtime = text(&mut parser)?.into(),
            Long("guest") => options.guest = text(&mut parser)?.into(),
            Long("known") => options.known = Some(text(&mut parser)?.into()),
            Long("peer") => {
                let name = text(&mut parser)?;
                options.peer = Some(Peer::from_name(&name).ok_or_else(|| format!("--peer: unknown name {name:?}"))?);
            }
            Long("cgroup") => options.cgroup = Some(text(&mut parser)?),
            Long("jobs") => options.jobs = text(&mut parser)?.parse().map_err(|e| format!("--jobs: {e}"))?,
            Long("slow") => options.slow = text(&mut parser)?.parse().map_err(|e| format!("--slow: {e}"))?,
            Long("skip") => options.skip.push(text(&mut parser)?),
            Long("no-newer-syscalls") => options.no_newer_syscalls = true,
            Long("systemd-cgroup") => options.systemd = true,
            Long("quiet") => options.quiet = true,
            Long("list") => list = true,
            Long("one") => return runner::one(&text(&mut parser)?),
            Long("trace") => {
                let settings = text(&mut parser)?;
                let command: Vec<_> = parser.raw_args().map_err(|e| e.to_string())?.skip(1).collect();
                return tracer::run(&settings, &command);
            }
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            Value(name) => options.names.push(name.string().map_err(|e| e.to_string())?),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if list {
        runner::selected(&options).iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    if options.runtime.as_os_str().is_empty() {
        return Err("--runtime PATH is needed".into());
    }
    options.runtime = full_path(&options.runtime)?;
    options.guest = full_path(&options.guest)?;
    let default_known = PathBuf::from("runtime-tests/known.toml");
    if options.known.is_none() && default_known.exists() {
        options.known = Some(default_known);
    }
    runner::run(&options)
}

/// Absolute path; a name without slash is looked up in PATH.
fn full_path(path: &std::path::Path) -> Result<PathBuf, String> {
    if path.components().count() == 1 && !path.exists() {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        if let Some(found) = std::env::split_paths(&dirs).map(|d| d.join(path)).find(|p| p.exists()) {
            return Ok(found);
        }
    }
    path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))
}
