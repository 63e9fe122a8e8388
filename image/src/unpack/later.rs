//! What directories get when all is in them: adding a file changes a directory's time, and a mode can forbid to add one.
//!
//! All records are in one buffer, each path without what it has in common with the one before: some 50 bytes a directory.

use kelson::error::{Error, Result};

use super::name::MAX_PATH;
use super::pax::Time;

/// Bytes of all records at most.
const MAX: usize = 24 << 20;

/// Attributes of one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `None`: it has its mode already.
    pub mode: Option<u32>,
    pub accessed: Time,
    pub modified: Time,
}

#[derive(Default)]
pub(super) struct Later {
    bytes: Vec<u8>,
    last: Vec<u8>,
    /// Some record has a mode.
    pub has_modes: bool,
}

impl Later {
    /// A path that is added again has the attributes that came last.
    pub fn add(&mut self, path: &[u8], attributes: Attributes) -> Result<()> {
        if path.len() > MAX_PATH {
            return Err(Error::other(format!("its path has more than {MAX_PATH} bytes")));
        }
        let shared = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        if self.bytes.len() + path.len() - shared > MAX {
            return Err(Error::other("the names of all directories together are too long"));
        }
        self.bytes.extend((shared as u16).to_le_bytes());
        self.bytes.extend((path.len() as u16 - shared as u16).to_le_bytes());
        self.bytes.extend(&path[shared..]);
        self.bytes.extend(attributes.mode.unwrap_or(u32::MAX).to_le_bytes());
        for time in [attributes.accessed, attributes.modified] {
            self.bytes.extend(time.seconds.to_le_bytes());
            self.bytes.extend(time.nanoseconds.to_le_bytes());
        }
        self.has_modes |= attributes.mode.is_some();
        self.last.clear();
        self.last.extend(path);
        Ok(())
    }

    /// Calls `apply` for all records, in the order in which they were added.
    pub fn each(&self, mut apply: impl FnMut(&[u8], Attributes) -> Result<()>) -> Result<()> {
        let mut path = Vec::new();
        let mut rest = &self.bytes[..];
        while let Some(record) = Record::next(&mut rest, &mut path) {
            apply(&path, record)?;
        }
        Ok(())
    }
}

struct Record;

impl Record {
    /// Takes the first record of `rest`; `path` becomes its path.
    fn next(rest: &mut &[u8], path: &mut Vec<u8>) -> Option<Attributes> {
        let shared = u16::from_le_bytes(*take(rest)?);
        let length = u16::from_le_bytes(*take(rest)?);
        let (own, behind) = rest.split_at_checked(length.into())?;
        *rest = behind;
        path.truncate(shared.into());
        path.extend(own);
        let mode = u32::from_le_bytes(*take(rest)?);
        let mut time = || {
            let seconds = i64::from_le_bytes(*take(rest)?);
            Some(Time { seconds, nanoseconds: u32::from_le_bytes(*take(rest)?) })
        };
        let (accessed, modified) = (time()?, time()?);
        Some(Attributes { mode: (mode != u32::MAX).then_some(mode), accessed, modified })
    }
}

fn take<'b, const N: usize>(rest: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_added() {
        let mut later = Later::default();
        let records: Vec<_> =
            [("", None), ("a", Some(0)), ("a/b/c", None), ("a/bc", Some(0o7777)), ("b", None), ("b", Some(1))]
                .into_iter()
                .enumerate()
                .map(|(at, (path, mode))| {
                    let time = Time { seconds: -(at as i64), nanoseconds: 999_999_999 };
                    (path.as_bytes().to_vec(), Attributes { mode, accessed: Time::default(), modified: time })
                })
                .collect();
        for (path, attributes) in &records {
            later.add(path, *attributes).unwrap();
        }
        let mut found = Vec::new();
        later
            .each(|path, attributes| {
                found.push((path.to_vec(), attributes));
                Ok(())
            })
            .unwrap();
        assert_eq!(found, records);
    }

    #[test]
    fn names_are_not_kept_without_end() {
        let mut later = Later::default();
        let attributes = Attributes { mode: None, accessed: Time::default(), modified: Time::default() };
        let added = (0..10_000_u32).try_for_each(|number| {
            let name = [&number.to_string().into_bytes()[..], &[b'x'; 4000]].concat();
            later.add(&name, attributes)
        });
        assert!(added.is_err());
        assert!(later.bytes.len() <= MAX + 4096);
    }
}
