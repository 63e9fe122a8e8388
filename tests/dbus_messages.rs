//! The decoder of D-Bus messages, which reads what others send: against an encoder of both byte orders that is written
//! apart from it, and against bytes that are broken at random.
//!
//! Whatever it is given it says what is wrong, and takes memory in proportion to what is there. `KELSON_SEED` repeats a run,
//! `KELSON_MESSAGES` makes it longer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kelson::dbus::{Kind, Message, Value};

/// Counts what this thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: all is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` gives, and the most memory that it held at once.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let given = work();
    (given, (MOST.get() - before) as usize)
}

/// splitmix64: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const TEXTS: [&str; 6] = ["", "a", "org.freedesktop.systemd1", "kelson-4f.scope", "Übung", "x\ny"];
const PATHS: [&str; 4] = ["/", "/a", "/org/freedesktop/systemd1/unit/a_2eslice", "/_/9/Z"];

/// A complete type, of at most `depth` in one another.
fn some_type(random: &mut Random, depth: usize) -> String {
    let basic = |random: &mut Random| char::from(random.pick(b"ybnqiuxtdsog"));
    match if depth == 0 { 0 } else { random.below(8) } {
        1 => format!("a{}", some_type(random, depth - 1)),
        2 => {
            let fields: String = (0..1 + random.below(4)).map(|_| some_type(random, depth - 1)).collect();
            format!("({fields})")
        }
        3 => format!("a{{{}{}}}", basic(random), some_type(random, depth - 1)),
        4 => "v".to_owned(),
        5 => "a(sv)".to_owned(),
        6 => "ay".to_owned(),
        _ => basic(random).to_string(),
    }
}

/// The complete types of `signature`, which is a valid one; an entry counts as one.
fn types(signature: &str) -> Vec<String> {
    let mut types = vec![String::new()];
    let mut open = 0;
    for code in signature.chars() {
        types.last_mut().unwrap().push(code);
        open += i32::from("({".contains(code)) - i32::from(")}".contains(code));
        if open == 0 && code != 'a' {
            types.push(String::new());
        }
    }
    types.pop();
    types
}

/// A value of the complete type `of`.
fn some_value(random: &mut Random, of: &str, depth: usize) -> Value {
    let number = random.next() >> random.below(64);
    let fields = |random: &mut Random| -> Vec<Value> {
        types(&of[1..of.len() - 1]).iter().map(|field| some_value(random, field, depth)).collect()
    };
    match of.as_bytes()[0] {
        b'y' => Value::Byte(number as u8),
        b'b' => Value::Bool(number.is_multiple_of(2)),
        b'n' => Value::I16(number as i16),
        b'q' => Value::U16(number as u16),
        b'i' => Value::I32(number as i32),
        b'u' => Value::U32(number as u32),
        b'x' => Value::I64(number as i64),
        b't' => Value::U64(number),
        b'd' => Value::Double(number as f64 / 3.0),
        b's' => Value::str(random.pick(&TEXTS)),
        b'o' => Value::Path(random.pick(&PATHS).into()),
        b'g' => Value::Signature(some_type(random, 2)),
        b'v' => {
            let inner = if depth == 0 { "u".to_owned() } else { some_type(random, 2) };
            Value::variant(some_value(random, &inner, depth.saturating_sub(1)))
        }
        b'a' if &of[1..] == "y" => Value::Bytes((0..random.below(20)).map(|_| random.next() as u8).collect()),
        b'a' => {
            let items = 0..random.below(4);
            Value::array(&of[1..], items.map(|_| some_value(random, &of[1..], depth)).collect::<Vec<_>>())
        }
        b'(' => Value::Struct(fields(random)),
        _ => {
            let [key, value] = fields(random).try_into().unwrap();
            Value::entry(key, value)
        }
    }
}

/// The encoder that the decoder is held against: the specification's table, in either order.
struct Reference {
    bytes: Vec<u8>,
    is_big_endian: bool,
}

impl Reference {
    fn pad(&mut self, to: usize) {
        while !self.bytes.len().is_multiple_of(to) {
            self.bytes.push(0);
        }
    }

    fn number(&mut self, number: u64, size: usize) {
        self.pad(size);
        let shift = |index: usize| 8 * if self.is_big_endian { size - 1 - index } else { index };
        let bytes: Vec<u8> = (0..size).map(|index| (number >> shift(index)) as u8).collect();
        self.bytes.extend(bytes);
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::Byte(number) => self.bytes.push(*number),
            Value::Bool(is) => self.number((*is).into(), 4),
            Value::I16(number) => self.number(*number as u64, 2),
            Value::U16(number) => self.number((*number).into(), 2),
            Value::I32(number) => self.number(*number as u64, 4),
            Value::U32(number) => self.number((*number).into(), 4),
            Value::I64(number) => self.number(*number as u64, 8),
            Value::U64(number) => self.number(*number, 8),
            Value::Double(number) => self.number(number.to_bits(), 8),
            Value::Str(text) | Value::Path(text) => {
                self.number(text.len() as u64, 4);
                self.bytes.extend(text.bytes().chain([0]));
            }
            Value::Signature(text) => {
                self.bytes.push(text.len() as u8);
                self.bytes.extend(text.bytes().chain([0]));
            }
            Value::Bytes(bytes) => self.items("y", &bytes.iter().map(|byte| Value::Byte(*byte)).collect::<Vec<_>>()),
            Value::Array { element, items } => self.items(element, items),
            Value::Struct(fields) => {
                self.pad(8);
                fields.iter().for_each(|field| self.add(field));
            }
            Value::Entry(entry) => {
                self.pad(8);
                self.add(&entry.0);
                self.add(&entry.1);
            }
            Value::Variant(inner) => {
                self.add(&Value::Signature(inner.signature()));
                self.add(inner);
            }
        }
    }

    fn items(&mut self, element: &str, items: &[Value]) {
        let mut alone = Self { bytes: vec![0; 8], is_big_endian: self.is_big_endian };
        self.number(0, 4);
        let at = self.bytes.len() - 4;
        self.pad(match element.as_bytes()[0] {
            b'y' | b'g' | b'v' => 1,
            b'n' | b'q' => 2,
            b'x' | b't' | b'd' | b'(' | b'{' => 8,
            _ => 4,
        });
        let start = self.bytes.len();
        items.iter().for_each(|item| self.add(item));
        alone.number((self.bytes.len() - start) as u64, 4);
        self.bytes[at..at + 4].copy_from_slice(&alone.bytes[8..]);
    }

    /// A whole message.
    fn message(message: &Message, is_big_endian: bool) -> Vec<u8> {
        let new = || Self { bytes: vec![], is_big_endian };
        let mut body = new();
        message.body.iter().for_each(|value| body.add(value));
        let kind = match message.kind {
            Kind::Call => 1,
            Kind::Return => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
            Kind::Unknown(code) => code,
        };
        let signature: String = message.body.iter().map(Value::signature).collect();
        let fields = [
            (1, Value::Path(message.path.clone())),
            (2, Value::str(&message.interface)),
            (3, Value::str(&message.member)),
            (4, Value::str(&message.error_name)),
            (6, Value::str(&message.destination)),
            (7, Value::str(&message.sender)),
            (8, Value::Signature(signature)),
        ];
        let fields = fields.into_iter().filter(|(_, value)| value.as_str() != Some(""));
        let reply = (message.reply_serial != 0).then_some((5, Value::U32(message.reply_serial)));
        let field = |(code, value)| Value::Struct(vec![Value::Byte(code), Value::variant(value)]);
        let mut whole = new();
        whole.bytes.extend([if is_big_endian { b'B' } else { b'l' }, kind, 0, 1]);
        whole.number(body.bytes.len() as u64, 4);
        whole.number(message.serial.into(), 4);
        whole.add(&Value::array("(yv)", fields.chain(reply).map(field)));
        whole.pad(8);
        whole.bytes.extend(body.bytes);
        whole.bytes
    }
}

fn some_message(random: &mut Random) -> Message {
    let kind = random.pick(&[Kind::Call, Kind::Return, Kind::Error, Kind::Signal, Kind::Unknown(7)]);
    let signature: String = (0..random.below(4)).map(|_| some_type(random, 3)).collect();
    let body = types(&signature).iter().map(|of| some_value(random, of, 3)).collect();
    let is_answer = matches!(kind, Kind::Return | Kind::Error);
    Message {
        kind,
        serial: 1 + random.next() as u32 / 2,
        reply_serial: if is_answer { 1 + random.below(1000) as u32 } else { 0 },
        path: if is_answer { String::new() } else { random.pick(&PATHS).into() },
        interface: if is_answer { String::new() } else { "org.example.Interface".into() },
        member: if is_answer { String::new() } else { "Member".into() },
        error_name: if kind == Kind::Error { "org.example.Error".into() } else { String::new() },
        destination: random.pick(&["", ":1.7", "org.freedesktop.systemd1"]).into(),
        sender: random.pick(&["", ":1.0"]).into(),
        body,
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

#[test]
fn what_is_written_is_read_in_both_byte_orders() {
    let mut random = Random(setting("KELSON_SEED", 1));
    for index in 0..setting("KELSON_MESSAGES", 20_000) {
        let message = some_message(&mut random);
        let little = Reference::message(&message, false);
        assert_eq!(message.encode().unwrap(), little, "message {index}: {message:?}");
        assert_eq!(Message::decode(&little).unwrap(), message, "message {index}");
        let big = Reference::message(&message, true);
        assert_eq!(Message::decode(&big).unwrap(), message, "message {index}, big-endian");
    }
}

/// Bytes where lengths, codes and signatures go wrong.
const BYTES: [u8; 16] = *b"\0\x01\x07\x08\x7f\x80\xff\xfea(){}vyz";

fn broken(random: &mut Random, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len().max(1));
        match random.below(7) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.insert(at, random.pick(&BYTES)),
            // Of another message.
            3 => {
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(24)).min(other.len())];
                let end = (at + piece.len()).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
            4 if at + 4 <= bytes.len() => {
                let number = random.next() as u32 >> random.below(32);
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            _ if !bytes.is_empty() => {
                bytes[at] = if random.one_in(2) { random.pick(&BYTES) } else { random.next() as u8 }
            }
            _ => {}
        }
    }
    // Most of it is behind the check of the whole length.
    if random.one_in(4) {
        return bytes;
    }
    if let Some(start) = bytes.first_chunk::<16>() {
        let is_big_endian = start[0] == b'B';
        let fields = if is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes }([
            bytes[12], bytes[13], bytes[14], bytes[15],
        ]);
        let body = (bytes.len() as u64).saturating_sub(16 + u64::from(fields).next_multiple_of(8)) as u32;
        bytes[4..8].copy_from_slice(&if is_big_endian { body.to_be_bytes() } else { body.to_le_bytes() });
    }
    bytes
}

#[test]
fn broken_messages_are_refused_or_read_alike_and_take_little_memory() {
    let seed = setting("KELSON_SEED", 1);
    let mut random = Random(seed);
    let mut accepted = 0;
    let count = setting("KELSON_MESSAGES", 50_000);
    let mut other = Reference::message(&some_message(&mut random), false);
    for index in 0..count {
        let is_big_endian = random.one_in(2);
        let whole = Reference::message(&some_message(&mut random), is_big_endian);
        let bytes = broken(&mut random, whole.clone(), &other);
        other = whole;
        let (decoded, held) = measured(|| Message::decode(&bytes));
        assert!(
            held <= COSTLIEST * bytes.len() + 4096,
            "{held} bytes for {} of message {index}, seed {seed}",
            bytes.len()
        );
        let Ok(message) = decoded else { continue };
        accepted += 1;
        // As bytes: NaN is not equal to itself.
        let again = message.encode().unwrap();
        let reread = Message::decode(&again).unwrap();
        assert_eq!(reread.encode().unwrap(), again, "message {index}, seed {seed}: {bytes:?}");
    }
    // A break that each message dies of at once would test nothing behind it.
    assert!(accepted > count / 50 && accepted < count, "{accepted} of {count} were accepted");
}

/// Most bytes that one byte of a message costs: one in 32 structs, aligned to 8, costs 32 vectors with room for four values.
const COSTLIEST: usize = 1024;

#[test]
fn the_costliest_message_is_bounded() {
    let nested = |index| (0..32).fold(Value::Byte(index as u8), |value, _| Value::Struct(vec![value]));
    let message = |items: usize| {
        let items: Vec<Value> = (0..items).map(nested).collect();
        let body = vec![Value::array(&nested(0).signature(), items)];
        Message { path: "/a".into(), member: "M".into(), serial: 1, body, ..Message::default() }.encode().unwrap()
    };
    let bytes = message(1000);
    let (decoded, held) = measured(|| Message::decode(&bytes));
    assert!(decoded.is_ok() && held <= COSTLIEST * bytes.len(), "{held} for {}", bytes.len());
    let bytes = message(20_000);
    let (decoded, held) = measured(|| Message::decode(&bytes));
    assert!(decoded.unwrap_err().to_string().starts_with("too many values"));
    assert!(held <= 64 << 20, "{held}");
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    let body = vec![Value::array("u", [Value::U32(1)])];
    let honest =
        Message { path: "/a".into(), member: "M".into(), serial: 1, body, ..Message::default() }.encode().unwrap();
    let at = honest.len() - 8;
    assert_eq!(honest[at..at + 4], 4u32.to_le_bytes());
    for length in [8, 0xffff, 64 << 20, u32::MAX] {
        let mut bytes = honest.clone();
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        let (decoded, held) = measured(|| Message::decode(&bytes));
        assert!(decoded.is_err() && held < 4096, "{held}");
    }
    for (at, length) in [(4, 128 << 20), (4, u32::MAX), (12, 128 << 20), (12, u32::MAX)] {
        let mut start = *honest.first_chunk().unwrap();
        start[at..at + 4].copy_from_slice(&u32::to_le_bytes(length));
        let error = Message::length(&start).unwrap_err().to_string();
        assert!(error.starts_with("a message that is too long"), "{error}");
    }
}

#[test]
fn a_message_without_what_its_kind_needs_is_refused() {
    let call =
        Message { path: "/a".into(), member: "M".into(), interface: "i.i".into(), serial: 1, ..Message::default() };
    let signal = Message { kind: Kind::Signal, ..call.clone() };
    let answer = Message { kind: Kind::Return, reply_serial: 1, serial: 1, ..Message::default() };
    let error = Message { kind: Kind::Error, error_name: "e.e".into(), ..answer.clone() };
    for whole in [&call, &signal, &answer, &error] {
        assert_eq!(&Message::decode(&whole.encode().unwrap()).unwrap(), whole);
    }
    for (message, said) in [
        (Message { path: String::new(), ..call.clone() }, "without a header field"),
        (Message { member: String::new(), ..call.clone() }, "without a header field"),
        (Message { interface: String::new(), ..signal.clone() }, "without a header field"),
        (Message { reply_serial: 0, ..answer.clone() }, "without a header field"),
        (Message { reply_serial: 0, ..error.clone() }, "without a header field"),
        (Message { error_name: String::new(), ..error.clone() }, "without a header field"),
        (Message { serial: 0, ..call.clone() }, "without a number"),
        (Message { kind: Kind::Unknown(0), ..call.clone() }, "of no kind"),
    ] {
        let refused = Message::decode(&message.encode().unwrap()).unwrap_err().to_string();
        assert!(refused.contains(said), "{message:?}: {refused}");
    }
}
