//! Maps of sparse files: where in the file the data of the entry belongs. GNU tar's old form, and its three in PAX records.

use kelson::error::{Error, Result};

use super::header::number;

/// Bytes of a map at most: 40,000 extents and more.
pub(super) const MAX_MAP: usize = 1 << 20;

/// A part of the file that is no hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// The map of a file of `size` bytes, of which the archive has `stored`; checked.
///
/// # Errors
/// Extents that overlap, are not in order, lie beyond the file's end, or are not what is stored.
pub(super) fn checked(extents: Vec<Extent>, size: u64, stored: u64) -> Result<Vec<Extent>> {
    let mut end = 0_u64;
    let mut total = 0_u64;
    for extent in &extents {
        let next = extent.offset.checked_add(extent.length).filter(|next| *next <= size);
        match next {
            Some(next) if extent.offset >= end => end = next,
            _ => return Err(wrong("its parts overlap or lie beyond its end")),
        }
        // Below `size`, as they do not overlap.
        total += extent.length;
    }
    match total == stored {
        true => Ok(extents.into_iter().filter(|extent| extent.length > 0).collect()),
        false => Err(wrong(&format!("the map has {total} bytes and the archive {stored}"))),
    }
}

/// Pairs of 12 bytes each, as in GNU tar's header and the blocks that follow it; ends at an empty pair.
pub(super) fn pairs(bytes: &[u8], extents: &mut Vec<Extent>) -> Result<()> {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        extents.push(Extent {
            offset: unsigned(number(&pair[..12], "map")?)?,
            length: unsigned(number(&pair[12..], "map")?)?,
        });
    }
    Ok(())
}

fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| wrong("a number is negative"))
}

/// `offset,length,offset,length…` (GNU.sparse.map).
pub(super) fn listed(map: &[u8]) -> Result<Vec<Extent>> {
    if map.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = map.split(|byte| *byte == b',').map(decimal).collect::<Result<Vec<_>>>()?;
    match numbers.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|[offset, length]| Extent { offset: *offset, length: *length }).collect()),
        _ => Err(wrong("it has an offset without a length")),
    }
}

pub(super) fn decimal(digits: &[u8]) -> Result<u64> {
    let value = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    value.and_then(|digits| digits.parse().ok()).ok_or_else(|| wrong("a number is none"))
}

/// The map that stands before the data (GNU.sparse.major=1): lines of one number, first how many pairs; padded to a block.
#[derive(Default)]
pub(super) struct Lines {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl Lines {
    /// Takes a block; `true` when it was the last.
    pub fn add(&mut self, block: &[u8]) -> Result<bool> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return Err(wrong("a number is none"));
                }
                continue;
            }
            self.numbers.push(decimal(&self.line)?);
            self.line.clear();
            let pairs = self.numbers[0];
            if pairs > MAX_MAP as u64 {
                return Err(wrong("it is too large"));
            }
            if self.numbers.len() as u64 == 1 + 2 * pairs {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn extents(self) -> Vec<Extent> {
        let pairs = self.numbers[1..].as_chunks().0;
        pairs.iter().map(|[offset, length]| Extent { offset: *offset, length: *length }).collect()
    }
}

pub(super) fn wrong(why: &str) -> Error {
    Error::other(format!("its map of a sparse file is wrong: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        let map = |list: &[(u64, u64)], size, stored| {
            let extents = list.iter().map(|(offset, length)| Extent { offset: *offset, length: *length }).collect();
            checked(extents, size, stored).is_ok()
        };
        assert!(map(&[], 10, 0));
        assert!(map(&[(0, 1), (5, 5), (10, 0)], 10, 6));
        for (list, size, stored) in [
            (&[(0, 1)][..], 10, 2),
            (&[(5, 1), (0, 1)], 10, 2),
            (&[(0, 2), (1, 1)], 10, 3),
            (&[(9, 2)], 10, 2),
            (&[(u64::MAX, 2)], 10, 2),
            (&[(1, u64::MAX)], u64::MAX, 2),
        ] {
            assert!(!map(list, size, stored), "{list:?}");
        }
    }

    #[test]
    fn maps_in_lines_end_with_their_last_number() {
        let mut lines = Lines::default();
        assert!(!lines.add(b"2\n0\n1").unwrap());
        assert!(lines.add(b"0\n20\n5\n\0\0\0").unwrap());
        assert_eq!(lines.extents(), [Extent { offset: 0, length: 10 }, Extent { offset: 20, length: 5 }]);
        for wrong in [&b"x\n"[..], b"-1\n", b"99999999\n", b"\n", b"111111111111111111111"] {
            assert!(Lines::default().add(wrong).is_err(), "{wrong:?}");
        }
        assert!(listed(b"0,1,2").is_err());
        assert!(listed(b"0,,").is_err());
    }
}
