//! Values in GVariant's text form, as annotations hold them: `true`, `'text'`, `uint64 5`, `['a', 'b']`, `[('a', uint32 1)]`
//! (https://docs.gtk.org/glib/gvariant-text-format.html). Pure.
//!
//! Without a type a number is an int32, or a double if it has a point, as in GLib. Not taken, because no property of a unit
//! needs them: dictionaries, maybes, variants, handles.

use crate::dbus::Value;
use crate::error::{Error, Kind, Result};

/// Arrays and tuples in one another; properties of units have two.
const MAX_DEPTH: u32 = 8;

/// The value that `text` stands for, all of it.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value(None, 0)?;
    match parser.rest {
        "" => Ok(value),
        rest => Err(wrong(format!("{rest:?} follows the value"))),
    }
}

fn wrong(cause: String) -> Error {
    Error::new(Kind::Config, cause).hint("GVariant's text form, such as true, 'text', uint64 5, ['a', 'b']")
}

struct Parser<'t> {
    rest: &'t str,
}

/// Types that have a word of their own, and their signatures.
const WORDS: [(&str, &str); 11] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
];

impl<'t> Parser<'t> {
    /// A value; `wanted` is the signature that its place gives.
    fn value(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(wrong("too many values in one another".into()));
        }
        self.skip_space();
        if let Some(rest) = self.rest.strip_prefix('@') {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (signature, rest) = rest.split_at(end);
            self.rest = rest;
            return self.value(Some(signature), depth + 1);
        }
        match self.rest.chars().next() {
            Some('\'' | '"') => self.string(wanted),
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(depth),
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => self.number(wanted),
            Some(c) if c.is_ascii_alphabetic() => self.word(wanted, depth),
            Some(c) => Err(wrong(format!("no value begins with {c:?}"))),
            None => Err(wrong("a value is missing".into())),
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Whether `character` comes next, which is passed over then.
    fn take(&mut self, character: char) -> bool {
        self.skip_space();
        let taken = self.rest.strip_prefix(character);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    /// What belongs to a word or a number.
    fn token(&mut self) -> &'t str {
        let belongs = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    fn word(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value> {
        let word = self.token();
        match (word, wanted) {
            ("true", None | Some("b")) => return Ok(Value::Bool(true)),
            ("false", None | Some("b")) => return Ok(Value::Bool(false)),
            _ => {}
        }
        match WORDS.iter().find(|(name, _)| *name == word) {
            Some((_, signature)) => self.value(Some(signature), depth + 1),
            None => Err(wrong(format!("{word:?} is no value"))),
        }
    }

    fn number(&mut self, wanted: Option<&str>) -> Result<Value> {
        let token = self.token();
        let is_double = token.contains('.') || (!token.contains("0x") && token.contains(['e', 'E']));
        let signature = wanted.unwrap_or(if is_double { "d" } else { "i" });
        let refuse = || wrong(format!("{token:?} is no number of type {signature:?}"));
        if signature == "d" {
            return token.parse().map(Value::Double).map_err(|_| refuse());
        }
        let number = integer(token).ok_or_else(refuse)?;
        let value = match signature {
            "y" => number.try_into().map(Value::Byte),
            "n" => number.try_into().map(Value::I16),
            "q" => number.try_into().map(Value::U16),
            "i" => number.try_into().map(Value::I32),
            "u" => number.try_into().map(Value::U32),
            "x" => number.try_into().map(Value::I64),
            "t" => number.try_into().map(Value::U64),
            _ => return Err(refuse()),
        };
        value.map_err(|_| refuse())
    }

    fn string(&mut self, wanted: Option<&str>) -> Result<Value> {
        let mut characters = self.rest.char_indices();
        let quote = characters.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => text.push(unescaped(&mut characters)?),
                '\0' => return Err(wrong("a text holds a NUL".into())),
                _ if Some(character) == quote => {
                    self.rest = &self.rest[at + 1..];
                    return match wanted.unwrap_or("s") {
                        "s" => Ok(Value::Str(text)),
                        "o" => Ok(Value::Path(text)),
                        "ay" => Ok(Value::Bytes(text.into_bytes())),
                        other => Err(wrong(format!("{text:?} is no value of type {other:?}"))),
                    };
                }
                _ => text.push(character),
            }
        }
        Err(wrong("a text has no end".into()))
    }

    fn array(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value> {
        let element = match wanted.map(|wanted| wanted.strip_prefix('a').ok_or(wanted)) {
            None => None,
            Some(Ok(element)) => Some(element),
            Some(Err(other)) => return Err(wrong(format!("an array is no value of type {other:?}"))),
        };
        self.take('[');
        let mut items: Vec<Value> = vec![];
        while !self.take(']') {
            if !items.is_empty() && !self.take(',') {
                return Err(wrong("between the values of an array a comma is missing".into()));
            }
            let first = items.first().map(Value::signature);
            items.push(self.value(element.or(first.as_deref()), depth + 1)?);
        }
        let element = match (element, items.first()) {
            (Some(element), _) => element.to_owned(),
            (None, Some(first)) => first.signature(),
            (None, None) => return Err(wrong("an empty array needs its type before it, such as @as []".into())),
        };
        if let Some(other) = items.iter().find(|item| item.signature() != element) {
            return Err(wrong(format!("an array of type \"a{element}\" holds one of type {:?}", other.signature())));
        }
        if element != "y" {
            return Ok(Value::array(&element, items));
        }
        let byte = |item: Value| if let Value::Byte(byte) = item { Some(byte) } else { None };
        Ok(Value::Bytes(items.into_iter().filter_map(byte).collect()))
    }

    fn tuple(&mut self, depth: u32) -> Result<Value> {
        self.take('(');
        let mut fields = vec![];
        while !self.take(')') {
            if !fields.is_empty() && !self.take(',') {
                return Err(wrong("between the values of a tuple a comma is missing".into()));
            }
            // After the last one a comma may stand: `('a',)`.
            if !fields.is_empty() && self.take(')') {
                break;
            }
            fields.push(self.value(None, depth + 1)?);
        }
        if fields.is_empty() { Err(wrong("a tuple without values".into())) } else { Ok(Value::Struct(fields)) }
    }
}

/// As C writes them: `12`, `0x1f`, `017`.
fn integer(token: &str) -> Option<i128> {
    let (sign, digits) = match token.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, token.strip_prefix('+').unwrap_or(token)),
    };
    let magnitude = match (digits.strip_prefix("0x"), digits.strip_prefix('0').filter(|rest| !rest.is_empty())) {
        (Some(hex), _) => u64::from_str_radix(hex, 16),
        (None, Some(octal)) => u64::from_str_radix(octal, 8),
        (None, None) => digits.parse(),
    };
    // A second sign is none of the digits.
    magnitude.ok().filter(|_| !digits.contains(['+', '-'])).map(|magnitude| sign * i128::from(magnitude))
}

/// What follows a backslash.
fn unescaped(characters: &mut std::str::CharIndices<'_>) -> Result<char> {
    let escaped = characters.next().map(|(_, character)| character);
    let mut coded = |length: usize| {
        let digits: String = characters.by_ref().take(length).map(|(_, digit)| digit).collect();
        let code = u32::from_str_radix(&digits, 16).ok().filter(|code| *code != 0 && digits.len() == length);
        code.and_then(char::from_u32).ok_or_else(|| wrong(format!("\"\\{digits}\" stands for no character")))
    };
    Ok(match escaped {
        Some('a') => '\x07',
        Some('b') => '\x08',
        Some('f') => '\x0c',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('v') => '\x0b',
        Some('u') => coded(4)?,
        Some('U') => coded(8)?,
        Some('\0') | None => return Err(wrong("a text has no end".into())),
        Some(character) => character,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_types_that_glib_gives_them() {
        for (text, expected) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("boolean true", Value::Bool(true)),
            ("'text'", Value::str("text")),
            ("\"it's\"", Value::str("it's")),
            (r#"'a\'b\\c\nd\u00e9'"#, Value::str("a'b\\c\ndé")),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x1f", Value::I32(31)),
            ("017", Value::I32(15)),
            ("0", Value::I32(0)),
            ("1.5", Value::Double(1.5)),
            ("1e3", Value::Double(1000.0)),
            ("double 2", Value::Double(2.0)),
            ("byte 255", Value::Byte(255)),
            ("int16 -1", Value::I16(-1)),
            ("uint16 1", Value::U16(1)),
            ("int32 1", Value::I32(1)),
            ("uint32 4294967295", Value::U32(u32::MAX)),
            ("int64 -9223372036854775808", Value::I64(i64::MIN)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 7", Value::U64(7)),
            ("['a', \"b\"]", Value::strings(["a", "b"])),
            ("@as []", Value::strings([""; 0])),
            ("[uint32 1, 2]", Value::array("u", [Value::U32(1), Value::U32(2)])),
            ("@at [1]", Value::array("t", [Value::U64(1)])),
            ("[byte 1, 2]", Value::Bytes(vec![1, 2])),
            ("('a', uint64 1)", Value::Struct(vec![Value::str("a"), Value::U64(1)])),
            ("('a',)", Value::Struct(vec![Value::str("a")])),
            ("[('a', 'b')]", Value::array("(ss)", [Value::Struct(vec![Value::str("a"), Value::str("b")])])),
            ("objectpath '/a'", Value::Path("/a".into())),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "x",
            "'a",
            "'a\\",
            "'a' b",
            "5 6",
            "uint64",
            "uint64 -1",
            "uint32 4294967296",
            "byte 256",
            "int32 1.5",
            "2147483648",
            "--5",
            "+-5",
            "0x",
            "08",
            "[]",
            "['a' 'b']",
            "['a', 1]",
            "['a'",
            "[,]",
            "()",
            "('a' 'b')",
            "uint64 'a'",
            "boolean 1",
            "@s 5",
            "@as 'a'",
            "{'a': 1}",
            "<5>",
            "nothing",
            "'\\u00'",
            "'\\ud800'",
            "'\\u0000'",
            "\u{e9}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"uint64 ".repeat(10_000)).is_err());
    }
}
