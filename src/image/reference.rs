//! Names of images, completed as docker does: `busybox` is `docker.io/library/busybox:latest`.
//!
//! The grammar is that of distribution's reference package: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::error::{Error, Kind};

/// Docker's own registry, as its names have it.
const DOCKER_HUB: &str = "docker.io";

/// The name of an image, complete.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Name or address of the registry, with its port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub host: String,
    /// `library/busybox`.
    pub path: String,
    /// `None` where only a digest was given.
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// Without tag and digest: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// As a person writes it: what docker completes is left out.
    pub fn familiar(&self) -> String {
        let text = self.to_string();
        let short = text.strip_prefix("docker.io/").map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
        short.map_or(text.clone(), str::to_owned)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::new(Kind::Usage, format!("image name {text:?}: {why}"));
        if Digest::from_hex(text).is_some() {
            return Err(wrong("64 hexadecimal digits are an id and not a name"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            // What follows a port's colon has a slash, and an address in brackets a bracket.
            Some((name, tag)) if !tag.contains(['/', ']']) => (name, Some(tag)),
            _ => (name, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            _ => (DOCKER_HUB, name.to_owned()),
        };
        // The names of Docker's registry that its clients know.
        let host = if host == "index.docker.io" || host == "registry-1.docker.io" { DOCKER_HUB } else { host };
        let path = if host == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path };
        if !path.split('/').all(is_component) {
            return Err(wrong("a name is of lower case letters and digits, with . _ __ or - between them").hint(
                "names look like busybox, alpine:3.20, localhost:5000/tool@sha256:…; a file is given as ./FILE",
            ));
        }
        if host.len() + 1 + path.len() > 255 {
            return Err(wrong("a name has at most 255 characters"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag has letters, digits, _ . and -, at most 128, and begins with none of the last two",
            ));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), path, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the first component of a name is a registry: docker's rule, and only what can be one.
fn is_host(word: &str) -> bool {
    let (name, port) = match word.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (word, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    let looks_like_one = port.is_some()
        || name.contains('.')
        || name == "localhost"
        || name.bytes().any(|byte| byte.is_ascii_uppercase());
    looks_like_one && name.split('.').all(is_label)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separator = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
    word.bytes().next().is_some_and(is_plain)
        && word.bytes().last().is_some_and(is_plain)
        && word
            .split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit())
            .filter(|run| !run.is_empty())
            .all(separator)
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|error| format!("error: {error}"), |reference| reference.to_string())
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("me/tool", "docker.io/me/tool:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1"),
            ("localhost/tool", "localhost/tool:latest"),
            ("localhost:5000/busybox", "localhost:5000/busybox:latest"),
            ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1"),
            ("[::1]:5000/a:v1", "[::1]:5000/a:v1"),
            ("quay.io/a__b/c-d--e.f", "quay.io/a__b/c-d--e.f:latest"),
            ("Registry/tool", "Registry/tool:latest"),
        ] {
            assert_eq!(complete(text), whole, "{text}");
        }
        assert_eq!(complete(&format!("host:1/repo@{digest}")), format!("host:1/repo@{digest}"));
        assert_eq!(complete(&format!("a:b@{digest}")), format!("docker.io/library/a:b@{digest}"));
    }

    #[test]
    fn names_that_are_none() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a//b",
            "a:",
            "a:b:c",
            "a@b",
            "../a",
            "a/../b",
            "-a",
            "a-",
            "a.",
            "a___b",
            "a._b",
            "a b",
            "a:-b",
            "localhost:x/a",
            "a\nb",
            "a/b:c/d",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} is {}", complete(text));
        }
        assert!("f".repeat(64).parse::<Reference>().is_err());
        assert!("f".repeat(256).parse::<Reference>().is_err());
        assert!(format!("a:{}", "f".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn what_docker_completes_is_left_out() {
        for (text, short) in [
            ("busybox", "busybox:latest"),
            ("me/tool:1", "me/tool:1"),
            ("localhost:5000/busybox", "localhost:5000/busybox:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), short);
        }
    }
}
