//! argv in, exit code out: the only place that prints an error or ends the program.

// The C library calls `main`. std's own start would read /proc/self/maps and install handlers for stack overflows, at each
// of the two starts of a sealed program: 15 system calls and a tenth of a millisecond each.
#![no_main]

use std::ffi::{OsString, c_int};
use std::io::Write;

use kelson::cli::{self, Command, Global};
use kelson::error::{Context, Result};
use kelson::lifecycle::{
    Runtime, bundle, changes, create, delete, events, exec, explain, features, inspect, kill, pause, spec, start, top,
    update, wait,
};
use kelson::log;
use kelson::seal;
use kelson::sys::entry::Arguments;
use kelson::sys::fd::{CloseRange, close_from, open_standard_streams};
use kelson::sys::process::{default_signal, ignore_signal};
use nix::libc::{SIGCHLD, SIGPIPE};

/// musl's own gives each size pages of its own, and a list of 100 containers took twice the time.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Called by the C library's start code.
#[unsafe(no_mangle)]
pub extern "C" fn main(count: c_int, arguments: Arguments) -> c_int {
    run(arguments.collect(count)).into()
}

/// Gives the exit code.
fn run(mut arguments: Vec<OsString>) -> u8 {
    if open_standard_streams().is_err() {
        // There is nowhere to say so.
        return 1;
    }
    let program = if arguments.is_empty() { OsString::new() } else { arguments.remove(0) };
    let invocation = match cli::parse(arguments.iter().cloned()) {
        Ok(mut invocation) => {
            invocation.command.called_as(&program);
            invocation
        }
        Err(failure) => {
            // Where the error goes is part of what could not be read: what is known of it holds.
            let _ = log::init(&failure.global);
            log::error(&failure.error);
            return failure.exit_code;
        }
    };
    let outcome = log::init(&invocation.global).and_then(|()| {
        if matches!(invocation.command, Command::Create(_) | Command::Run(_) | Command::Exec(_)) {
            seal::ensure(&program, &arguments)?;
        }
        // What the caller left open reaches neither helpers nor the container; what it ignored does not lose their end.
        close_from(3, CloseRange::OnExec).doing(|| "mark the caller's descriptors close-on-exec")?;
        default_signal(SIGCHLD)?;
        // A hook that does not read its standard input is an error number and not the end.
        ignore_signal(SIGPIPE)?;
        perform(&invocation.global, &invocation.command)
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            log::error(&error);
            match &invocation.command {
                Command::Run(options) => create::failure_code(options, &error),
                command => command.failure_code(),
            }
        }
    }
}

fn perform(global: &Global, command: &Command) -> Result<u8> {
    let runtime = || Runtime::new(global);
    match command {
        Command::Create(options) => create::create(&runtime()?, options)?,
        Command::Run(options) => return create::run(&runtime()?, options),
        Command::Bundle(options) => bundle::bundle(&runtime()?, options)?,
        Command::Image { program, words } => return bundle::image(global, program, words),
        Command::Diff(options) => return changes::diff(&runtime()?, options),
        Command::Commit(options) => return changes::commit(&runtime()?, options),
        Command::Start { id } => start::start(&runtime()?, id)?,
        Command::Exec(options) => return exec::exec(&runtime()?, options),
        Command::State { id, verbose } => print(&inspect::state(&runtime()?, id, *verbose)?)?,
        Command::Kill(options) => kill::kill(&runtime()?, options)?,
        Command::Delete(options) => delete::delete(&runtime()?, options)?,
        Command::List(options) => print(&inspect::list(&runtime()?, options)?)?,
        Command::Ps(options) => print(&inspect::ps(&runtime()?, options)?)?,
        Command::Events(options) => events::events(&runtime()?, options, &mut print)?,
        Command::Top(options) => return top::top(&runtime()?, options, &mut print),
        Command::Pause { id } => pause::pause(&runtime()?, id)?,
        Command::Resume { id } => pause::resume(&runtime()?, id)?,
        Command::Update(options) => update::update(&runtime()?, options)?,
        Command::Explain(options) => print(&explain::explain(&runtime()?, options)?)?,
        Command::Wait { id, json } => {
            let (text, code) = wait::wait(&runtime()?, id, *json)?;
            print(&text)?;
            return Ok(code);
        }
        Command::Spec(options) => spec::spec(options)?,
        Command::Features => print(&features::features()?)?,
        Command::Version => print(&cli::version())?,
        Command::Help(text) => print(text)?,
    }
    Ok(0)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).doing(|| "write to standard output")
}
