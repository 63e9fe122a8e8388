//! Whether a container's cgroup is frozen: asked of every container that is listed.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Record, UNIFIED, files, has_controller};
use crate::error::{Context, Result};
use crate::sys::fd::{Done, open};

/// The cgroup that has the freezer: of a [`Record`], or of the text of a saved one, in which its path stays.
#[derive(Debug, Default, Deserialize)]
pub struct Freezer<'r> {
    #[serde(borrow, rename = "places", deserialize_with = "find")]
    found: Option<Found<'r>>,
}

#[derive(Debug)]
struct Found<'r> {
    is_v1: bool,
    path: Cow<'r, Path>,
}

impl Record {
    /// The cgroup that has the freezer.
    pub fn freezer(&self) -> Freezer<'_> {
        let found = |is_v1| move |path| Found { is_v1, path: Cow::Borrowed(path) };
        Freezer { found: self.v1("freezer").map(found(true)).or_else(|| self.unified().map(found(false))) }
    }

    /// Whether the cgroup is frozen, or is about to be; `false` where there is none.
    pub fn is_frozen(&self) -> Result<bool> {
        self.freezer().is_frozen(|cgroup, file| files::read(&cgroup.join(file)))
    }
}

impl Freezer<'_> {
    fn is_frozen(&self, read: impl FnOnce(&Path, &str) -> io::Result<String>) -> Result<bool> {
        let Some(Found { is_v1, path }) = &self.found else { return Ok(false) };
        // A v1 cgroup below a frozen one is frozen too.
        let (file, thawed) = if *is_v1 { ("freezer.state", "THAWED") } else { ("cgroup.freeze", "0") };
        match read(path, file) {
            // It is gone, or went between open(2) and read(2).
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            other => Ok(other.doing(|| format!("read {}", path.join(file).display()))? != thawed),
        }
    }
}

/// Asks many cgroups. Those of containers are side by side more often than not: the way to each is short from the directory
/// above, which is opened once.
#[derive(Debug, Default)]
pub struct Freezers {
    above: Option<(PathBuf, OwnedFd)>,
}

impl Freezers {
    /// As [`Record::is_frozen`]; a descriptor goes to `done`.
    pub fn is_frozen(&mut self, freezer: &Freezer<'_>, done: &mut Done) -> Result<bool> {
        freezer.is_frozen(|cgroup, file| match (cgroup.parent(), cgroup.file_name()) {
            (Some(above), Some(name)) => files::read_at(self.open(above)?, &Path::new(name).join(file), done),
            _ => files::read(&cgroup.join(file)),
        })
    }

    fn open(&mut self, above: &Path) -> io::Result<&OwnedFd> {
        if self.above.as_ref().is_none_or(|(known, _)| known != above) {
            self.above = Some((above.into(), open(above, OFlag::O_PATH | OFlag::O_DIRECTORY)?));
        }
        self.above.as_ref().map(|(_, fd)| fd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A string of JSON: borrowed, unless it has escapes in it.
#[derive(Deserialize)]
struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

/// The member of [`super::Place`] that counts here.
#[derive(Deserialize)]
struct PlacePath<'t> {
    #[serde(borrow)]
    path: Cow<'t, str>,
}

/// Finds the place that has the freezer among [`Record::places`].
fn find<'de, D: Deserializer<'de>>(places: D) -> Result<Option<Found<'de>>, D::Error> {
    struct Places;

    impl<'de> Visitor<'de> for Places {
        type Value = Option<Found<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cgroups by hierarchy")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut places: M) -> Result<Self::Value, M::Error> {
            let mut found: Self::Value = None;
            while let Some(Text(key)) = places.next_key()? {
                let is_v1 = has_controller(&key, "freezer");
                if !is_v1 && key != UNIFIED || found.as_ref().is_some_and(|found| found.is_v1) {
                    places.next_value::<IgnoredAny>()?;
                    continue;
                }
                let path = match places.next_value::<PlacePath<'de>>()?.path {
                    Cow::Borrowed(path) => Cow::Borrowed(Path::new(path)),
                    Cow::Owned(path) => Cow::Owned(path.into()),
                };
                found = Some(Found { is_v1, path });
            }
            Ok(found)
        }
    }

    places.deserialize_map(Places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Place;

    #[test]
    fn a_saved_record_tells_the_same_as_the_record() {
        for (keys, expected) in [
            (&[][..], None),
            (&["memory"], None),
            (&["", "blkio", "memory"], Some((false, "/cg/"))),
            (&["", "blkio", "cpuset,freezer", "memory"], Some((true, "/cg/cpuset,freezer"))),
            (&["blkio", "freezer"], Some((true, "/cg/freezer"))),
        ] {
            let mut record = Record::default();
            for key in keys {
                let path = Path::new("/cg").join(key);
                record.places.insert((*key).into(), Place { mount_point: "/cg\"".into(), path });
            }
            let text = serde_json::to_string(&record).unwrap();
            let saved: Freezer<'_> = serde_json::from_str(&text).unwrap();
            for freezer in [record.freezer(), saved] {
                let found = freezer.found.map(|found| (found.is_v1, found.path.into_owned()));
                assert_eq!(found, expected.map(|(is_v1, path)| (is_v1, path.into())), "{keys:?}");
            }
        }
    }
}
