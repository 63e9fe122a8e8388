//! kelson-image: argv in, exit code out. `kelson image` and `kelson run --image` start it.

use std::process::ExitCode;

use kelson::log;
use kelson_image::{cli, network, overlay};

/// As in kelson: musl's own gives each size pages of its own.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == "hook").is_some() {
        // The runtime quotes what a hook says.
        return match network::hook(words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if words.next_if(|word| word == overlay::COMMAND).is_some() {
        overlay::serve(words);
    }
    let invocation = match cli::parse(words) {
        Ok(invocation) => invocation,
        Err(failure) => {
            // Where the error goes is part of what could not be read: what is known of it holds.
            let _ = log::init(&failure.log);
            log::error(&failure.error);
            return ExitCode::from(failure.exit_code);
        }
    };
    // Modes are given where files are made, and images have their own.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let done = log::init(&invocation.options.log).and_then(|()| cli::perform(&invocation));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(&error);
            ExitCode::FAILURE
        }
    }
}
