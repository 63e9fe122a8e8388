//! How trouble reaches a person: what was being done, to which config property, why it failed, what to do about it.
//!
//! Printed form, one line: *doing: property: cause (way out)*.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error; decides the exit code and the `code` field of a JSON log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// config.json asks for something wrong, contradictory or unsupported.
    Config,
    /// The container is in the wrong state, or there is none with this id.
    State,
    /// The kernel or host refused.
    System(Errno),
    /// Another process (hook, helper program, container process) reported or caused the failure.
    Other,
}

impl Kind {
    /// A short stable word for programs, e.g. `config`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Config => "config",
            Kind::State => "state",
            Kind::System(_) => "system",
            Kind::Other => "other",
        }
    }
}

/// One failure with its context, outermost first when printed.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    cause: Cow<'static, str>,
    property: Option<String>,
    hint: Option<Cow<'static, str>>,
    doing: Vec<String>,
}

impl Error {
    /// An error of `kind` whose reason is `cause`: lower case, no full stop.
    pub fn new(kind: Kind, cause: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, cause: cause.into(), property: None, hint: None, doing: vec![] }))
    }

    /// config.json's `property` has a value that is wrong, contradictory or unsupported.
    pub fn config(property: impl Into<String>, cause: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(Kind::Config, cause);
        error.0.property = Some(property.into());
        error
    }

    /// The container is in the wrong state for the command.
    pub fn state(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::State, cause)
    }

    /// The command line is wrong.
    pub fn usage(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Usage, cause)
    }

    /// A failure that another process reported or caused.
    pub fn other(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Other, cause)
    }

    /// Adds what the person may do next; the innermost hint wins.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Names the step that failed, if nothing more exact was said of what was being done.
    pub fn within_step(mut self, step: &str) -> Self {
        if self.0.doing.is_empty() {
            self.0.doing.push(step.to_owned());
        }
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The kernel's error number, where the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self.0.kind {
            Kind::System(errno) => Some(errno),
            _ => None,
        }
    }

    /// The config property that the failing value came from, e.g. `linux.resources.memory.limit`.
    pub fn property(&self) -> Option<&str> {
        self.0.property.as_deref()
    }

    /// Calls the property as `name` wants it, where it has one and `name` gives another: the option that the value came from.
    pub fn rename_property(mut self, name: impl FnOnce(&str) -> Option<String>) -> Self {
        if let Some(other) = self.property().and_then(name) {
            self.0.property = Some(other);
        }
        self
    }

    /// The parts as bytes, for another process of this program: see [`Error::decode`].
    ///
    /// Parts are separated by NUL, which no part contains: paths and properties come from C strings and JSON without NUL.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, errno) = match self.0.kind {
            Kind::System(errno) => ("system", errno as i32),
            other => (other.word(), 0),
        };
        let errno = errno.to_string();
        let mut parts = vec![kind, &errno, self.property().unwrap_or(""), self.way_out().unwrap_or(""), &self.0.cause];
        parts.extend(self.0.doing.iter().map(String::as_str));
        parts.join("\0").into_bytes()
    }

    /// The error that [`Error::encode`] wrote; bytes that it did not write become an error with that text.
    pub fn decode(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.split('\0');
        let (Some(kind), Some(errno), Some(property), Some(hint), Some(cause)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::other(text.into_owned());
        };
        let kind = match kind {
            "usage" => Kind::Usage,
            "config" => Kind::Config,
            "state" => Kind::State,
            "system" => Kind::System(Errno::from_raw(errno.parse().unwrap_or(0))),
            _ => Kind::Other,
        };
        let present = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        Self(Box::new(Inner {
            kind,
            cause: Cow::Owned(cause.to_owned()),
            property: present(property),
            hint: present(hint).map(Cow::Owned),
            doing: parts.map(str::to_owned).collect(),
        }))
    }

    /// Why it failed, without what was being done.
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// The way out, where one is certain.
    pub fn way_out(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

/// The kernel's own number for what it does not do, which reaches programs by control files of cgroups.
const ENOTSUPP: i32 = 524;

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            // nix speaks of transport endpoints.
            Errno::EOPNOTSUPP => Self::new(Kind::System(errno), "operation not supported"),
            errno => Self::new(Kind::System(errno), errno.desc().to_ascii_lowercase()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(ENOTSUPP) => Errno::EOPNOTSUPP.into(),
            Some(code) => Errno::from_raw(code).into(),
            None => Self::new(Kind::Other, error.to_string()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.0.doing.iter().rev() {
            write!(f, "{doing}: ")?;
        }
        if let Some(property) = &self.0.property {
            write!(f, "{property}: ")?;
        }
        write!(f, "{}", self.0.cause)?;
        if let Some(hint) = &self.0.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds what was being done, and where the value came from, as an error passes by.
pub trait Context<T> {
    /// `what` is an imperative clause: "mount proc on /proc". Built only on failure.
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T>;
    /// Names the config property; the innermost caller that knows it wins.
    fn property<P: Into<String>>(self, property: impl FnOnce() -> P) -> Result<T>;
    /// Adds a way out; the innermost wins.
    fn hint<H: Into<Cow<'static, str>>>(self, hint: impl FnOnce() -> H) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|e| {
            let mut e = e.into();
            e.0.doing.push(what().into());
            e
        })
    }

    fn property<P: Into<String>>(self, property: impl FnOnce() -> P) -> Result<T> {
        self.map_err(|e| {
            let mut e = e.into();
            e.0.property.get_or_insert_with(|| property().into());
            e
        })
    }

    fn hint<H: Into<Cow<'static, str>>>(self, hint: impl FnOnce() -> H) -> Result<T> {
        self.map_err(|e| e.into().hint(hint()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_property_the_steps_and_the_way_out() {
        let failed: Result<()> = Err(Errno::EBUSY)
            .property(|| "linux.resources.memory.limit")
            .doing(|| "write 1024 to memory.max")
            .doing(|| "create \"web\"");
        assert_eq!(
            failed.map_err(|e| e.hint("the container already uses more").to_string()),
            Err("create \"web\": write 1024 to memory.max: \
                 linux.resources.memory.limit: device or resource busy (the container already uses more)"
                .into())
        );
    }

    #[test]
    fn what_is_not_supported_has_words() {
        for code in [ENOTSUPP, Errno::EOPNOTSUPP as i32] {
            assert_eq!(Error::from(std::io::Error::from_raw_os_error(code)).cause(), "operation not supported");
        }
    }

    #[test]
    fn survives_the_way_to_another_process() {
        let error = Error::from(Errno::EPERM).hint("way out");
        let error = Err::<(), _>(error).property(|| "a.b").doing(|| "inner").doing(|| "outer").err();
        let error = error.unwrap_or_else(|| Error::other(""));
        let decoded = Error::decode(&error.encode());
        assert_eq!(decoded.to_string(), error.to_string());
        assert_eq!((decoded.errno(), decoded.property()), (Some(Errno::EPERM), Some("a.b")));
    }
}
