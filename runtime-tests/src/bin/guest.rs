//! What runs inside the containers: reports what it sees and does what it is told, one JSON line each.
//!
//! Commands are words, several are separated by a word `,`. Static, and started without Rust's runtime, which would
//! ignore SIGPIPE and open /dev/null for closed descriptors.
#![no_main]
#![recursion_limit = "256"]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use runtime_tests::sys;
use serde_json::{Value, json};

const HELP: &str = "guest COMMAND [WORD…] [, COMMAND [WORD…]]…
  report                     everything it sees of itself
  exit N | print TEXT | error TEXT | sleep | ready
  signals                    prints each signal it gets, ends after TERM
  read|stat|ls PATH          {errno} or what is there
  write|append PATH TEXT | mkdir|remove|chdir|chroot PATH | chown PATH UID GID | chmod PATH MODE
  open PATH r|w|rw           {errno} of open(2)
  mknod PATH c|b|p MAJOR MINOR
  link TARGET PATH
  syscall NUMBER ARG…        result and errno
  run PATH WORD…             runs a program: errno, or its code
  fork N                     N children that sleep
  leave WORD…                a child that does that, and is not waited for
  leave-main                 ends its main thread
  raise N                    signal N to itself
  fork-until-error           how many children there can be, and the errno
  hold MIB                   memory it touches and keeps
  burn MS                    computes so long
  stdin                      reads to the end: bytes and sum
  bytes N                    writes N bytes
  tty                        what descriptors 0 to 2 are
  notify TEXT                sends TEXT to NOTIFY_SOCKET
  until PATH                 waits for a file
  key-add|key-find NAME      session keyring
  threads N                  more threads, which sleep
  interfaces                 network interfaces, with addresses
  fd-read N                  content of an open descriptor
  echo-lines                 answers each line of standard input, until `quit`
  await-size                 waits until the terminal has a size
  push-input                 TIOCSTI to the controlling terminal
  attack NAME [WORD…]        what a hostile guest tries (attacker.rs)
  record PATH NAME           appends to PATH what it is as a hook, with its standard input
";

/// Entered by the C library; std::env::args works all the same with glibc.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    let words: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    if words.is_empty() {
        say("report", report());
        return 0;
    }
    let mut code = 0;
    for command in words.split(|w| w == ",") {
        let parts: Vec<&str> = command.iter().map(String::as_str).collect();
        if let Err(why) = act(&parts) {
            eprintln!("guest: {}: {why}", parts.join(" "));
            code = 99;
        }
    }
    code
}

fn say(key: &str, value: impl Into<Value>) {
    let mut line = json!({key: value.into()}).to_string();
    line.push('\n');
    // With nobody left to read there is nothing else to do.
    let _ = io::stdout().lock().write_all(line.as_bytes());
    let _ = io::stdout().lock().flush();
}

fn errno(result: io::Result<()>) -> Value {
    match result {
        Ok(()) => json!({"errno": 0}),
        Err(e) => json!({"errno": e.raw_os_error().unwrap_or(-1), "error": e.to_string()}),
    }
}

fn act(words: &[&str]) -> Result<(), String> {
    let number = |i: usize| -> Result<i64, String> {
        let text = words.get(i).ok_or("a number is missing")?;
        match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).map_err(|e| e.to_string()),
            None => text.parse().map_err(|e: std::num::ParseIntError| e.to_string()),
        }
    };
    match words {
        ["report"] => say("report", report()),
        ["help"] => print!("{HELP}"),
        ["exit", _] => std::process::exit(number(1)? as i32),
        ["print", text] => println!("{text}"),
        ["error", text] => eprintln!("{text}"),
        ["ready"] => say("ready", true),
        ["sleep"] => loop {
            nix::unistd::pause();
        },
        ["signals"] => signals(),
        ["read", path] => say(
            "read",
            match fs::read(path) {
                Ok(bytes) => json!({"errno": 0, "text": String::from_utf8_lossy(&bytes)}),
                Err(e) => errno(Err(e)),
            },
        ),
        ["stat", path] => say("stat", stat(path)),
        ["ls", path] => say(
            "ls",
            match fs::read_dir(path) {
                Ok(entries) => {
                    let mut names: Vec<String> =
                        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
                    names.sort();
                    json!(names)
                }
                Err(e) => errno(Err(e)),
            },
        ),
        ["write", path, text] => say(
            "write",
            errno(
                fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path)
                    .and_then(|mut f| f.write_all(text.as_bytes())),
            ),
        ),
        ["poke", path, text] => say(
            "write",
            errno(fs::OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(text.as_bytes()))),
        ),
        ["append", path, text] => say(
            "append",
            errno(
                fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .and_then(|mut f| f.write_all(text.as_bytes())),
            ),
        ),
        ["mkdir", path] => say("mkdir", errno(fs::DirBuilder::new().mode(0o777).create(path))),
        ["remove", path] => {
            let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
            say("remove", errno(if is_dir { fs::remove_dir(path) } else { fs::remove_file(path) }));
        }
        ["chdir", path] => say("chdir", errno(std::env::set_current_dir(path))),
        ["chroot", path] => say("chroot", errno(std::os::unix::fs::chroot(path))),
        ["chown", path, ..] => {
            say("chown", errno(std::os::unix::fs::lchown(path, Some(number(2)? as u32), Some(number(3)? as u32))));
        }
        ["chmod", path, mode] => {
            let mode = u32::from_str_radix(mode, 8).map_err(|e| e.to_string())?;
            say("chmod", errno(fs::set_permissions(path, fs::Permissions::from_mode(mode))));
        }
        ["link", target, path] => say("link", errno(std::os::unix::fs::symlink(target, path))),
        ["open", path, how] => say(
            "open",
            errno(
                fs::OpenOptions::new()
                    .read(how.contains('r'))
                    .write(how.contains('w'))
                    .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                    .open(path)
                    .map(drop),
            ),
        ),
        ["mknod", path, kind, ..] => {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            let kind = match *kind {
                "c" => SFlag::S_IFCHR,
                "b" => SFlag::S_IFBLK,
                _ => SFlag::S_IFIFO,
            };
            let device = if words.len() > 4 { makedev(number(3)? as u64, number(4)? as u64) } else { 0 };
            say("mknod", errno(mknod(*path, kind, Mode::from_bits_truncate(0o666), device).map_err(Into::into)));
        }
        ["syscall", ..] => {
            let mut args = [0; 6];
            for (i, slot) in args.iter_mut().enumerate().take(words.len().saturating_sub(2)) {
                *slot = number(i + 2)?;
            }
            let result = sys::probe_syscall(number(1)?, args);
            say(
                "syscall",
                match result {
                    Ok(value) => json!({"value": value, "errno": 0}),
                    Err(e) => json!({"value": -1, "errno": e as i32}),
                },
            );
        }
        ["run", program, rest @ ..] => say(
            "run",
            match Command::new(program).args(rest).output() {
                Ok(output) => json!({
                    "errno": 0, "code": output.status.code(), "stdout": String::from_utf8_lossy(&output.stdout),
                    "stderr": String::from_utf8_lossy(&output.stderr),
                }),
                Err(e) => errno(Err(e)),
            },
        ),
        ["fork", _] => {
            for _ in 0..number(1)? {
                Command::new("/proc/self/exe").arg("sleep").spawn().map_err(|e| e.to_string())?;
            }
            say("fork", number(1)?);
        }
        ["leave-main"] => sys::end_thread(),
        ["leave", rest @ ..] => {
            // Not waited for: it is an orphan when this process ends.
            Command::new("/proc/self/exe").args(rest).spawn().map(drop).map_err(|e| e.to_string())?;
        }
        ["raise", _] => sys::kill(std::process::id() as i32, number(1)? as i32).map_err(|e| e.to_string())?,
        ["fork-until-error"] => {
            let mut children = vec![];
            let error = loop {
                match Command::new("/proc/self/exe").arg("sleep").spawn() {
                    Ok(child) => children.push(child),
                    Err(e) => break e.raw_os_error().unwrap_or(-1),
                }
                if children.len() > 500 {
                    break 0;
                }
            };
            for child in &mut children {
                let _ = child.kill();
                let _ = child.wait();
            }
            say("fork", json!({"children": children.len(), "errno": error}));
        }
        ["hold", _] => {
            // Kept until the process ends.
            std::mem::forget(sys::hold_memory(number(1)? as usize * 1024 * 1024));
            say("hold", number(1)?);
        }
        ["burn", _] => {
            let end = std::time::Instant::now() + std::time::Duration::from_millis(number(1)? as u64);
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
            say("burn", true);
        }
        ["stdin"] => {
            let mut bytes = vec![];
            let result = io::stdin().lock().read_to_end(&mut bytes).map(drop);
            let sum: u64 = bytes.iter().map(|b| u64::from(*b)).sum();
            say("stdin", json!({"bytes": bytes.len(), "sum": sum, "errno": errno(result)["errno"]}));
        }
        ["echo-lines"] => {
            for line in io::stdin().lines() {
                let Ok(line) = line else { break };
                if line == "quit" {
                    break;
                }
                println!("heard {line}");
            }
        }
        ["bytes", _] => {
            let block = vec![b'x'; 65536];
            let mut left = number(1)? as usize;
            while left > 0 {
                let count = left.min(block.len());
                io::stdout().lock().write_all(&block[..count]).map_err(|e| e.to_string())?;
                left -= count;
            }
            io::stdout().lock().flush().map_err(|e| e.to_string())?;
        }
        ["tty"] => say("tty", tty()),
        ["await-size"] => {
            let start = std::time::Instant::now();
            while sys::window_size(io::stdin().as_fd()).is_ok_and(|s| s == (0, 0)) && start.elapsed().as_secs() < 10 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        ["push-input"] => {
            let result = fs::File::open("/dev/tty")
                .map_err(|e| e.raw_os_error().unwrap_or(-1))
                .and_then(|f| sys::push_terminal_input(f.as_fd(), b'x').map_err(|e| e as i32));
            say("push-input", json!({"errno": result.err().unwrap_or(0)}));
        }
        ["notify", text] => {
            let path = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
            let socket = std::os::unix::net::UnixDatagram::unbound().map_err(|e| e.to_string())?;
            say("notify", errno(socket.send_to(text.as_bytes(), &path).map(drop)));
        }
        ["until", path] => {
            while !Path::new(path).exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        ["key-add", name] => say("key", key(sys::add_session_key(&text(name)?))),
        ["key-find", name] => say("key", key(sys::find_key(&text(name)?))),
        ["interfaces"] => say("interfaces", interfaces()),
        ["threads", _] => {
            for _ in 0..number(1)? {
                std::thread::spawn(|| {
                    loop {
                        std::thread::park();
                    }
                });
            }
            say("threads", number(1)?);
        }
        ["fd-read", _] => {
            let path = format!("/proc/self/fd/{}", number(1)?);
            let mut content = String::new();
            let result = fs::File::open(path).and_then(|mut f| f.read_to_string(&mut content)).map(drop);
            say("fd-read", json!({"text": content, "errno": errno(result)["errno"]}));
        }
        ["attack", rest @ ..] => say("attack", runtime_tests::attacker::act(rest)?),
        // As a hook: who called it, with what.
        ["record", path, name, ..] => record(path, name)?,
        other => return Err(format!("unknown command {other:?}")),
    }
    Ok(())
}

/// Appends a line about this process and its standard input to a file.
fn record(path: &str, name: &str) -> Result<(), String> {
    let mut input = String::new();
    let read_errno = errno(io::stdin().lock().read_to_string(&mut input).map(drop))["errno"].clone();
    let mut line = json!({
        "name": name, "stdin": input, "stdin_errno": read_errno, "pid": std::process::id(),
        "args": std::env::args().collect::<Vec<_>>(),
        "env": std::env::vars().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        "cwd": nix::unistd::getcwd().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
        "namespaces": namespaces(), "fds": descriptors(),
        "root": stat("/"),
    })
    .to_string();
    line.push('\n');
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut f| f.write_all(line.as_bytes())).map_err(|e| format!("{path}: {e}"))
}

fn text(word: &str) -> Result<CString, String> {
    CString::new(word).map_err(|e| e.to_string())
}

fn key(result: Result<i64, Errno>) -> Value {
    match result {
        Ok(serial) => json!({"serial": serial, "errno": 0}),
        Err(e) => json!({"serial": -1, "errno": e as i32}),
    }
}

/// Prints the names of signals as they come; ends after SIGTERM.
fn signals() {
    let mut set = SigSet::empty();
    for signal in Signal::iterator() {
        // Faults stay fatal.
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL) {
            set.add(signal);
        }
    }
    if set.thread_block().is_err() {
        return;
    }
    say("ready", true);
    while let Ok(signal) = set.wait() {
        say("signal", signal.as_str());
        if signal == Signal::SIGTERM {
            return;
        }
    }
}

fn stat(path: &str) -> Value {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) => return errno(Err(e)),
    };
    let kind = meta.file_type();
    let letter = if kind.is_symlink() {
        "l"
    } else if kind.is_dir() {
        "d"
    } else if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else if kind.is_fifo() {
        "p"
    } else if kind.is_socket() {
        "s"
    } else {
        "f"
    };
    json!({
        "errno": 0, "kind": letter, "mode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
        "size": meta.size(), "major": nix::sys::stat::major(meta.rdev()), "minor": nix::sys::stat::minor(meta.rdev()),
        "device": meta.dev(), "inode": meta.ino(), "atime": meta.atime_nsec(), "atime_s": meta.atime(),
        "target": fs::read_link(path).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default(),
    })
}

fn read(path: &str) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn lines(path: &str) -> Vec<String> {
    read(path).lines().map(str::to_owned).collect()
}

fn report() -> Value {
    let status = lines("/proc/self/status");
    let field = |name: &str| -> String {
        let line = status.iter().find_map(|l| l.strip_prefix(name).and_then(|r| r.strip_prefix(':')));
        line.unwrap_or_default().trim().to_owned()
    };
    let hex = |name: &str| u64::from_str_radix(&field(name), 16).ok();
    let integers = |text: String| -> Vec<i64> { text.split_whitespace().filter_map(|w| w.parse().ok()).collect() };
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let zero = "\0";
    json!({
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "sid": nix::unistd::getsid(None).map(|p| p.as_raw()).unwrap_or(-1),
        "comm": read("/proc/self/comm").trim_end(),
        "uids": integers(field("Uid")),
        "gids": integers(field("Gid")),
        "groups": integers(field("Groups")),
        "capabilities": {
            "inheritable": hex("CapInh"), "permitted": hex("CapPrm"), "effective": hex("CapEff"),
            "bounding": hex("CapBnd"), "ambient": hex("CapAmb"),
        },
        "no_new_privs": integers(field("NoNewPrivs")).first(),
        "seccomp": integers(field("Seccomp")).first(),
        "seccomp_filters": integers(field("Seccomp_filters")).first(),
        "signals_blocked": hex("SigBlk"),
        "signals_ignored": hex("SigIgn"),
        "threads": integers(field("Threads")).first(),
        "affinity": field("Cpus_allowed_list"),
        "oom_score_adj": read("/proc/self/oom_score_adj").trim().parse::<i64>().ok(),
        "rlimits": rlimits(),
        "umask": mask.bits(),
        "cwd": nix::unistd::getcwd().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
        "env": read("/proc/self/environ").split_terminator(zero).collect::<Vec<_>>(),
        "args": read("/proc/self/cmdline").split_terminator(zero).collect::<Vec<_>>(),
        "hostname": read("/proc/sys/kernel/hostname").trim_end(),
        "domainname": read("/proc/sys/kernel/domainname").trim_end(),
        "mounts": lines("/proc/self/mountinfo"),
        "fds": descriptors(),
        "namespaces": namespaces(),
        "cgroup": lines("/proc/self/cgroup"),
        "uid_map": maps("/proc/self/uid_map"),
        "gid_map": maps("/proc/self/gid_map"),
        "setgroups": read("/proc/self/setgroups").trim_end(),
        "timens_offsets": lines("/proc/self/timens_offsets"),
        "scheduler": scheduler(),
        "io_priority": sys::io_priority().map(|(class, level)| json!([class, level])).unwrap_or(Value::Null),
        "memory_policy": sys::memory_policy().map(|(mode, nodes)| json!([mode, nodes])).unwrap_or(Value::Null),
        "personality": read("/proc/self/personality").trim_end(),
        "dumpable": sys::prctl_get(libc::PR_GET_DUMPABLE).ok(),
        "securebits": sys::prctl_get(libc::PR_GET_SECUREBITS).ok(),
        "parent_death_signal": Value::Null,
        "label": read("/proc/self/attr/current").trim_end_matches(['\0', '\n']),
        "session_keyring": sys::session_keyring().ok(),
        "interfaces": interfaces(),
        "clock": clocks(),
        "terminal": tty(),
        "machine": nix::sys::utsname::uname().map(|u| u.machine().to_string_lossy().into_owned()).unwrap_or_default(),
    })
}

fn rlimits() -> Value {
    use nix::sys::resource::{Resource, getrlimit};
    let names = [
        ("RLIMIT_AS", Resource::RLIMIT_AS),
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        ("RLIMIT_DATA", Resource::RLIMIT_DATA),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", Resource::RLIMIT_NICE),
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_RSS", Resource::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
    ];
    let map: BTreeMap<&str, Value> = names
        .into_iter()
        .filter_map(|(name, resource)| getrlimit(resource).ok().map(|(soft, hard)| (name, json!([soft, hard]))))
        .collect();
    json!(map)
}

/// Open descriptors and what they are, without the one that reads the list.
fn descriptors() -> Value {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Value::Null };
    // An entry keeps the directory open, a name does not.
    let names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let mut map = BTreeMap::new();
    for name in names {
        // The list's own descriptor is closed by now: its link cannot be read.
        if let Ok(target) = fs::read_link(format!("/proc/self/fd/{name}")) {
            map.insert(name, target.to_string_lossy().into_owned());
        }
    }
    json!(map)
}

fn namespaces() -> Value {
    let mut map = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/ns").into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
        map.insert(entry.file_name().to_string_lossy().into_owned(), target);
    }
    json!(map)
}

fn maps(path: &str) -> Vec<Vec<u64>> {
    lines(path).iter().map(|l| l.split_whitespace().filter_map(|w| w.parse().ok()).collect()).collect()
}

fn scheduler() -> Value {
    match sys::sched_attributes() {
        Ok(a) => json!({
            "policy": a.policy, "flags": a.flags, "nice": a.nice, "priority": a.priority, "runtime": a.runtime,
            "deadline": a.deadline, "period": a.period,
        }),
        Err(_) => Value::Null,
    }
}

fn interfaces() -> Value {
    let mut map: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
    for entry in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let up = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        let slot = map.entry(entry.interface_name).or_default();
        slot.0 |= up;
        if let Some(address) = entry.address {
            if let Some(v4) = address.as_sockaddr_in() {
                slot.1.push(v4.ip().to_string());
            } else if let Some(v6) = address.as_sockaddr_in6() {
                slot.1.push(v6.ip().to_string());
            }
        }
    }
    json!(map.into_iter().map(|(k, (up, list))| (k, json!({"up": up, "addresses": list}))).collect::<BTreeMap<_, _>>())
}

/// Monotonic and boot clock in nanoseconds.
fn clocks() -> Value {
    use nix::time::{ClockId, clock_gettime};
    let read = |id: ClockId| clock_gettime(id).map(|t| t.tv_sec() * 1_000_000_000 + t.tv_nsec()).unwrap_or(-1);
    json!({"monotonic": read(ClockId::CLOCK_MONOTONIC), "boottime": read(ClockId::CLOCK_BOOTTIME)})
}

fn tty() -> Value {
    let one = |fd: BorrowedFd<'_>| -> Value {
        if !nix::unistd::isatty(fd).unwrap_or(false) {
            return Value::Null;
        }
        let flags = nix::sys::termios::tcgetattr(fd).map(|t| t.output_flags);
        let onlcr = flags.map(|f| f.contains(nix::sys::termios::OutputFlags::ONLCR));
        json!({
            "name": nix::unistd::ttyname(fd).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
            "size": sys::window_size(fd).map(|(r, c)| json!([r, c])).unwrap_or(Value::Null),
            "onlcr": onlcr.ok(),
        })
    };
    let controlling = fs::File::open("/dev/tty").err().map_or(0, |e| e.raw_os_error().unwrap_or(-1));
    json!({
        "stdin": one(io::stdin().as_fd()), "stdout": one(io::stdout().as_fd()), "stderr": one(io::stderr().as_fd()),
        "controlling_errno": controlling,
        "console": stat("/dev/console"),
    })
}
