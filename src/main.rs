//! argv in, exit code out: the only place that prints an error or ends the program.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use kelson::cli::{self, Command, Global};
use kelson::error::Result;
use kelson::lifecycle::{Runtime, create, delete, exec, features, inspect, kill, pause, spec, start};
use kelson::log;
use kelson::seal;
use kelson::sys::fd::{CloseRange, close_from};
use kelson::sys::process::default_signal;
use nix::libc::SIGCHLD;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let program = if arguments.is_empty() { OsString::new() } else { arguments.remove(0) };
    let invocation = match cli::parse(arguments.iter().cloned()) {
        Ok(invocation) => invocation,
        Err(failure) => {
            // Where the error goes is part of what could not be read: what is known of it holds.
            let _ = log::init(&failure.global);
            log::error(&failure.error);
            return ExitCode::from(failure.exit_code);
        }
    };
    let outcome = log::init(&invocation.global).and_then(|()| {
        if matches!(invocation.command, Command::Create(_) | Command::Run(_) | Command::Exec(_)) {
            seal::ensure(&program, &arguments)?;
        }
        // What the caller left open reaches neither helpers nor the container; what it ignored does not lose their end.
        close_from(3, CloseRange::OnExec)?;
        default_signal(SIGCHLD)?;
        perform(&invocation.global, &invocation.command)
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&error);
            ExitCode::from(match &invocation.command {
                Command::Run(_) => create::failure_code(&error),
                command => command.failure_code(),
            })
        }
    }
}

fn perform(global: &Global, command: &Command) -> Result<u8> {
    let runtime = || Runtime::new(global);
    match command {
        Command::Create(options) => create::create(&runtime()?, options)?,
        Command::Run(options) => return create::run(&runtime()?, options),
        Command::Start { id } => start::start(&runtime()?, id)?,
        Command::Exec(options) => return exec::exec(&runtime()?, options),
        Command::State { id } => print(&inspect::state(&runtime()?, id)?)?,
        Command::Kill(options) => kill::kill(&runtime()?, options)?,
        Command::Delete(options) => delete::delete(&runtime()?, options)?,
        Command::List(options) => print(&inspect::list(&runtime()?, options)?)?,
        Command::Ps(options) => print(&inspect::ps(&runtime()?, options)?)?,
        Command::Pause { id } => pause::pause(&runtime()?, id)?,
        Command::Resume { id } => pause::resume(&runtime()?, id)?,
        Command::Spec(options) => spec::spec(options)?,
        Command::Features => print(&features::features()?)?,
        Command::Version => print(&cli::version())?,
        Command::Help(text) => print(text)?,
    }
    Ok(0)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}
