//! Reads JSON into borrowed structs, and knows for every complaint which property it is about.
//!
//! serde's derive either drops unknown keys silently or refuses them, and its errors carry no path. `object!` writes the
//! visitor instead: unknown keys are noted with their path, a key given twice is refused, and on the way out of a failure
//! each level adds its own name. Nothing is recorded while all is well, so the path costs nothing (docs/decisions/0001).

use std::borrow::{Borrow, Cow};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Kind, Result};

/// So many characters of a key or value are shown.
const MAX_SHOWN: usize = 128;
/// As serde_json has it for what is read.
const MAX_DEPTH: usize = 128;

/// Unknown properties beyond these are counted, not named: a hostile file must not fill the log.
const MAX_NAMED: usize = 32;

/// One step from a value down to a part of it.
#[derive(Debug)]
pub enum Step {
    Key(Cow<'static, str>),
    Index(usize),
}

/// What went by unknown: where it is, innermost step first, and what its neighbours may be called.
struct Unknown {
    path: Vec<Step>,
    siblings: &'static [&'static str],
}

/// What one reading found besides the value. It is in a thread-local because serde gives a nested `Deserialize` no way to
/// reach its parent's state; `read` takes it out again before it returns.
#[derive(Default)]
struct Notes {
    unknown: Vec<Unknown>,
    more_unknown: usize,
    /// Where the error is, innermost step first.
    trail: Vec<Step>,
    /// A value went by that nobody looked at.
    has_skipped: bool,
}

thread_local! {
    static NOTES: RefCell<Notes> = const { RefCell::new(Notes { unknown: vec![], more_unknown: 0, trail: vec![], has_skipped: false }) };
}

/// Reads `text`, which `what` names in messages, and warns about every property that no struct knows.
///
/// # Errors
/// The text is no JSON, nested more than 128 levels deep, gives a property twice or one of the wrong type.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T> {
    let (value, notes) = read_noting(text, what)?;
    for unknown in &notes.unknown {
        log::warn!("{what}: {}", unknown.warning());
    }
    if notes.more_unknown > 0 {
        log::warn!("{what}: {} more unknown properties, ignored", notes.more_unknown);
    }
    Ok(value)
}

/// [`read`] of a text that was read before: what is unknown in it was warned of then.
pub fn read_known<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T> {
    read_noting(text, what).map(|(value, _)| value)
}

fn read_noting<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<(T, Notes)> {
    NOTES.take();
    let value = serde_json::from_str(text);
    let notes = NOTES.take();
    // serde_json counts the levels of what it reads, not of what it skips.
    if notes.has_skipped && depth(text) > MAX_DEPTH {
        return Err(Error::new(Kind::Config, format!("{what} is nested more than {MAX_DEPTH} levels deep")));
    }
    let value = value.map_err(|error| complaint(error, &notes.trail, what))?;
    Ok((value, notes))
}

/// How deep the brackets of a JSON text are nested.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest): (usize, usize) = (0, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(inner) = bytes.next().filter(|inner| *inner != b'"') {
                    if inner == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// A text of the config for a message: whoever wrote it must not fill the log.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

fn complaint(error: serde_json::Error, trail: &[Step], what: &str) -> Error {
    use serde_json::error::Category;
    let text = shortened_complaint(error.to_string());
    match error.classify() {
        Category::Eof => Error::new(Kind::Config, format!("{what} is truncated: {text}")),
        Category::Data if !trail.is_empty() => Error::config(property(trail), text),
        _ => Error::new(Kind::Config, format!("{what} is not valid: {text}")),
    }
}

/// serde_json's text, which holds the whole of a value of the wrong type, with the middle of it left out.
fn shortened_complaint(text: String) -> String {
    /// ", expected … at line … column …".
    const END: usize = 96;
    let length = text.chars().count();
    if length <= MAX_SHOWN + END {
        return text;
    }
    let end: String = text.chars().skip(length - END).collect();
    format!("{}{end}", shortened(&text))
}

/// `mounts[4].options`, from steps that are innermost first.
fn property(trail: &[Step]) -> String {
    let mut out = String::new();
    for step in trail.iter().rev() {
        match step {
            Step::Index(index) => out.push_str(&format!("[{index}]")),
            Step::Key(key) if is_plain(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&shortened(key));
            }
            Step::Key(key) => out.push_str(&format!("[{:?}]", shortened(key))),
        }
    }
    out
}

/// A key that reads well after a dot; any other (`net.ipv4.ip_forward`) goes in brackets and quotes.
fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Unknown {
    fn warning(&self) -> String {
        let property = property(&self.path);
        let name = match self.path.first() {
            Some(Step::Key(name)) => name.as_ref(),
            _ => "",
        };
        // runtime-spec names these for other platforms (config.md#platform-specific-configuration).
        if self.path.len() == 1 && ["windows", "solaris", "vm", "zos", "freebsd"].contains(&name) {
            return format!("property {property} is for another platform, ignored");
        }
        match suggestion(name, self.siblings.iter().copied()) {
            Some(meant) => format!("unknown property {property}, ignored (did you mean {meant:?}?)"),
            None => format!("unknown property {property}, ignored"),
        }
    }
}

/// The candidate that `word` was most likely meant to be, if any is near.
pub fn suggestion<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase();
    let allowed = match lower.len() {
        0..=2 => return None,
        3..=5 => 1,
        6..=9 => 2,
        _ => 3,
    };
    candidates
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase(), allowed), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits that turn `a` into `b`, a swap of neighbours counting as one; more than `limit` may come back as any larger number.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut before: Vec<usize> = vec![];
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut current = vec![i];
        for j in 1..=b.len() {
            let same = a[i - 1] == b[j - 1];
            let mut best = (previous[j] + 1).min(current[j - 1] + 1).min(previous[j - 1] + if same { 0 } else { 1 });
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

/// Runs `read` for the part of a value that `step` names, and adds the step to what it notes.
pub fn within<T, E>(step: impl FnOnce() -> Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = NOTES.with_borrow(|notes| notes.unknown.len());
    let result = read();
    let failed = result.is_err();
    if failed || NOTES.with_borrow(|notes| notes.unknown.len()) != before {
        note(step(), before, failed);
    }
    result
}

#[cold]
fn note(step: Step, before: usize, failed: bool) {
    NOTES.with_borrow_mut(|notes| {
        if failed {
            notes.trail.push(step);
            return;
        }
        for unknown in notes.unknown.iter_mut().skip(before) {
            unknown.path.push(match &step {
                Step::Key(key) => Step::Key(key.clone()),
                Step::Index(index) => Step::Index(*index),
            });
        }
    });
}

/// The value of a key, whose complaints name it. A function for each type and not for each property: in all of them it would be
/// most of the program's own code.
#[inline(never)]
pub fn value<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A, key: &'static str) -> Result<T, A::Error> {
    within(|| Step::Key(Cow::Borrowed(key)), || map.next_value())
}

/// Skips the value of a key that the object does not have, and remembers the key.
#[cold]
pub fn unknown<'de, A: MapAccess<'de>>(
    map: &mut A,
    key: &str,
    siblings: &'static [&'static str],
) -> Result<(), A::Error> {
    map.next_value::<Anything>()?;
    NOTES.with_borrow_mut(|notes| {
        if notes.unknown.len() < MAX_NAMED {
            notes.unknown.push(Unknown { path: vec![Step::Key(Cow::Owned(key.to_string()))], siblings });
        } else {
            notes.more_unknown += 1;
        }
    });
    Ok(())
}

/// The error for a key that was there before.
#[cold]
pub fn twice<E: serde::de::Error>(key: &str) -> E {
    NOTES.with_borrow_mut(|notes| notes.trail.push(Step::Key(Cow::Owned(key.to_string()))));
    E::custom("property is given twice")
}

/// Declares structs whose fields are all optional (`null` is absence, as in Go, in which most callers are written) and
/// reads them from JSON objects. Keys in `ignores` are known, but mean nothing on Linux.
macro_rules! object {
    ($(
        $(#[$doc:meta])*
        struct $name:ident<$lt:lifetime> $(ignores ($($ignored:literal),*))? { $($field:ident: $type:ty = $key:literal,)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name<$lt> {
            $(pub $field: Option<$type>,)*
            /// Lets every object have the same generics, also one that borrows nothing.
            _text: std::marker::PhantomData<&$lt str>,
        }

        impl<$lt> serde::Deserialize<$lt> for $name<$lt> {
            fn deserialize<D: serde::Deserializer<$lt>>(deserializer: D) -> Result<Self, D::Error> {
                const KEYS: &[&str] = &[$($key,)*];
                struct Object;
                impl<$lt> serde::de::Visitor<$lt> for Object {
                    type Value = $name<$lt>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<$lt>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        $(let mut $field: Option<Option<$type>> = None;)*
                        while let Some(key) = map.next_key::<$crate::plan::json::Text<$lt>>()? {
                            match &*key {
                                $($key => {
                                    if $field.is_some() {
                                        return Err($crate::plan::json::twice($key));
                                    }
                                    $field = Some($crate::plan::json::value(&mut map, $key)?);
                                })*
                                $($($ignored => {
                                    map.next_value::<$crate::plan::json::Anything>()?;
                                })*)?
                                other => $crate::plan::json::unknown(&mut map, other, KEYS)?,
                            }
                        }
                        Ok($name { $($field: $field.flatten(),)* _text: std::marker::PhantomData })
                    }
                }
                deserializer.deserialize_map(Object)
            }
        }
    )*};
}
pub(super) use object;

/// A string of the file, borrowed where it has no escapes; never holds a NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text<'a>(Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl<'a> Text<'a> {
    pub fn into_cow(self) -> Cow<'a, str> {
        self.0
    }
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            // JSON allows no control characters in a string: what could be borrowed has no NUL.
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                if text.contains('\0') {
                    return Err(E::custom("string contains a NUL character"));
                }
                Ok(Text(Cow::Owned(text.to_string())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// An array.
#[derive(Debug)]
pub struct List<T>(pub Vec<T>);

impl<T> Deref for List<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = vec![];
                while let Some(item) = within(|| Step::Index(items.len()), || seq.next_element())? {
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// An object whose keys are the user's; in the order of the keys, which no caller of a runtime can rely on anyway.
#[derive(Debug)]
pub struct Map<'a, T>(pub BTreeMap<Text<'a>, T>);

impl<'a, T> Deref for Map<'a, T> {
    type Target = BTreeMap<Text<'a>, T>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Map<'de, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Map<'de, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<'de, T>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if entries.contains_key(&*key) {
                        return Err(twice(&key));
                    }
                    let value = within(|| Step::Key(Cow::Owned(key.to_string())), || map.next_value())?;
                    entries.insert(key, value);
                }
                Ok(Map(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Any value, thrown away, numbers that no type holds too; [`read`] refuses it when it is nested too deeply.
#[derive(Clone, Copy, Debug)]
pub struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NOTES.with_borrow_mut(|notes| notes.has_skipped = true);
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Anything)
    }
}

/// A value whose type is looked at by who needs it: `None` is another one than `T`. For what must be ignored otherwise.
#[derive(Debug)]
pub struct Loose<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = Loose<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Loose<T>, E> {
                Ok(Loose(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Loose<T>, E> {
                Ok(Loose(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Loose<T>, E> {
                Ok(Loose(None))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Loose<T>, E> {
                let number: serde::de::value::U64Deserializer<serde::de::value::Error> = number.into_deserializer();
                Ok(Loose(T::deserialize(number).ok()))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Loose<T>, E> {
                Ok(Loose(None))
            }
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Loose<T>, E> {
                Ok(Loose(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose<T>, A::Error> {
                while seq.next_element::<Anything>()?.is_some() {}
                Ok(Loose(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loose<T>, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|value| Loose(Some(value)))
            }
        }
        deserializer.deserialize_any(Any(PhantomData))
    }
}
