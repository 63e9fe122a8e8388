//! Where the entries of a tar archive lie, so that each can be read by itself.
//!
//! Only what leads to an entry's bytes is read: names, sizes, links, in the forms that archivers write (ustar, GNU's and PAX's
//! long names). Everything is hostile: numbers, names and their lengths, links.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use kelson::error::{Error, Result};
use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// An image has some hundred layers, and an archive some hundred images.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of all names together.
const MAX_NAMES: usize = 32 << 20;
/// Bytes of a long name, and of PAX's records of one entry.
const MAX_EXTENSION: u64 = 1 << 20;

/// Entries by their clean names. Of two with one name the last counts, as for who unpacks them in order.
#[derive(Debug, Default)]
pub struct Index {
    pub members: BTreeMap<String, Member>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Hard or symbolic: the clean name of another entry.
    Link(String),
    /// A directory, a device, or a link that leads out.
    Other,
}

/// What headers before an entry's own say of it.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

/// The entries of the archive in `file`.
///
/// # Errors
/// It is no archive, is damaged or ends too early, or has more entries than can be meant.
pub fn read(file: &File) -> Result<Index> {
    let length = file.metadata()?.size();
    let (mut index, mut extended) = (Index::default(), Extended::default());
    let (mut position, mut names, mut entries) = (0, 0, 0);
    loop {
        let mut block = [0; BLOCK as usize];
        match read_block(file, &mut block, position, length)? {
            // Without the two empty blocks at the end an archive is whole too, as GNU tar has it.
            false if position > 0 => return Ok(index),
            false => return Err(Error::other("it is empty")),
            true if block.iter().all(|byte| *byte == 0) => return Ok(index),
            true => {}
        }
        let header = Header::from_byte_slice(&block);
        check(header, &block, position)?;
        let start = position + BLOCK;
        let kind = header.entry_type();
        let own_size = header.entry_size().map_err(|_| damaged(position, "a size that is no number"))?;
        let size = match is_extension(kind) {
            true => own_size,
            false => extended.size.unwrap_or(own_size),
        };
        let end = start.checked_add(size).filter(|end| *end <= length);
        let end = end.ok_or_else(|| damaged(position, "the archive ends within an entry"))?;
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(Error::other(format!("more than {MAX_ENTRIES} entries: this is no archive of images")));
        }
        if is_extension(kind) {
            extended.add(kind, &extension(file, start, size, position)?, position)?;
        } else {
            let said = std::mem::take(&mut extended);
            let own_name = || text(&header.path_bytes());
            let name = said.name.unwrap_or_else(own_name);
            let link = said.link.or_else(|| header.link_name_bytes().map(|link| text(&link)));
            names += name.len() + link.as_ref().map_or(0, String::len);
            if names > MAX_NAMES {
                return Err(Error::other("the names of its entries are too long: this is no archive of images"));
            }
            // An entry whose name leads out is nothing that anything here can name.
            if let Ok(name) = clean(&name) {
                let member = member(kind, &name, link, start, size);
                index.members.insert(name, member);
            }
        }
        position = end.checked_next_multiple_of(BLOCK).ok_or_else(|| damaged(position, "a size beyond all sizes"))?;
    }
}

/// Whether there is a whole block at `position`; none at all is the end.
fn read_block(file: &File, block: &mut [u8], position: u64, length: u64) -> Result<bool> {
    if position >= length {
        return Ok(false);
    }
    if length - position < BLOCK {
        return Err(damaged(position, "the archive ends within a header"));
    }
    file.read_exact_at(block, position)?;
    Ok(true)
}

fn check(header: &Header, block: &[u8], position: u64) -> Result<()> {
    let field = 148..156;
    let sum: u32 = (0..).zip(block).map(|(at, byte)| if field.contains(&at) { 32 } else { u32::from(*byte) }).sum();
    match header.cksum() {
        Ok(said) if said == sum => Ok(()),
        _ if position == 0 => Err(Error::other("this is no tar archive")),
        _ => Err(damaged(position, "a header's checksum is wrong")),
    }
}

fn member(kind: EntryType, name: &str, link: Option<String>, offset: u64, size: u64) -> Member {
    let target = match kind {
        EntryType::Regular | EntryType::Continuous => return Member::File { offset, size },
        // A hard link's target is a name of the archive, a symbolic link's one beside it.
        EntryType::Link => link,
        EntryType::Symlink => link.filter(|link| !link.starts_with('/')).map(|link| match name.rsplit_once('/') {
            Some((directory, _)) => format!("{directory}/{link}"),
            None => link,
        }),
        _ => None,
    };
    target.and_then(|target| clean(&target).ok()).map_or(Member::Other, Member::Link)
}

fn is_extension(kind: EntryType) -> bool {
    matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader)
}

fn extension(file: &File, start: u64, size: u64, position: u64) -> Result<Vec<u8>> {
    if size > MAX_EXTENSION {
        return Err(damaged(position, "a name or an extended header that is too long"));
    }
    let mut content = vec![0; size as usize];
    file.read_exact_at(&mut content, start)?;
    Ok(content)
}

impl Extended {
    fn add(&mut self, kind: EntryType, content: &[u8], position: u64) -> Result<()> {
        let until_nul = || text(content.split(|byte| *byte == 0).next().unwrap_or_default());
        match kind {
            EntryType::GNULongName => self.name = Some(until_nul()),
            EntryType::GNULongLink => self.link = Some(until_nul()),
            EntryType::XHeader => {
                for record in tar::PaxExtensions::new(content) {
                    let record = record.map_err(|_| damaged(position, "an extended header that is none"))?;
                    let value = text(record.value_bytes());
                    match record.key_bytes() {
                        b"path" => self.name = Some(value),
                        b"linkpath" => self.link = Some(value),
                        b"size" => {
                            let size = value.parse().map_err(|_| damaged(position, "a size that is no number"))?;
                            self.size = Some(size);
                        }
                        _ => {}
                    }
                }
            }
            // What a global header says of all is nothing that leads to bytes.
            _ => {}
        }
        Ok(())
    }
}

/// Names of what matters here are ASCII; others are nothing that is asked for.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn damaged(position: u64, how: &str) -> Error {
    Error::other(format!("the archive is damaged at byte {position}: {how}"))
}

/// `./a//b/../c` as `a/c`.
///
/// # Errors
/// The name is absolute, leads out by `..`, or is nothing.
pub fn clean(name: &str) -> Result<String> {
    let wrong = |why: &str| Error::other(format!("the name {name:?} {why}"));
    if name.starts_with('/') {
        return Err(wrong("is absolute"));
    }
    let mut words = vec![];
    for word in name.split('/') {
        match word {
            "" | "." => {}
            ".." => drop(words.pop().ok_or_else(|| wrong("leads out"))?),
            word => words.push(word),
        }
    }
    match words.is_empty() {
        true => Err(wrong("is none")),
        false => Ok(words.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("kelson-index-{}-{:p}", std::process::id(), bytes));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(vec![]);
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            match kind {
                EntryType::Link | EntryType::Symlink => {
                    header.set_size(0);
                    builder.append_link(&mut header, name, content).unwrap();
                }
                _ => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn entries_are_found_where_they_lie() {
        let long = format!("{}/layer.tar", "d".repeat(200));
        let bytes = archive(&[
            ("./manifest.json", EntryType::Regular, "[]"),
            (&long, EntryType::Regular, "long"),
            ("a/layer.tar", EntryType::Symlink, "../b/layer.tar"),
            ("c/layer.tar", EntryType::Link, "b/layer.tar"),
            ("out", EntryType::Symlink, "../../etc/passwd"),
            ("absolute", EntryType::Symlink, "/etc/passwd"),
            ("twice", EntryType::Regular, "1"),
            ("twice", EntryType::Regular, "22"),
        ]);
        let index = read(&file_of(&bytes)).unwrap();
        let content = |name: &str| match &index.members[name] {
            Member::File { offset, size } => &bytes[*offset as usize..][..*size as usize],
            other => panic!("{name} is {other:?}"),
        };
        assert_eq!(content("manifest.json"), b"[]");
        assert_eq!(content(&long), b"long");
        assert_eq!(content("twice"), b"22");
        assert_eq!(index.members["a/layer.tar"], Member::Link("b/layer.tar".into()));
        assert_eq!(index.members["c/layer.tar"], Member::Link("b/layer.tar".into()));
        assert_eq!(index.members["out"], Member::Other);
        assert_eq!(index.members["absolute"], Member::Other);
    }

    #[test]
    fn a_size_in_pax_records_counts() {
        let mut builder = tar::Builder::new(vec![]);
        builder.append_pax_extensions([("size", &b"3"[..]), ("path", b"from-pax")]).unwrap();
        let mut header = Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(0);
        header.set_cksum();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"abc");
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        let index = read(&file_of(&bytes)).unwrap();
        assert!(matches!(index.members["from-pax"], Member::File { size: 3, .. }), "{index:?}");
    }

    #[test]
    fn damage_is_told() {
        let whole = archive(&[("a", EntryType::Regular, &"x".repeat(2000)), ("b", EntryType::Regular, "y")]);
        let mut wrong_sum = whole.clone();
        wrong_sum[512 + 2048] ^= 1;
        let mut huge = Header::new_gnu();
        huge.set_path("a").unwrap();
        huge.set_size(u64::MAX - 600);
        huge.set_cksum();
        let mut long_name = Header::new_gnu();
        long_name.set_entry_type(EntryType::GNULongName);
        long_name.set_size(2 << 20);
        long_name.set_cksum();
        let long_name = [long_name.as_bytes().as_slice(), &vec![b'a'; 3 << 20]].concat();
        for (bytes, why) in [
            (&whole[..1000], "ends within an entry"),
            (&whole[..512 + 2048 + 100], "ends within a header"),
            (&wrong_sum, "checksum"),
            (huge.as_bytes(), "ends within an entry"),
            (&long_name, "too long"),
            (b"".as_slice(), "empty"),
            (&[b'x'; 600], "no tar archive"),
        ] {
            let error = read(&file_of(bytes)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}: {why}");
        }
    }

    #[test]
    fn names_are_made_clean_or_refused() {
        for (name, cleaned) in [("a", "a"), ("./a/b", "a/b"), ("a//b/./c/", "a/b/c"), ("a/../b", "b")] {
            assert_eq!(clean(name).unwrap(), cleaned);
        }
        for name in ["", ".", "/", "/a", "..", "a/../..", "a/../../b"] {
            assert!(clean(name).is_err(), "{name}");
        }
    }
}
