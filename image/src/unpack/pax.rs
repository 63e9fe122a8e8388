//! PAX records: what of an entry does not fit in its header (POSIX.1-2017, pax, "Extended Header").

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use kelson::error::{Error, Result};

use super::sparse::{self, Extent};

/// A time: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// What the records of one extended header say; the last one with a key counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub modified: Option<Time>,
    pub accessed: Option<Time>,
    /// Name and value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: SparseRecords,
}

/// GNU tar's records of a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    /// The map stands before the data (format 1.0).
    pub is_in_data: bool,
    /// GNU.sparse.map (0.1) or the pairs of GNU.sparse.offset and numbytes (0.0).
    pub map: Option<Vec<Extent>>,
    pub name: Option<Vec<u8>>,
    /// With the holes.
    pub size: Option<u64>,
    major: Option<u64>,
    offset: Option<u64>,
}

impl SparseRecords {
    /// The file is a sparse one.
    pub fn has_map(&self) -> bool {
        self.is_in_data || self.map.is_some()
    }
}

impl Records {
    /// # Errors
    /// Bytes that are no records, and values that are none of their key.
    pub fn parse(mut rest: &[u8]) -> Result<Self> {
        let mut records = Self::default();
        // star's `SCHILY.xattr.NAME` has the value as it is and goes first; libarchive's has both encoded.
        let mut encoded = BTreeMap::new();
        while !rest.is_empty() {
            let (key, value, next) = split(rest).ok_or_else(|| Error::other("a PAX record is malformed"))?;
            let wrong = || Error::other(format!("PAX record {}: the value is wrong", super::name::shown(key)));
            match key.strip_prefix(b"LIBARCHIVE.xattr.") {
                Some(name) => {
                    let decoded = percent_decoded(name).zip(BASE64.decode(value).ok());
                    encoded.extend([decoded.ok_or_else(wrong)?]);
                }
                None => records.set(key, value).ok_or_else(wrong)??,
            }
            rest = next;
        }
        match records.sparse.major {
            None | Some(0) => {}
            Some(1) => records.sparse.is_in_data = true,
            Some(other) => return Err(sparse::wrong(&format!("version {other} is not known"))),
        }
        encoded.append(&mut records.xattrs);
        records.xattrs = encoded;
        Ok(records)
    }

    /// `None` for a value that is none.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<Result<()>> {
        let text = || (!value.contains(&0)).then(|| Some(value.to_vec()).filter(|value| !value.is_empty()));
        let digits = || match value {
            b"" => Some(None),
            _ => sparse::decimal(value).ok().map(Some),
        };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link = text()?,
            b"size" => self.size = digits()?,
            b"uid" => self.uid = signed(value)?,
            b"gid" => self.gid = signed(value)?,
            b"mtime" => self.modified = time(value)?,
            b"atime" => self.accessed = time(value)?,
            b"GNU.sparse.name" => self.sparse.name = text()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = digits()?,
            b"GNU.sparse.major" => self.sparse.major = digits()?,
            b"GNU.sparse.offset" => self.sparse.offset = digits()?,
            b"GNU.sparse.numbytes" => {
                let extent = Extent { offset: self.sparse.offset.take()?, length: digits()?? };
                self.sparse.map.get_or_insert_default().push(extent);
            }
            b"GNU.sparse.map" => match sparse::listed(value) {
                Ok(map) => self.sparse.map = Some(map),
                Err(error) => return Some(Err(error)),
            },
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Some(Ok(()))
    }
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record: key, value and what follows.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length = usize::try_from(sparse::decimal(&bytes[..blank]).ok()?).ok()?;
    let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, &bytes[length..]))
}

/// An empty value takes the record back: the header's counts.
fn signed(value: &[u8]) -> Option<Option<i64>> {
    match value {
        b"" => Some(None),
        _ => std::str::from_utf8(value).ok()?.parse().ok().map(Some),
    }
}

/// `-12.5`: seconds since 1970, a fraction of any length.
fn time(value: &[u8]) -> Option<Option<Time>> {
    if value.is_empty() {
        return Some(None);
    }
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = signed(whole)??;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |value, digit| 10 * value + u32::from(digit - b'0'));
    match (whole[0] == b'-', nanoseconds) {
        (true, 1..) => Some(Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds })),
        _ => Some(Some(Time { seconds, nanoseconds })),
    }
}

/// `%41` is `A`.
fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let digit = |at: usize| char::from(*more.get(at)?).to_digit(16);
        decoded.push((digit(0)? * 16 + digit(1)?) as u8);
        rest = &more[2..];
    }
    Some(decoded)
}

/// libarchive leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_by_their_length() {
        let records = Records::parse(b"12 path=a\nb\n19 mtime=-1.250000\n13 uid=70000\n7 gid=\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(records.modified, Some(Time { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!((records.uid, records.gid), (Some(70000), None));
    }

    #[test]
    fn records_that_are_none() {
        for bytes in [
            &b"path=a\n"[..],
            b"11 path=a/b\n",
            b"13 path=a/b\n",
            b"12 path=a/b ",
            b"3 \n",
            b"5 =a\n",
            b"4 a\n",
            b"+12 path=a\n",
            b"99999999 path=a\n",
            b"18446744073709551616 path=a\n",
            b"12 path=a\0b\n",
            b"13 size=-100\n",
            b"11 size=1x\n",
            b"13 mtime=1.x\n",
            b"13 mtime=x.1\n",
            b"10 mtime=\n\n",
            b"12 mtime=.\n\n",
            b"27 GNU.sparse.numbytes=100\n",
            b"22 GNU.sparse.major=2\n",
        ] {
            assert!(Records::parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn times_have_fractions() {
        for (text, expected) in [
            ("1", Some((1, 0))),
            ("1.", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("-1", Some((-1, 0))),
            ("99999999999999999999", None),
            ("-9223372036854775808.5", None),
        ] {
            let found = time(text.as_bytes()).flatten().map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn libarchive_encodes_names_and_values() {
        let records = Records::parse(b"39 LIBARCHIVE.xattr.user.%61b=AQIDBA==\n").unwrap();
        assert_eq!(records.xattrs, BTreeMap::from([(b"user.ab".to_vec(), vec![1, 2, 3, 4])]));
        for (text, value) in
            [("", Some(vec![])), ("QQ", Some(b"A".to_vec())), ("QUI=", Some(b"AB".to_vec())), ("Q", None)]
        {
            assert_eq!(BASE64.decode(text).ok(), value, "{text}");
        }
        assert_eq!((percent_decoded(b"%4"), percent_decoded(b"%zz")), (None, None));
    }
}
