//! What a person writes where an image is wanted, told apart by the word alone: no file is looked at.
//!
//! ```text
//!   busybox  alpine:3.20  host:5000/repo@sha256:…    a name, or the first digits of an id
//!   docker://NAME                                    a name and nothing else
//!   sha256:HEX, or its 64 digits                     an id
//!   oci:PATH[:TAG][@DIGEST]                          an OCI image layout, directory or archive
//!   oci-archive:PATH[:TAG][@DIGEST]                  likewise
//!   docker-archive:PATH[:TAG]                        docker save's form, archive or directory
//!   ./PATH  /PATH  FILE.tar  FILE.tar.gz  …          any of these forms, told by the content
//! ```

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Digest, Reference};
use crate::error::{Error, Result};

/// Where an image is to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(FileOrigin),
    /// In the store by this name, or to be fetched from its registry.
    Name(Reference),
    /// In the store by its first digits.
    Id(String),
}

/// A file or directory with images in it, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOrigin {
    pub path: PathBuf,
    pub form: Form,
    /// A tag, or a whole name.
    pub tag: Option<String>,
    /// Of a manifest or an index.
    pub digest: Option<Digest>,
}

/// What a file is said to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Its content tells.
    Any,
    DockerArchive,
    /// A layout, as directory or as archive.
    Oci,
}

/// What ends the name of a file, and no name of an image that people use.
const ENDINGS: [&[u8]; 5] = [b".tar", b".tar.gz", b".tgz", b".tar.zst", b".tar.zstd"];

impl Origin {
    /// # Errors
    /// The word is no name, or what follows a prefix is not what it must be.
    pub fn parse(word: &OsStr) -> Result<Self> {
        let bytes = word.as_bytes();
        for (prefix, form) in
            [(&b"docker-archive:"[..], Form::DockerArchive), (b"oci-archive:", Form::Oci), (b"oci:", Form::Oci)]
        {
            if let Some(rest) = bytes.strip_prefix(prefix) {
                return file(rest, form).map(Self::File);
            }
        }
        if bytes.starts_with(b".") || bytes.starts_with(b"/") || ENDINGS.iter().any(|ending| bytes.ends_with(ending)) {
            return Ok(Self::File(FileOrigin { path: word.into(), form: Form::Any, tag: None, digest: None }));
        }
        let text = word.to_str().ok_or_else(|| {
            Error::usage(format!("{word:?} is no name of an image")).hint("a file is given as ./FILE")
        })?;
        if let Some(name) = text.strip_prefix("docker://") {
            return name.parse().map(Self::Name);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if (text.len() > digits.len() || digits.len() == 64) && is_hexadecimal(digits) {
            return Ok(Self::Id(digits.to_owned()));
        }
        text.parse().map(Self::Name)
    }
}

/// `PATH[:TAG][@DIGEST]`: as in skopeo the first colon ends the path.
fn file(rest: &[u8], form: Form) -> Result<FileOrigin> {
    let (path, rest) = match rest.iter().position(|byte| *byte == b':' || *byte == b'@' && form == Form::Oci) {
        Some(end) => rest.split_at(end),
        None => (rest, &b""[..]),
    };
    let text = std::str::from_utf8(rest).map_err(|_| Error::usage("a tag is not valid UTF-8"))?;
    let (tag, digest) = match text.split_once('@') {
        Some((tag, digest)) => (tag, Some(digest.parse()?)),
        None => (text, None),
    };
    if path.is_empty() {
        return Err(Error::usage("a prefix without a path").hint("oci:PATH[:TAG][@DIGEST], docker-archive:PATH[:TAG]"));
    }
    if form == Form::DockerArchive && digest.is_some() {
        return Err(Error::usage("docker's archives have no digests").hint("docker-archive:PATH[:TAG]"));
    }
    let tag = tag.strip_prefix(':').filter(|tag| !tag.is_empty()).map(str::to_owned);
    Ok(FileOrigin { path: OsStr::from_bytes(path).into(), form, tag, digest })
}

impl FileOrigin {
    /// What is asked of the file, as one word: the key of [`super::store::Source::images`].
    pub fn selection(&self, platform: Option<&str>) -> String {
        let form = match self.form {
            Form::Any => "any",
            Form::DockerArchive => "docker-archive",
            Form::Oci => "oci",
        };
        let digest = self.digest.map(|digest| digest.to_string()).unwrap_or_default();
        format!("{form}:{}@{digest} {}", self.tag.as_deref().unwrap_or(""), platform.unwrap_or(""))
    }
}

/// Whether these can be the digits of an id, or its beginning.
pub fn is_hexadecimal(digits: &str) -> bool {
    (1..=64).contains(&digits.len()) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(word: &str) -> Origin {
        Origin::parse(OsStr::new(word)).unwrap()
    }

    fn file(path: &str, form: Form, tag: Option<&str>, digest: Option<Digest>) -> Origin {
        Origin::File(FileOrigin { path: path.into(), form, tag: tag.map(str::to_owned), digest })
    }

    #[test]
    fn a_word_tells_what_it_is() {
        let digest = Digest::from_bytes([0; 32]);
        for (word, origin) in [
            ("./x.tar", file("./x.tar", Form::Any, None, None)),
            ("../layout", file("../layout", Form::Any, None, None)),
            ("./a:b", file("./a:b", Form::Any, None, None)),
            ("/a/b", file("/a/b", Form::Any, None, None)),
            (".", file(".", Form::Any, None, None)),
            ("x.tar", file("x.tar", Form::Any, None, None)),
            ("a/x.tgz", file("a/x.tgz", Form::Any, None, None)),
            ("oci:layout", file("layout", Form::Oci, None, None)),
            ("oci:./l:1.36", file("./l", Form::Oci, Some("1.36"), None)),
            ("oci:l:docker.io/library/a:b", file("l", Form::Oci, Some("docker.io/library/a:b"), None)),
            ("oci-archive:l.tar:1", file("l.tar", Form::Oci, Some("1"), None)),
            ("docker-archive:x@y:busybox:1", file("x@y", Form::DockerArchive, Some("busybox:1"), None)),
            (&format!("oci:l@{digest}"), file("l", Form::Oci, None, Some(digest))),
            (&format!("oci:l:1@{digest}"), file("l", Form::Oci, Some("1"), Some(digest))),
            ("busybox", Origin::Name("busybox".parse().unwrap())),
            ("docker://host:1/a", Origin::Name("host:1/a".parse().unwrap())),
            ("beef", Origin::Name("beef".parse().unwrap())),
            ("sha256:beef", Origin::Id("beef".into())),
            (&digest.hex(), Origin::Id(digest.hex())),
        ] {
            assert_eq!(of(word), origin, "{word}");
        }
    }

    #[test]
    fn words_that_are_nothing() {
        for word in
            ["", "A", "oci:", "oci::1", "docker-archive:", "oci:x@sha256:1", "docker://", "docker://./x", "sha256:"]
        {
            assert!(Origin::parse(OsStr::new(word)).is_err(), "{word:?}");
        }
        let digest = Digest::from_bytes([0; 32]);
        assert!(Origin::parse(OsStr::new(&format!("docker-archive:x:y@{digest}"))).is_err());
    }

    #[test]
    fn a_selection_tells_apart_what_is_asked() {
        let words = ["oci:x", "oci:x:1", "./x", "docker-archive:x:1"];
        let selections = words.map(|word| match of(word) {
            Origin::File(file) => file.selection(None),
            _ => unreachable!("all are files"),
        });
        assert_eq!(selections, ["oci:@ ", "oci:1@ ", "any:@ ", "docker-archive:1@ "]);
    }
}
