//! Values to bytes and back (D-Bus specification, "Marshaling").
//!
//! What is read comes from others: each length is checked against what is there before anything is made of it.

use super::signature::{self, alignment};
use super::value::Value;
use crate::error::{Error, Result};

/// Most bytes of an array.
const MAX_ARRAY: usize = 64 << 20;
/// So many arrays, structs, entries and variants may be in one another.
const MAX_DEPTH: usize = 64;
/// Most values of one message, however small: a byte of structs in one another would cost a kilobyte here.
const MAX_VALUES: usize = 1 << 18;

/// An object's path: elements of letters, digits and `_`, each after a `/`; or `/`.
pub fn is_path(path: &str) -> bool {
    let is_element =
        |element: &str| !element.is_empty() && element.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_element))
}

/// Writes values, little-endian: who reads has to take both orders.
#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Fills up to a multiple of `to` with zeroes.
    pub fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// # Errors
    /// What D-Bus has no bytes for: NUL in a text, a path or a signature that is none, items that are not of the array's type.
    pub fn value(&mut self, value: &Value) -> Result<()> {
        self.nested(value, 0)
    }

    fn nested(&mut self, value: &Value, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::other(format!("values are more than {MAX_DEPTH} deep in one another")));
        }
        self.align(alignment(value.code()));
        match value {
            Value::Byte(number) => self.bytes.push(*number),
            Value::Bool(is) => self.number(&u32::from(*is).to_le_bytes()),
            Value::I16(number) => self.number(&number.to_le_bytes()),
            Value::U16(number) => self.number(&number.to_le_bytes()),
            Value::I32(number) => self.number(&number.to_le_bytes()),
            Value::U32(number) => self.number(&number.to_le_bytes()),
            Value::I64(number) => self.number(&number.to_le_bytes()),
            Value::U64(number) => self.number(&number.to_le_bytes()),
            Value::Double(number) => self.number(&number.to_le_bytes()),
            Value::Str(text) => self.text(text)?,
            Value::Path(path) if is_path(path) => self.text(path)?,
            Value::Path(path) => return Err(Error::other(format!("{path:?} is no path of an object"))),
            Value::Signature(signature) => self.signature(signature)?,
            Value::Bytes(bytes) => {
                self.number(&length(bytes.len())?.to_le_bytes());
                self.bytes.extend_from_slice(bytes);
            }
            Value::Array { element, items } => self.array(element, items, depth)?,
            Value::Struct(fields) if fields.is_empty() => return Err(Error::other("a struct without a field")),
            Value::Struct(fields) => fields.iter().try_for_each(|field| self.nested(field, depth + 1))?,
            Value::Entry(entry) => {
                self.nested(&entry.0, depth + 1)?;
                self.nested(&entry.1, depth + 1)?;
            }
            Value::Variant(inner) => {
                let signature = inner.signature();
                if !signature::is_single(signature.as_bytes()) {
                    return Err(Error::other(format!("a variant cannot hold {signature:?}")));
                }
                self.signature(&signature)?;
                self.nested(inner, depth + 1)?;
            }
        }
        Ok(())
    }

    fn number(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) -> Result<()> {
        if text.contains('\0') {
            return Err(Error::other(format!("a NUL in {text:?}")));
        }
        self.number(&length(text.len())?.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(())
    }

    fn signature(&mut self, text: &str) -> Result<()> {
        if !signature::is_valid(text.as_bytes()) {
            return Err(Error::other(format!("{text:?} is no signature")));
        }
        // 255 at most, or it would not be valid.
        self.bytes.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(())
    }

    fn array(&mut self, element: &str, items: &[Value], depth: usize) -> Result<()> {
        if signature::element(element.as_bytes()) != Some(element.len()) {
            return Err(Error::other(format!("{element:?} is no type of an array's items")));
        }
        let at = self.bytes.len();
        self.number(&[0; 4]);
        // Of which the length does not tell; it is there before no item as well.
        self.align(alignment(element.as_bytes()[0]));
        let start = self.bytes.len();
        for item in items {
            if item.signature() != element {
                return Err(Error::other(format!("{:?} in an array of {element:?}", item.signature())));
            }
            self.nested(item, depth + 1)?;
        }
        let length = length(self.bytes.len() - start)?;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }
}

/// The length of an array or a text.
fn length(length: usize) -> Result<u32> {
    let fits = u32::try_from(length).ok().filter(|_| length <= MAX_ARRAY);
    fits.ok_or_else(|| Error::other(format!("{length} bytes are more than D-Bus takes in one value ({MAX_ARRAY})")))
}

pub fn malformed(how: &'static str) -> Error {
    Error::other(how).hint("the other side does not speak D-Bus as it should")
}

/// Reads values of either byte order.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    is_big_endian: bool,
    values_left: usize,
}

impl<'a> Reader<'a> {
    /// Offsets, and with them alignment, count from the start of `bytes`.
    pub fn new(bytes: &'a [u8], is_big_endian: bool) -> Self {
        Self { bytes, at: 0, is_big_endian, values_left: MAX_VALUES }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    /// The values that `signature` names.
    pub fn values(&mut self, signature: &str) -> Result<Vec<Value>> {
        if !signature::is_valid(signature.as_bytes()) {
            return Err(malformed("a signature that is none"));
        }
        let mut rest = signature.as_bytes();
        let mut values = vec![];
        while !rest.is_empty() {
            values.push(self.value(&mut rest, 0)?);
        }
        Ok(values)
    }

    /// The value of the complete type that `signature` begins with, which is taken off; the signature is a valid one.
    fn value(&mut self, signature: &mut &[u8], depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(malformed("values that are too deep in one another"));
        }
        self.values_left =
            self.values_left.checked_sub(1).ok_or_else(|| malformed("too many values in one message"))?;
        let code = take_code(signature)?;
        self.align(alignment(code))?;
        Ok(match code {
            b'y' => Value::Byte(u8::from_le_bytes(self.number()?)),
            b'b' => match self.length()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(malformed("a boolean that is neither true nor false")),
            },
            b'n' => Value::I16(i16::from_le_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.number()?)),
            b'u' => Value::U32(u32::from_le_bytes(self.number()?)),
            b'x' => Value::I64(i64::from_le_bytes(self.number()?)),
            b't' => Value::U64(u64::from_le_bytes(self.number()?)),
            b'd' => Value::Double(f64::from_le_bytes(self.number()?)),
            b's' => Value::Str(self.text()?.to_owned()),
            b'o' => Value::Path(self.path()?.to_owned()),
            b'g' => Value::Signature(self.signature()?.to_owned()),
            b'a' => self.array(signature, depth)?,
            b'(' => {
                let mut fields = vec![];
                while signature.first() != Some(&b')') {
                    fields.push(self.value(signature, depth + 1)?);
                }
                take_code(signature)?;
                Value::Struct(fields)
            }
            b'{' => {
                let (key, value) = (self.value(signature, depth + 1)?, self.value(signature, depth + 1)?);
                take_code(signature)?;
                Value::entry(key, value)
            }
            b'v' => {
                let inner = self.signature()?;
                if !signature::is_single(inner.as_bytes()) {
                    return Err(malformed("a variant that does not hold one value"));
                }
                Value::variant(self.value(&mut inner.as_bytes(), depth + 1)?)
            }
            b'h' => return Err(malformed("a descriptor, though none were asked for")),
            _ => return Err(malformed("a type that D-Bus does not have")),
        })
    }

    fn array(&mut self, signature: &mut &[u8], depth: usize) -> Result<Value> {
        let length = self.length()? as usize;
        let size = signature::element(signature).ok_or_else(|| malformed("an array of nothing"))?;
        let (element, rest) = signature.split_at(size);
        *signature = rest;
        self.align(alignment(element[0]))?;
        if length > MAX_ARRAY || length > self.bytes.len() - self.at {
            return Err(malformed("an array that is longer than it may be"));
        }
        if element == b"y" {
            return Ok(Value::Bytes(self.take(length)?.to_vec()));
        }
        let (whole, end) = (self.bytes, self.at + length);
        // No item reads beyond the array's end.
        self.bytes = &whole[..end];
        let mut items = vec![];
        while self.at < end {
            items.push(self.value(&mut &element[..], depth + 1)?);
        }
        self.bytes = whole;
        Ok(Value::Array { element: String::from_utf8_lossy(element).into_owned(), items })
    }

    pub fn align(&mut self, to: usize) -> Result<()> {
        let padding = self.take(self.at.next_multiple_of(to) - self.at)?;
        if padding.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(malformed("padding that is not zero")) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| malformed("a message that ends too soon"))?;
        self.at += count;
        Ok(taken)
    }

    /// The next `N` bytes, the least significant first.
    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        if self.is_big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn length(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.length()?;
        self.terminated(length as usize)
    }

    fn path(&mut self) -> Result<&'a str> {
        let path = self.text()?;
        if is_path(path) { Ok(path) } else { Err(malformed("a path that is none")) }
    }

    fn signature(&mut self) -> Result<&'a str> {
        let length = u8::from_le_bytes(self.number()?);
        let signature = self.terminated(length.into())?;
        if signature::is_valid(signature.as_bytes()) {
            Ok(signature)
        } else {
            Err(malformed("a signature that is none"))
        }
    }

    fn terminated(&mut self, length: usize) -> Result<&'a str> {
        let text = self.take(length)?;
        if self.take(1)? != [0] || text.contains(&0) {
            return Err(malformed("a text that does not end where it says"));
        }
        std::str::from_utf8(text).map_err(|_| malformed("a text that is not UTF-8"))
    }
}

fn take_code(signature: &mut &[u8]) -> Result<u8> {
    let (code, rest) = signature.split_first().ok_or_else(|| malformed("a signature that ends too soon"))?;
    *signature = rest;
    Ok(*code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(signature: &str, bytes: &[u8]) -> Result<Vec<Value>> {
        let mut reader = Reader::new(bytes, false);
        let values = reader.values(signature)?;
        assert_eq!(reader.position(), bytes.len());
        Ok(values)
    }

    fn written(value: &Value) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.value(value).unwrap();
        writer.bytes
    }

    /// Examples of the specification, and what it says of alignment.
    #[test]
    fn bytes_are_those_of_the_specification() {
        let foo: &[u8] = b"\x03\0\0\0foo\0";
        for (value, bytes) in [
            (Value::str("foo"), foo),
            (Value::Path("/a".into()), b"\x02\0\0\0/a\0"),
            (Value::Signature("a(sv)".into()), b"\x05a(sv)\0"),
            (Value::Bool(true), b"\x01\0\0\0"),
            (Value::U64(5), b"\x05\0\0\0\0\0\0\0"),
            (Value::I16(-2), b"\xfe\xff"),
            (Value::Bytes(vec![1, 2]), b"\x02\0\0\0\x01\x02"),
            // The padding before the first item does not count, and is there without one.
            (Value::array("x", [Value::I64(5)]), b"\x08\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0"),
            (Value::array("t", []), b"\0\0\0\0\0\0\0\0"),
            (Value::variant(Value::U32(5)), b"\x01u\0\0\x05\0\0\0"),
            (Value::property("a", Value::Bool(true)), b"\x01\0\0\0a\0\x01b\0\0\0\0\x01\0\0\0"),
            (
                Value::array("{ys}", [Value::entry(Value::Byte(1), "b".into())]),
                b"\x0a\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0b\0",
            ),
        ] {
            assert_eq!(written(&value), bytes, "{value:?}");
            assert_eq!(read(&value.signature(), bytes).unwrap(), [value]);
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let cases: [(&str, &[u8], &str); 20] = [
            ("b", b"\x02\0\0\0", "neither true nor false"),
            ("yu", b"\x01\0\x01\0\x05\0\0\0", "padding that is not zero"),
            ("u", b"\x05\0\0", "ends too soon"),
            ("s", b"\x03\0\0\0fo", "ends too soon"),
            ("s", b"\xff\xff\xff\xfffoo\0", "ends too soon"),
            ("s", b"\x03\0\0\0foox", "does not end where it says"),
            ("s", b"\x03\0\0\0f\0o\0", "does not end where it says"),
            ("s", b"\x01\0\0\0\xff\0", "not UTF-8"),
            ("o", b"\x03\0\0\0a/b\0", "a path that is none"),
            ("o", b"\x02\0\0\0//\0", "a path that is none"),
            ("g", b"\x01(\0", "a signature that is none"),
            ("v", b"\x02yy\0\x01\x01", "does not hold one value"),
            ("v", b"\0\0", "does not hold one value"),
            ("ay", b"\x03\0\0\0\x01\x02", "longer than it may be"),
            ("ay", b"\xff\xff\xff\xff\x01\x02", "longer than it may be"),
            // An item that goes on beyond the array's end.
            ("au", b"\x03\0\0\0\x01\x02\x03\x04", "ends too soon"),
            ("a(y)", b"\x01\0\0\0\x01\0\0\0\x01", "padding that is not zero"),
            ("h", b"\0\0\0\0", "a descriptor"),
            ("(", b"", "a signature that is none"),
            ("{sv}", b"", "a signature that is none"),
        ];
        for (signature, bytes, said) in cases {
            let error = Reader::new(bytes, false).values(signature).unwrap_err().to_string();
            assert!(error.contains(said), "{signature} {bytes:?}: {error}");
        }
    }

    /// `count` variants in one another.
    fn variants(count: usize) -> Vec<u8> {
        [b"\x01v\0".repeat(count - 1).as_slice(), b"\x01y\0\x01"].concat()
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        assert!(read("v", &variants(MAX_DEPTH)).is_ok());
        assert!(read("v", &variants(MAX_DEPTH + 1)).unwrap_err().to_string().contains("too deep"));
        let deep = |count| (0..count).fold(Value::Byte(1), |value, _| Value::variant(value));
        assert_eq!(written(&deep(MAX_DEPTH)), variants(MAX_DEPTH));
        assert!(Writer::default().value(&deep(MAX_DEPTH + 1)).is_err());

        let numbers = |count: usize| [&(4 * count as u32).to_le_bytes()[..], &vec![0; 4 * count]].concat();
        // One is the array.
        assert!(read("au", &numbers(MAX_VALUES - 1)).is_ok());
        assert!(read("au", &numbers(MAX_VALUES)).unwrap_err().to_string().contains("too many values"));
        let large = [&((MAX_ARRAY + 1) as u32).to_le_bytes()[..], &vec![0; MAX_ARRAY + 1]].concat();
        assert!(read("ay", &large).unwrap_err().to_string().contains("longer than it may be"));
        assert!(
            Writer::default().value(&Value::Bytes(large)).unwrap_err().to_string().contains("more than D-Bus takes")
        );
    }

    #[test]
    fn values_that_have_no_bytes_are_not_written() {
        for (value, said) in [
            (Value::str("a\0b"), "a NUL in"),
            (Value::Path("unit".into()), "\"unit\" is no path of an object"),
            (Value::Path("/a/".into()), "is no path"),
            (Value::Path("/a-b".into()), "is no path"),
            (Value::Signature("a".into()), "\"a\" is no signature"),
            (Value::array("s", ["a".into(), Value::U32(1)]), "\"u\" in an array of \"s\""),
            (Value::array("ss", []), "\"ss\" is no type of an array's items"),
            (Value::array("", []), "\"\" is no type"),
            (Value::Struct(vec![]), "a struct without a field"),
            (Value::variant(Value::Struct(vec![])), "a variant cannot hold \"()\""),
            (Value::variant(Value::entry("a".into(), "b".into())), "a variant cannot hold \"{ss}\""),
        ] {
            let error = Writer::default().value(&value).unwrap_err().to_string();
            assert!(error.contains(said), "{value:?}: {error}");
        }
    }

    #[test]
    fn big_endian_is_read() {
        let mut reader = Reader::new(b"\0\x05\xff\xfe\0\0\0\x02\0\0\0\x01a\0", true);
        let values = reader.values("qnus").unwrap();
        assert_eq!(values, [Value::U16(5), Value::I16(-2), Value::U32(2), Value::str("a")]);
    }
}
