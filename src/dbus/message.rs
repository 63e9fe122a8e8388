//! Messages (D-Bus specification, "Message Format"): a header that says what it is and for whom, and values.

use super::value::Value;
use super::wire::{Reader, Writer, malformed};
use crate::error::{Error, Result};

/// Most bytes of a message.
pub const MAX_MESSAGE: usize = 128 << 20;
/// What tells the length of a message: byte order, kind, flags, version, lengths of body and fields, serial.
pub const FIXED: usize = 16;

const LITTLE_ENDIAN: u8 = b'l';
const BIG_ENDIAN: u8 = b'B';
const VERSION: u8 = 1;

// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Call,
    Return,
    Error,
    Signal,
    /// A kind that later versions of D-Bus have; it is to be ignored.
    Unknown(u8),
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Call => 1,
            Kind::Return => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
            Kind::Unknown(code) => code,
        }
    }
}

/// A message; fields that it does not have are empty, as no valid one is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub kind: Kind,
    pub serial: u32,
    /// The serial of what this is the answer to; 0 if it is none.
    pub reply_serial: u32,
    pub path: String,
    pub interface: String,
    pub member: String,
    pub error_name: String,
    pub destination: String,
    pub sender: String,
    pub body: Vec<Value>,
}

impl Message {
    /// The text that an error tells its reason by.
    pub fn text(&self) -> &str {
        self.body.first().and_then(Value::as_str).unwrap_or_default()
    }

    /// # Errors
    /// A value that D-Bus has no bytes for; a message of more than [`MAX_MESSAGE`] bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Writer::default();
        self.body.iter().try_for_each(|value| body.value(value))?;
        let body = body.bytes;
        let signature = self.body.iter().map(Value::signature).collect();
        // No flags: a user's bus that was just started asks systemd to come to it.
        let mut writer = Writer { bytes: vec![LITTLE_ENDIAN, self.kind.code(), 0, VERSION] };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        for value in [Value::U32(length), Value::U32(self.serial), self.fields(signature)] {
            writer.value(&value)?;
        }
        writer.align(8);
        let mut bytes = writer.bytes;
        if bytes.len() + body.len() > MAX_MESSAGE {
            return Err(Error::other(format!(
                "a message of {} bytes, D-Bus takes {MAX_MESSAGE}",
                bytes.len() + body.len()
            )));
        }
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    fn fields(&self, signature: String) -> Value {
        let texts = [
            (PATH, Value::Path(self.path.clone())),
            (INTERFACE, Value::str(&self.interface)),
            (MEMBER, Value::str(&self.member)),
            (ERROR_NAME, Value::str(&self.error_name)),
            (DESTINATION, Value::str(&self.destination)),
            (SENDER, Value::str(&self.sender)),
            (SIGNATURE, Value::Signature(signature)),
        ];
        let present = texts.into_iter().filter(|(_, value)| value.as_str() != Some(""));
        let reply = (self.reply_serial != 0).then_some((REPLY_SERIAL, Value::U32(self.reply_serial)));
        let field = |(code, value)| Value::Struct(vec![Value::Byte(code), Value::variant(value)]);
        Value::array("(yv)", present.chain(reply).map(field))
    }

    /// The length in bytes of the message that begins with `start`.
    pub fn length(start: &[u8; FIXED]) -> Result<usize> {
        let number = |at: usize| {
            let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
            if start[0] == BIG_ENDIAN { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        if !matches!(start[0], LITTLE_ENDIAN | BIG_ENDIAN) || start[3] != VERSION {
            return Err(malformed("what came is no message of D-Bus"));
        }
        let (body, fields) = (u64::from(number(4)), u64::from(number(12)));
        let length = FIXED as u64 + fields.next_multiple_of(8) + body;
        // Both lengths are below 2^32, so that nothing overflows.
        if length > MAX_MESSAGE as u64 { Err(malformed("a message that is too long")) } else { Ok(length as usize) }
    }

    /// The message that all of `bytes` are.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let start = bytes.first_chunk().ok_or_else(|| malformed("a message that ends too soon"))?;
        if Self::length(start)? != bytes.len() {
            return Err(malformed("a message of another length than it says"));
        }
        let is_big_endian = start[0] == BIG_ENDIAN;
        let mut reader = Reader::new(bytes, is_big_endian);
        let header = reader.values("yyyyuua(yv)")?;
        reader.align(8)?;
        let body = &bytes[reader.position()..];
        let mut message = Self { kind: kind(start[1])?, ..Self::default() };
        message.serial =
            header[5].as_u32().filter(|serial| *serial != 0).ok_or_else(|| malformed("a message without a number"))?;
        let mut signature = String::new();
        for field in header[6].items() {
            message.take_field(field, &mut signature)?;
        }
        message.check()?;
        let mut reader = Reader::new(body, is_big_endian);
        message.body = reader.values(&signature)?;
        if reader.position() != body.len() {
            return Err(malformed("a message that holds more than it says"));
        }
        Ok(message)
    }

    fn take_field(&mut self, field: &Value, signature: &mut String) -> Result<()> {
        let [Value::Byte(code), Value::Variant(value)] = field.items() else {
            return Err(malformed("a header that is none"));
        };
        let text = match (*code, value.as_ref()) {
            (PATH, Value::Path(_)) => &mut self.path,
            (INTERFACE, Value::Str(_)) => &mut self.interface,
            (MEMBER, Value::Str(_)) => &mut self.member,
            (ERROR_NAME, Value::Str(_)) => &mut self.error_name,
            (DESTINATION, Value::Str(_)) => &mut self.destination,
            (SENDER, Value::Str(_)) => &mut self.sender,
            (SIGNATURE, Value::Signature(_)) => signature,
            (REPLY_SERIAL, Value::U32(serial)) => {
                self.reply_serial = *serial;
                return Ok(());
            }
            (0..=SIGNATURE, _) => return Err(malformed("a header field of the wrong type")),
            // Fields that later versions have, and the number of descriptors, are no concern of ours.
            _ => return Ok(()),
        };
        *text = value.as_str().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Whether it has the fields that its kind asks for.
    fn check(&self) -> Result<()> {
        let has = match self.kind {
            Kind::Call => !self.path.is_empty() && !self.member.is_empty(),
            Kind::Signal => !self.path.is_empty() && !self.interface.is_empty() && !self.member.is_empty(),
            Kind::Error => !self.error_name.is_empty() && self.reply_serial != 0,
            Kind::Return => self.reply_serial != 0,
            Kind::Unknown(_) => true,
        };
        if has { Ok(()) } else { Err(malformed("a message without a header field that it needs")) }
    }
}

fn kind(code: u8) -> Result<Kind> {
    Ok(match code {
        0 => return Err(malformed("a message of no kind")),
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        other => Kind::Unknown(other),
    })
}
