//! [init] Finds the program that a container runs, and tells why execve(2) refused it.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, faccessat};

use crate::error::{Context, Error, Result};
use crate::plan::Process;

/// Where execvp(3) looks when the container's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path to execute: `args[0]` as it is if it has a slash, else the first match in the container's PATH.
///
/// # Errors
/// With the words that engines look for: "executable file not found in $PATH", "no such file or directory",
/// "permission denied".
pub fn find(process: &Process) -> Result<CString> {
    let name = process.args.first().map_or(c"", |arg| arg.as_c_str());
    if name.to_bytes().contains(&b'/') {
        return match check(path_of(name)) {
            Ok(()) => Ok(name.to_owned()),
            Err(errno) => Err(explain(name, errno)).property(|| "process.args"),
        };
    }
    let search = process.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let mut denied = None;
    for directory in search.unwrap_or(DEFAULT_PATH.as_bytes()).split(|&b| b == b':') {
        // execvp(3): an empty entry is the working directory.
        let directory = if directory.is_empty() { b"." } else { directory };
        let candidate = [directory, b"/", name.to_bytes()].concat();
        let Ok(candidate) = CString::new(candidate) else { continue };
        match check(path_of(&candidate)) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = denied.or(Some(candidate)),
            Err(_) => {}
        }
    }
    match denied {
        Some(candidate) => Err(explain(&candidate, Errno::EACCES)).property(|| "process.args"),
        None => {
            let name = name.to_string_lossy();
            let cause = format!("exec: {name:?}: executable file not found in $PATH");
            Err(Error::new(crate::error::Kind::System(Errno::ENOENT), cause)).property(|| "process.args")
        }
    }
}

fn path_of(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// Whether this process could execute the regular file `path`, as far as access(2) tells.
fn check(path: &Path) -> Result<(), Errno> {
    let metadata = std::fs::metadata(path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    if !metadata.is_file() {
        return Err(Errno::EACCES);
    }
    let access = |flags| faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::X_OK, flags);
    match access(AtFlags::AT_EACCESS) {
        // Before 5.8, or a filter of the container's that does not know faccessat2(2): real and effective ids are the same.
        Err(Errno::ENOSYS | Errno::EPERM) => match access(AtFlags::empty()) {
            // Not to be asked at all: execve(2) will tell.
            Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
            other => other,
        },
        other => other,
    }
}

/// The error for a program that execve(2) refuses with `errno`: names the one thing that is wrong, if it is certain.
pub fn explain(path: &CStr, errno: Errno) -> Error {
    let shown = path.to_string_lossy();
    let cause = format!("exec {shown}: {}", errno.desc().to_ascii_lowercase());
    let error = Error::new(crate::error::Kind::System(errno), cause);
    match reason(path_of(path), errno) {
        Some(reason) => error.hint(reason),
        None => error,
    }
}

fn reason(path: &Path, errno: Errno) -> Option<String> {
    let metadata = std::fs::metadata(path);
    match (errno, metadata) {
        (Errno::ENOENT, Err(_)) => missing(path),
        (Errno::ENOENT, Ok(_)) => missing_interpreter(path),
        (Errno::EACCES, Ok(metadata)) if metadata.is_dir() => Some("it is a directory".into()),
        (Errno::EACCES, Ok(metadata)) if !metadata.is_file() => Some("it is no regular file".into()),
        (Errno::EACCES, Ok(metadata)) if metadata.mode() & 0o111 == 0 => {
            Some(format!("the file is not executable: its mode is {:04o}", metadata.mode() & 0o7777))
        }
        (Errno::EACCES, Ok(_)) => match statvfs(path) {
            Ok(fs) if fs.flags().contains(FsFlags::ST_NOEXEC) => Some("it is on a mount with noexec".into()),
            _ => refused_interpreter(path),
        },
        (Errno::ENOEXEC, Ok(metadata)) if metadata.len() == 0 => Some("the file is empty".into()),
        (Errno::ENOEXEC, Ok(_)) => wrong_format(path),
        _ => None,
    }
}

/// A link that leads nowhere exists in the listing and still is "no such file".
fn missing(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    Some(format!("it is a link to {}, which does not exist in the container", target.display()))
}

fn missing_interpreter(path: &Path) -> Option<String> {
    let mut file = open(path)?;
    match Head::read(&mut file)? {
        Head::Script { interpreter, line, carriage_return } => {
            if carriage_return {
                return Some(format!(
                    "its first line {line:?} ends in CRLF: the interpreter {interpreter:?} does not exist; \
                     convert the file to LF"
                ));
            }
            let exists = std::fs::metadata(&interpreter).is_ok();
            (!exists).then(|| {
                format!(
                    "the file exists; interpreter {interpreter} of its first line {line:?} not found in the container"
                )
            })
        }
        Head::Elf(elf) => {
            let interpreter = elf.interpreter(&mut file)?;
            let exists = std::fs::metadata(&interpreter).is_ok();
            (!exists).then(|| {
                format!("the file exists; its ELF interpreter {} not found in the container", interpreter.display())
            })
        }
        Head::Other => None,
    }
}

fn refused_interpreter(path: &Path) -> Option<String> {
    let Head::Script { interpreter, line, .. } = Head::read(&mut open(path)?)? else { return None };
    let refused = check(Path::new(&interpreter)).is_err();
    refused.then(|| format!("interpreter {interpreter} of its first line {line:?} is not executable"))
}

fn wrong_format(path: &Path) -> Option<String> {
    match Head::read(&mut open(path)?)? {
        Head::Elf(elf) => {
            let host = std::env::consts::ARCH;
            let is_native = elf.machine_name() == Some(host);
            let machine = elf.machine_name().map_or_else(|| format!("machine {}", elf.machine), str::to_owned);
            (!is_native).then(|| format!("it is a {}-bit ELF program for {machine}, the host is {host}", elf.bits()))
        }
        Head::Other => Some("it is neither an ELF program nor a script with #! in its first line".into()),
        Head::Script { .. } => None,
    }
}

/// A file of the image, which may be anything: opened without waiting.
fn open(path: &Path) -> Option<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()
}

/// What the first bytes of a program say.
enum Head {
    Script { interpreter: String, line: String, carriage_return: bool },
    Elf(Elf),
    Other,
}

impl Head {
    fn read(file: &mut File) -> Option<Self> {
        // BINPRM_BUF_SIZE: the kernel looks at as many bytes for `#!`.
        let mut head = [0; 256];
        let length = file.read(&mut head).ok()?;
        Some(Self::parse(&head[..length]))
    }

    fn parse(head: &[u8]) -> Self {
        if let Some(rest) = head.strip_prefix(b"#!") {
            let line = rest.split(|&b| b == b'\n').next().unwrap_or(rest);
            let text = String::from_utf8_lossy(line);
            let words = text.trim_matches([' ', '\t']);
            let interpreter = words.split([' ', '\t']).next().unwrap_or_default().to_owned();
            let carriage_return = line.ends_with(b"\r");
            return Self::Script { interpreter, line: format!("#!{text}"), carriage_return };
        }
        match Elf::parse(head) {
            Some(elf) => Self::Elf(elf),
            None => Self::Other,
        }
    }
}

/// The header fields of an ELF file that tell for whom it is and where its program headers are (elf(5)).
struct Elf {
    is_64: bool,
    little_endian: bool,
    machine: u16,
    headers_at: u64,
    header_size: u16,
    headers: u16,
}

impl Elf {
    fn parse(head: &[u8]) -> Option<Self> {
        if !head.starts_with(b"\x7fELF") {
            return None;
        }
        let is_64 = *head.get(4)? == 2;
        let little_endian = *head.get(5)? == 1;
        let mut elf = Self { is_64, little_endian, machine: 0, headers_at: 0, header_size: 0, headers: 0 };
        elf.machine = elf.number(head, 18, 2)? as u16;
        elf.headers_at = if is_64 { elf.number(head, 32, 8)? } else { elf.number(head, 28, 4)? };
        elf.header_size = elf.number(head, if is_64 { 54 } else { 42 }, 2)? as u16;
        elf.headers = elf.number(head, if is_64 { 56 } else { 44 }, 2)? as u16;
        Some(elf)
    }

    fn number(&self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let field = bytes.get(at..at + length)?;
        let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.little_endian { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) })
    }

    fn bits(&self) -> u32 {
        if self.is_64 { 64 } else { 32 }
    }

    /// As [`std::env::consts::ARCH`] calls it (EM_* of linux/elf-em.h).
    fn machine_name(&self) -> Option<&'static str> {
        Some(match (self.machine, self.is_64) {
            (3, _) => "x86",
            (62, true) => "x86_64",
            (62, false) => "x32",
            (40, _) => "arm",
            (183, _) => "aarch64",
            (243, true) => "riscv64",
            (243, false) => "riscv32",
            (22, _) => "s390x",
            (20, _) => "powerpc",
            (21, _) => "powerpc64",
            (8, _) => "mips",
            (258, _) => "loongarch64",
            _ => return None,
        })
    }

    /// The path in the PT_INTERP segment.
    fn interpreter(&self, file: &mut File) -> Option<PathBuf> {
        const PT_INTERP: u64 = 3;
        let mut header = vec![0; usize::from(self.header_size)];
        for index in 0..u64::from(self.headers) {
            file.seek(SeekFrom::Start(self.headers_at + index * u64::from(self.header_size))).ok()?;
            file.read_exact(&mut header).ok()?;
            if self.number(&header, 0, 4)? != PT_INTERP {
                continue;
            }
            let (offset, size) = if self.is_64 {
                (self.number(&header, 8, 8)?, self.number(&header, 32, 8)?)
            } else {
                (self.number(&header, 4, 4)?, self.number(&header, 16, 4)?)
            };
            let mut path = vec![0; usize::try_from(size).ok().filter(|&size| size <= 4096)?];
            file.seek(SeekFrom::Start(offset)).ok()?;
            file.read_exact(&mut path).ok()?;
            let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
            return Some(PathBuf::from(OsStr::from_bytes(&path[..end])));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, contents: &[u8], mode: u32) -> CString {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("kelson-program-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        CString::new(path.into_os_string().into_encoded_bytes()).unwrap()
    }

    #[test]
    fn tells_what_is_wrong_with_a_program() {
        let mut arm = b"\x7fELF\x01\x01\x01".to_vec();
        arm.resize(64, 0);
        arm[18] = 40;
        let cases: [(&str, &[u8], u32, Errno, &str); 6] = [
            ("script", b"#!/no/such -x\n", 0o755, Errno::ENOENT, "interpreter /no/such of its first line"),
            ("crlf", b"#!/bin/sh\r\n", 0o755, Errno::ENOENT, "CRLF"),
            ("mode", b"#!/bin/sh\n", 0o644, Errno::EACCES, "its mode is 0644"),
            ("arm", &arm, 0o755, Errno::ENOEXEC, "32-bit ELF program for arm"),
            ("text", b"echo hi\n", 0o755, Errno::ENOEXEC, "neither an ELF program nor a script"),
            ("empty", b"", 0o755, Errno::ENOEXEC, "the file is empty"),
        ];
        for (name, contents, mode, errno, expected) in cases {
            let path = written(name, contents, mode);
            let said = explain(&path, errno).to_string();
            std::fs::remove_file(path_of(&path)).unwrap();
            assert!(said.contains(expected), "{said}");
            assert!(said.contains(&errno.desc().to_ascii_lowercase()), "{said}");
        }
    }

    #[test]
    fn finds_the_interpreter_of_a_dynamic_program() {
        let mut file = File::open("/bin/sh").unwrap();
        let Some(Head::Elf(elf)) = Head::read(&mut file) else { panic!("/bin/sh is no ELF program") };
        assert!(elf.interpreter(&mut file).unwrap().to_string_lossy().contains("ld"));
    }
}
