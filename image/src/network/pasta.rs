//! pasta(1): the container's network made of the host's sockets, without a privilege.
//!
//! ```text
//! network-up ──starts──▶ network-watch ──starts──▶ pasta ──▶ (forks when it is ready, and lives on)
//!      ◀── "ok", or why not ──┘   └── waits for the end of the container, then ends pasta
//! ```
//!
//! pasta holds the network namespace that it serves, and is not told when the last process in it ends; those since 2024 look
//! once a second. The watcher, which has the record's lock, waits for the event; `network-down` waits for the watcher.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use kelson::error::{Context, Error, Result};
use kelson::image::network::{DNS_FORWARD, Port, Protocol};
use kelson::sys::process::{pidfd_open, pidfd_send_signal};
use nix::errno::Errno;
use nix::libc::SIGKILL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::record::{Kept, Record};
use super::{Made, State, Words, addresses};

/// What the watcher says when the network is there.
pub const READY: &str = "ok";

/// Has a watcher start pasta, and waits until the network is there.
pub fn up(record: &mut Record, options: &[String], words: &Words, state: &State) -> Result<Made> {
    record.save(&Kept::Pasta)?;
    let started = start_watcher(record, options, &words.ports, state.pid);
    if started.is_err() {
        // There is nothing to take down, and an error to tell.
        let _ = std::fs::remove_file(&record.path);
    }
    started?;
    Ok(Made { addresses: addresses::of(state.pid), ..Made::default() })
}

fn start_watcher(record: &Record, options: &[String], ports: &[Port], pid: i32) -> Result<()> {
    let doing = || "start what watches pasta";
    let mut words: Vec<OsString> = vec!["hook".into(), "network-watch".into(), pid.to_string().into()];
    words.push(argv0(&record.path).into());
    words.extend(arguments(options, ports).into_iter().map(OsString::from));
    let mut watcher = Command::new("/proc/self/exe")
        .arg0("kelson-image")
        .args(words)
        .current_dir("/")
        .stdin(record.share()?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .doing(doing)?;
    let mut said = vec![];
    if let Some(mut stdout) = watcher.stdout.take() {
        stdout.read_to_end(&mut said).doing(doing)?;
    }
    if said == READY.as_bytes() {
        return Ok(());
    }
    let status = watcher.wait().doing(doing)?;
    match said.is_empty() {
        true => Err(Error::other(format!("it ended without a word: {status}"))).doing(doing),
        false => Err(Error::decode(&said)),
    }
}

/// The name that the container's pasta has, by which it is found: no other process has it.
pub fn argv0(record: &Path) -> String {
    format!("{}/pasta", record.display())
}

/// What pasta is told beside the namespaces, as podman tells it: what `options` say nothing of is off.
pub fn arguments(options: &[String], ports: &[Port]) -> Vec<String> {
    let mut all = vec!["--config-net".to_owned()];
    all.extend(options.iter().filter(|option| *option != "--map-gw").cloned());
    let is_given = |all: &[String], names: [&str; 2]| all.iter().any(|word| names.contains(&word.as_str()));
    for port in ports {
        let address = port.address.map(|address| format!("{address}/")).unwrap_or_default();
        let (host, container) = port.last();
        let flag = if port.protocol == Protocol::Tcp { "-t" } else { "-u" };
        all.extend([flag.to_owned(), format!("{address}{}-{host}:{}-{container}", port.host, port.container)]);
    }
    for (short, long) in [("-t", "--tcp-ports"), ("-u", "--udp-ports"), ("-T", "--tcp-ns"), ("-U", "--udp-ns")] {
        if !is_given(&all, [short, long]) {
            all.extend([short.to_owned(), "none".to_owned()]);
        }
    }
    if !is_given(&all, ["--dns-forward", "--dns-forward"]) {
        all.extend(["--dns-forward".to_owned(), DNS_FORWARD.to_owned()]);
    }
    if !options.iter().any(|option| option == "--map-gw") {
        all.push("--no-map-gw".to_owned());
    }
    all.push("--quiet".to_owned());
    all
}

/// Ends the pasta that its watcher did not end.
pub fn down(record: &Record) -> Result<()> {
    let name = argv0(&record.path);
    for pid in find(&name) {
        let pidfd = match pidfd_open(Pid::from_raw(pid)) {
            Err(Errno::ESRCH) => continue,
            pidfd => pidfd.doing(|| "look for pasta")?,
        };
        // It is the process that was found, and no later one with its number.
        if is_called(pid, &name) {
            match pidfd_send_signal(pidfd.as_fd(), SIGKILL) {
                Ok(()) => wait(&[pidfd.as_fd()]).doing(|| "wait for the end of pasta")?,
                Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).doing(|| "end pasta"),
            }
        }
    }
    Ok(())
}

/// Processes whose argv[0] is `name`.
pub fn find(name: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| is_called(*pid, name)).collect()
}

fn is_called(pid: i32, name: &str) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).next() == Some(name.as_bytes())
}

/// Waits until one of the processes has ended.
pub fn wait(pidfds: &[std::os::fd::BorrowedFd<'_>]) -> nix::Result<()> {
    let mut polled: Vec<PollFd> = pidfds.iter().map(|pidfd| PollFd::new(*pidfd, PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(options: &[&str], ports: &[&str]) -> String {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let ports: Vec<Port> = ports.iter().map(|port| Port::parse(port).unwrap()).collect();
        arguments(&options, &ports).join(" ")
    }

    #[test]
    fn pasta_is_told_as_podman_tells_it() {
        let rest = "--dns-forward 169.254.1.1 --no-map-gw --quiet";
        for (options, ports, words) in [
            (&[][..], &[][..], format!("--config-net -t none -u none -T none -U none {rest}")),
            (&[], &["8080:80"], format!("--config-net -t 8080-8080:80-80 -u none -T none -U none {rest}")),
            (
                &[],
                &["[::1]:53:53/udp", "127.0.0.1:8000-8002:80-82"],
                format!("--config-net -u ::1/53-53:53-53 -t 127.0.0.1/8000-8002:80-82 -T none -U none {rest}"),
            ),
            (
                &["-T", "auto", "--map-gw", "--dns-forward", "192.0.2.1"],
                &[],
                "--config-net -T auto --dns-forward 192.0.2.1 -t none -u none -U none --quiet".into(),
            ),
        ] {
            assert_eq!(told(options, ports), words);
        }
    }
}
