//! Values as D-Bus has them, made by few words: they are what a call gives and what its answer holds.

/// A value and, by its variant, its type (D-Bus specification, "Type System"); descriptors are not sent and not taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Str(String),
    /// An object's path.
    Path(String),
    Signature(String),
    /// An array of bytes, `ay`.
    Bytes(Vec<u8>),
    /// Items of one type, which `element` is the signature of.
    Array {
        element: String,
        items: Vec<Value>,
    },
    Struct(Vec<Value>),
    /// Key and value: the item of an array that is a dictionary.
    Entry(Box<(Value, Value)>),
    Variant(Box<Value>),
}

impl Value {
    pub fn str(text: impl Into<String>) -> Self {
        Value::Str(text.into())
    }

    /// `as`
    pub fn strings<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Value::array("s", texts.into_iter().map(Value::str))
    }

    /// Items whose signature is `element`.
    pub fn array(element: &str, items: impl IntoIterator<Item = Value>) -> Self {
        Value::Array { element: element.to_owned(), items: items.into_iter().collect() }
    }

    pub fn variant(value: Value) -> Self {
        Value::Variant(Box::new(value))
    }

    /// `(sv)`: how systemd takes the properties of a unit.
    pub fn property(name: &str, value: Value) -> Self {
        Value::Struct(vec![Value::str(name), Value::variant(value)])
    }

    pub fn entry(key: Value, value: Value) -> Self {
        Value::Entry(Box::new((key, value)))
    }

    /// For a person to read.
    pub fn text(&self) -> String {
        let list = |values: &[Value], between: &str| values.iter().map(Value::text).collect::<Vec<_>>().join(between);
        match self {
            Value::Byte(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            Value::I16(number) => number.to_string(),
            Value::U16(number) => number.to_string(),
            Value::I32(number) => number.to_string(),
            Value::U32(number) => number.to_string(),
            Value::I64(number) => number.to_string(),
            // What systemd calls so (USEC_INFINITY, CGROUP_LIMIT_MAX).
            Value::U64(u64::MAX) => "infinity".into(),
            Value::U64(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            Value::Str(text) | Value::Path(text) | Value::Signature(text) => text.clone(),
            Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Value::Array { items, .. } => list(items, ", "),
            Value::Struct(fields) => list(fields, " "),
            Value::Entry(entry) => format!("{}={}", entry.0.text(), entry.1.text()),
            Value::Variant(inner) => inner.text(),
        }
    }

    pub fn signature(&self) -> String {
        let mut signature = String::new();
        self.add_signature(&mut signature);
        signature
    }

    fn add_signature(&self, to: &mut String) {
        match self {
            Value::Bytes(_) => to.push_str("ay"),
            Value::Array { element, .. } => {
                to.push('a');
                to.push_str(element);
            }
            Value::Struct(fields) => {
                to.push('(');
                fields.iter().for_each(|field| field.add_signature(to));
                to.push(')');
            }
            Value::Entry(entry) => {
                to.push('{');
                entry.0.add_signature(to);
                entry.1.add_signature(to);
                to.push('}');
            }
            basic => to.push(basic.code().into()),
        }
    }

    /// What the signature begins with.
    pub fn code(&self) -> u8 {
        match self {
            Value::Byte(_) => b'y',
            Value::Bool(_) => b'b',
            Value::I16(_) => b'n',
            Value::U16(_) => b'q',
            Value::I32(_) => b'i',
            Value::U32(_) => b'u',
            Value::I64(_) => b'x',
            Value::U64(_) => b't',
            Value::Double(_) => b'd',
            Value::Str(_) => b's',
            Value::Path(_) => b'o',
            Value::Signature(_) => b'g',
            Value::Bytes(_) | Value::Array { .. } => b'a',
            Value::Struct(_) => b'(',
            Value::Entry(_) => b'{',
            Value::Variant(_) => b'v',
        }
    }

    /// The text of a string, a path or a signature.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Path(text) | Value::Signature(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_u32(&self) -> Option<u32> {
        match self {
            Value::U32(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U64(number) => Some(*number),
            _ => None,
        }
    }

    /// What an array or a struct holds; of an array of bytes nothing.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array { items, .. } | Value::Struct(items) => items,
            _ => &[],
        }
    }

    /// What a variant holds, however many are in one another; another value itself.
    pub fn inner(&self) -> &Value {
        let mut value = self;
        while let Value::Variant(inner) = value {
            value = inner;
        }
        value
    }

    /// The same by value.
    pub fn into_inner(self) -> Value {
        let mut value = self;
        while let Value::Variant(inner) = value {
            value = *inner;
        }
        value
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::str(text)
    }
}
