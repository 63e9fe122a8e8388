//! What the kernel logged (/dev/kmsg).

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::read;

use super::fd::open;

/// Longest record of the log (`PRINTK_MESSAGE_MAX`); a shorter buffer gets EINVAL.
const MOST_BYTES: usize = 8192;
/// More records than the largest log holds (2^25 bytes, CONFIG_LOG_BUF_SHIFT): reading ends even while the kernel writes.
const MOST_RECORDS: usize = 1 << 20;

/// The kernel's own messages that begin with one of `prefixes`, oldest first; those that programs wrote there are left out.
///
/// # Errors
/// `EPERM` without CAP_SYSLOG where kernel.dmesg_restrict is set; `ENOENT` without /dev/kmsg.
pub fn messages(prefixes: &[&str]) -> nix::Result<Vec<String>> {
    let log = open("/dev/kmsg", OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    let mut record = [0; MOST_BYTES];
    let mut found = vec![];
    for _ in 0..MOST_RECORDS {
        match read(&log, &mut record) {
            Ok(0) | Err(Errno::EAGAIN) => break,
            Ok(length) => found.extend(message(&record[..length], prefixes)),
            // Overwritten before it was read: the next one is the oldest that there is.
            Err(Errno::EPIPE | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// The text of a record `facility and level,sequence,time,flags;text` if it begins with one of `prefixes`
/// (Documentation/ABI/testing/dev-kmsg).
fn message(record: &[u8], prefixes: &[&str]) -> Option<String> {
    let text = record.split(|byte| *byte == b'\n').next()?;
    let at = text.iter().position(|byte| *byte == b';')?;
    let (head, text) = (std::str::from_utf8(&text[..at]).ok()?, &text[at + 1..]);
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    // Facility 0 is the kernel's; what is written to /dev/kmsg gets another one.
    let is_wanted = || prefixes.iter().any(|prefix| text.starts_with(prefix.as_bytes()));
    (priority >> 3 == 0 && is_wanted()).then(|| unescape(text))
}

/// Bytes that cannot be printed, and the backslash, are `\xNN` in the log.
fn unescape(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.strip_prefix(b"x").and_then(|digits| std::str::from_utf8(digits.get(..2)?).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_messages_count() {
        for (record, found) in [
            ("6,841,24424025174,-;oom-kill:a=b\n SUBSYSTEM=x\n", Some("oom-kill:a=b")),
            ("6,841,24424025174,-,caller=T1;oom-kill:a;b\n", Some("oom-kill:a;b")),
            ("6,841,24424025174,-;memory: usage\n", Some("memory: usage")),
            ("14,841,24424025174,-;oom-kill:a=b\n", None),
            ("6,841,24424025174,-;swap: oom-kill:\n", None),
            ("oom-kill:", None),
            ("", None),
        ] {
            assert_eq!(message(record.as_bytes(), &["oom-kill:", "memory: "]).as_deref(), found, "{record}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        for (text, plain) in [
            ("a\\x5cx2db", "a\\x2db"),
            ("\\xc3\\xbc", "ü"),
            ("\\x1b", "\u{1b}"),
            ("a\\", "a\\"),
            ("\\x1", "\\x1"),
            ("\\xzz", "\\xzz"),
            ("x5c", "x5c"),
        ] {
            assert_eq!(unescape(text.as_bytes()), plain, "{text}");
        }
    }
}
