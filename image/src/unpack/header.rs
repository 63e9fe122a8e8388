//! The block of 512 bytes that stands before each entry: ustar (POSIX.1-2017, pax), GNU tar's, star's, and the one of Unix v7.

use kelson::error::{Error, Result};

pub(super) const BLOCK: usize = 512;

pub(super) type Block = [u8; BLOCK];

/// A block whose checksum is right.
#[derive(Clone, Copy)]
pub(super) struct Header<'b> {
    block: &'b Block,
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
    Star,
}

/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 148..156;

impl<'b> Header<'b> {
    /// # Errors
    /// The checksum is wrong: this is no header.
    pub fn parse(block: &'b Block) -> Result<Self> {
        let wrong = || Error::other("its header is corrupt: the checksum is wrong");
        let told = octal(&block[CHECKSUM]).ok_or_else(wrong)?;
        let sums = |value: fn(u8) -> i64| -> i64 {
            let outside = |at: &usize| !CHECKSUM.contains(at);
            let sum: i64 = (0..BLOCK).filter(outside).map(|at| value(block[at])).sum();
            sum + 8 * i64::from(b' ')
        };
        // Some old programs added signed bytes.
        if told != sums(i64::from) && told != sums(|byte| i64::from(byte as i8)) {
            return Err(wrong());
        }
        let format = match (&block[257..263], &block[263..265]) {
            (b"ustar\0", _) if &block[508..512] == b"tar\0" => Format::Star,
            (b"ustar\0", _) => Format::Ustar,
            (b"ustar ", b" \0") => Format::Gnu,
            _ => Format::V7,
        };
        Ok(Self { block, format })
    }

    pub fn kind(self) -> u8 {
        self.block[156]
    }

    /// With its prefix.
    pub fn name(self) -> Vec<u8> {
        let name = text(&self.block[0..100]);
        let prefix = match self.format {
            Format::Ustar => text(&self.block[345..500]),
            Format::Star => text(&self.block[345..476]),
            Format::V7 | Format::Gnu => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub fn link(self) -> &'b [u8] {
        text(&self.block[157..257])
    }

    pub fn mode(self) -> Result<i64> {
        number(&self.block[100..108], "mode")
    }

    pub fn uid(self) -> Result<i64> {
        number(&self.block[108..116], "uid")
    }

    pub fn gid(self) -> Result<i64> {
        number(&self.block[116..124], "gid")
    }

    pub fn size(self) -> Result<i64> {
        number(&self.block[124..136], "size")
    }

    /// Seconds since 1970.
    pub fn modified(self) -> Result<i64> {
        number(&self.block[136..148], "time")
    }

    /// Major and minor number of a device node.
    pub fn device(self) -> Result<(i64, i64)> {
        match self.format {
            Format::V7 => Ok((0, 0)),
            _ => Ok((number(&self.block[329..337], "major number")?, number(&self.block[337..345], "minor number")?)),
        }
    }

    /// The map of a sparse file in GNU tar's old form: extents, whether a block of more follows, the size with holes.
    pub fn gnu_sparse(self) -> Result<(&'b [u8], bool, i64)> {
        match self.format {
            Format::Gnu => Ok((&self.block[386..482], self.block[482] != 0, number(&self.block[483..495], "size")?)),
            _ => Err(Error::other("it is a sparse file of GNU tar in an archive that is not")),
        }
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits or, with the first bit set, in base 256 (two's complement).
pub(super) fn number(field: &[u8], what: &str) -> Result<i64> {
    let wrong = || Error::other(format!("its header is corrupt: the {what} is no number"));
    match field[0] {
        first if first & 0x80 != 0 => base_256(field).ok_or_else(wrong),
        _ => octal(field).ok_or_else(wrong),
    }
}

fn base_256(field: &[u8]) -> Option<i64> {
    let is_negative = field[0] & 0x40 != 0;
    // The first bit is the mark, the second one the sign.
    let first = if is_negative { field[0] } else { field[0] & 0x7f };
    let mut value = if is_negative { -1_i64 } else { 0 };
    for byte in std::iter::once(&first).chain(&field[1..]) {
        value = value.checked_mul(256)?.checked_add(i64::from(*byte))?;
    }
    Some(value)
}

/// Digits with blanks before and blanks or NULs behind; nothing at all is 0.
fn octal(field: &[u8]) -> Option<i64> {
    let end = field.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
    let start = field[..end].iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(end);
    field[start..end].iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"00000000", Some(0)),
            (b"77777777", Some(0o7777_7777)),
            (b"0000 44\0", None),
            (b"00000008", None),
            (b"-0000001", None),
            (b"\x80\0\0\0\0\x20\0\0", Some(1 << 21)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field, "").ok(), value, "{field:?}");
        }
    }
}
