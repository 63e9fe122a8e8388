//! `mounts` of config.json: options to attributes, propagation and data (config.md#linux-mount-options).

use std::path::{Path, PathBuf};

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};

use super::json::suggestion;
use super::linux::{check_id_map, id_map_pair};
use super::model::{
    FlagChange, IdMapping, IdMaps, Mount, MountAttributes, MountIdMap, MountKind, Namespaces, Propagation,
    PropagationKind,
};
use super::{parse_id, required, spec};
use crate::error::{Context, Error, Result};

/// More mounts than the kernel allows in a namespace (fs.mount-max is 100,000) can only be a mistake.
const MAX_MOUNTS: usize = 100_000;

/// What an option means.
#[derive(Clone, Copy)]
enum Meaning {
    Nothing,
    Bind,
    RecursiveBind,
    Remount,
    CopyUp,
    IdMap {
        recursive: bool,
    },
    Propagation(PropagationKind, Recursive),
    /// A MOUNT_ATTR_* bit goes on or off.
    Attribute(u64, On, Recursive),
    /// One of the three values of MOUNT_ATTR__ATIME is chosen, or no longer.
    AccessTime(u64, On, Recursive),
    /// An MS_* bit of the superblock goes on or off.
    Superblock(u64, On),
}

type On = bool;
type Recursive = bool;

use Meaning::{AccessTime, Attribute, Superblock};
use PropagationKind::{Private, Shared, Slave, Unbindable};

/// Every option of the spec that is no data of a file system.
const OPTIONS: [(&str, Meaning); 62] = [
    ("async", Superblock(libc::MS_SYNCHRONOUS, false)),
    ("atime", AccessTime(MOUNT_ATTR_NOATIME, false, false)),
    ("bind", Meaning::Bind),
    ("defaults", Meaning::Nothing),
    ("dev", Attribute(MOUNT_ATTR_NODEV, false, false)),
    ("diratime", Attribute(MOUNT_ATTR_NODIRATIME, false, false)),
    ("dirsync", Superblock(libc::MS_DIRSYNC, true)),
    ("exec", Attribute(MOUNT_ATTR_NOEXEC, false, false)),
    ("idmap", Meaning::IdMap { recursive: false }),
    ("iversion", Superblock(libc::MS_I_VERSION, true)),
    ("lazytime", Superblock(libc::MS_LAZYTIME, true)),
    ("loud", Superblock(libc::MS_SILENT, false)),
    ("mand", Superblock(libc::MS_MANDLOCK, true)),
    ("noatime", AccessTime(MOUNT_ATTR_NOATIME, true, false)),
    ("nodev", Attribute(MOUNT_ATTR_NODEV, true, false)),
    ("nodiratime", Attribute(MOUNT_ATTR_NODIRATIME, true, false)),
    ("noexec", Attribute(MOUNT_ATTR_NOEXEC, true, false)),
    ("noiversion", Superblock(libc::MS_I_VERSION, false)),
    ("nolazytime", Superblock(libc::MS_LAZYTIME, false)),
    ("nomand", Superblock(libc::MS_MANDLOCK, false)),
    ("norelatime", AccessTime(MOUNT_ATTR_RELATIME, false, false)),
    ("nostrictatime", AccessTime(MOUNT_ATTR_STRICTATIME, false, false)),
    ("nosuid", Attribute(MOUNT_ATTR_NOSUID, true, false)),
    ("nosymfollow", Attribute(MOUNT_ATTR_NOSYMFOLLOW, true, false)),
    ("private", Meaning::Propagation(Private, false)),
    ("ratime", AccessTime(MOUNT_ATTR_NOATIME, false, true)),
    ("rbind", Meaning::RecursiveBind),
    ("rdev", Attribute(MOUNT_ATTR_NODEV, false, true)),
    ("rdiratime", Attribute(MOUNT_ATTR_NODIRATIME, false, true)),
    ("relatime", AccessTime(MOUNT_ATTR_RELATIME, true, false)),
    ("remount", Meaning::Remount),
    ("rexec", Attribute(MOUNT_ATTR_NOEXEC, false, true)),
    ("ridmap", Meaning::IdMap { recursive: true }),
    ("rnoatime", AccessTime(MOUNT_ATTR_NOATIME, true, true)),
    ("rnodev", Attribute(MOUNT_ATTR_NODEV, true, true)),
    ("rnodiratime", Attribute(MOUNT_ATTR_NODIRATIME, true, true)),
    ("rnoexec", Attribute(MOUNT_ATTR_NOEXEC, true, true)),
    ("rnorelatime", AccessTime(MOUNT_ATTR_RELATIME, false, true)),
    ("rnostrictatime", AccessTime(MOUNT_ATTR_STRICTATIME, false, true)),
    ("rnosuid", Attribute(MOUNT_ATTR_NOSUID, true, true)),
    ("rnosymfollow", Attribute(MOUNT_ATTR_NOSYMFOLLOW, true, true)),
    ("ro", Attribute(MOUNT_ATTR_RDONLY, true, false)),
    ("rprivate", Meaning::Propagation(Private, true)),
    ("rrelatime", AccessTime(MOUNT_ATTR_RELATIME, true, true)),
    ("rro", Attribute(MOUNT_ATTR_RDONLY, true, true)),
    ("rrw", Attribute(MOUNT_ATTR_RDONLY, false, true)),
    ("rshared", Meaning::Propagation(Shared, true)),
    ("rslave", Meaning::Propagation(Slave, true)),
    ("rstrictatime", AccessTime(MOUNT_ATTR_STRICTATIME, true, true)),
    ("rsuid", Attribute(MOUNT_ATTR_NOSUID, false, true)),
    ("rsymfollow", Attribute(MOUNT_ATTR_NOSYMFOLLOW, false, true)),
    ("runbindable", Meaning::Propagation(Unbindable, true)),
    ("rw", Attribute(MOUNT_ATTR_RDONLY, false, false)),
    ("shared", Meaning::Propagation(Shared, false)),
    ("silent", Superblock(libc::MS_SILENT, true)),
    ("slave", Meaning::Propagation(Slave, false)),
    ("strictatime", AccessTime(MOUNT_ATTR_STRICTATIME, true, false)),
    ("suid", Attribute(MOUNT_ATTR_NOSUID, false, false)),
    ("symfollow", Attribute(MOUNT_ATTR_NOSYMFOLLOW, false, false)),
    ("sync", Superblock(libc::MS_SYNCHRONOUS, true)),
    ("tmpcopyup", Meaning::CopyUp),
    ("unbindable", Meaning::Propagation(Unbindable, false)),
];

/// The names of all mount options that are no data of a file system.
pub fn mount_options() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

/// `linux.rootfsPropagation` or the mount option `name`.
pub fn propagation(name: &str) -> Option<Propagation> {
    match meaning(name) {
        Some(Meaning::Propagation(kind, recursive)) => Some(Propagation { kind, recursive }),
        _ => None,
    }
}

/// The options that stand for `change` of a mount's attributes, or of those of all mounts below it too.
pub fn attribute_options(change: FlagChange, recursive: bool) -> Vec<&'static str> {
    let has_access_time = (change.set | change.clear) & MOUNT_ATTR__ATIME != 0;
    let stands = |meaning: &Meaning| match meaning {
        Attribute(bit, true, of) => *of == recursive && change.set & bit != 0,
        Attribute(bit, false, of) => *of == recursive && change.clear & bit != 0,
        AccessTime(value, true, of) => *of == recursive && has_access_time && change.set & MOUNT_ATTR__ATIME == *value,
        _ => false,
    };
    OPTIONS.iter().filter(|(_, meaning)| stands(meaning)).map(|(name, _)| *name).collect()
}

/// The options that stand for `change` of superblock flags.
pub fn superblock_options(change: FlagChange) -> Vec<&'static str> {
    let stands = |meaning: &Meaning| match meaning {
        Superblock(bit, true) => change.set & bit != 0,
        Superblock(bit, false) => change.clear & bit != 0,
        _ => false,
    };
    OPTIONS.iter().filter(|(_, meaning)| stands(meaning)).map(|(name, _)| *name).collect()
}

/// The option that stands for `propagation`.
pub fn propagation_option(propagation: Propagation) -> &'static str {
    let stands = |meaning: &Meaning| {
        matches!(meaning, Meaning::Propagation(kind, recursive)
            if (*kind, *recursive) == (propagation.kind, propagation.recursive))
    };
    OPTIONS.iter().find(|(_, meaning)| stands(meaning)).map_or("", |(name, _)| name)
}

fn meaning(option: &str) -> Option<Meaning> {
    OPTIONS.binary_search_by_key(&option, |(name, _)| name).ok().map(|at| OPTIONS[at].1)
}

pub fn resolve(
    specs: &[spec::Mount<'_>],
    bundle: &Path,
    namespaces: &Namespaces,
    container_maps: &IdMaps,
) -> Result<Vec<Mount>> {
    if specs.len() > MAX_MOUNTS {
        return Err(Error::config("mounts", format!("{} mounts, the kernel takes {MAX_MOUNTS}", specs.len())));
    }
    specs.iter().enumerate().map(|(index, spec)| mount(index, spec, bundle, namespaces, container_maps)).collect()
}

fn mount(
    index: usize,
    spec: &spec::Mount<'_>,
    bundle: &Path,
    namespaces: &Namespaces,
    container_maps: &IdMaps,
) -> Result<Mount> {
    let property = |name: &str| format!("mounts[{index}].{name}");
    let destination = destination(spec, || property("destination"))?;
    let options = Options::parse(spec, |i| property(&format!("options[{i}]")), container_maps)?;
    let kind = options.kind(spec, bundle, property)?;

    let uid = spec.uid_mappings.as_deref().unwrap_or_default();
    let gid = spec.gid_mappings.as_deref().unwrap_or_default();
    let explicit = id_map_pair(uid, gid, &format!("mounts[{index}]"))?;
    let id_map = match (options.id_map, explicit.uid.is_empty()) {
        (None, true) => None,
        // Mappings alone mean idmap, as in runc.
        (id_map, false) => {
            if id_map.as_ref().is_some_and(|id_map| id_map.maps.is_some()) {
                return Err(Error::config(property("uidMappings"), "the option idmap= has mappings already"));
            }
            Some(MountIdMap { recursive: id_map.is_some_and(|id_map| id_map.recursive), maps: Some(explicit) })
        }
        (Some(id_map), true) => {
            if id_map.maps.is_none() && !namespaces.user.is_own() {
                return Err(Error::config(property("options"), "idmap without mappings needs a user namespace")
                    .hint("add uidMappings and gidMappings to the mount"));
            }
            Some(id_map)
        }
    };
    if id_map.is_some() && !matches!(kind, MountKind::Bind { .. }) {
        let part = if uid.is_empty() { "options" } else { "uidMappings" };
        return Err(
            Error::config(property(part), "only a bind mount can have id mappings").hint("option bind or rbind")
        );
    }
    if options.copy_up && !matches!(&kind, MountKind::FileSystem { fs_type, .. } if fs_type == "tmpfs") {
        return Err(Error::config(property("options"), "only a tmpfs can have the option tmpcopyup"));
    }
    Ok(Mount {
        index,
        destination,
        kind,
        attributes: options.attributes,
        superblock: options.superblock,
        propagation: options.propagation,
        copy_up: options.copy_up,
        id_map,
    })
}

fn destination(spec: &spec::Mount<'_>, property: impl Fn() -> String) -> Result<PathBuf> {
    let destination = required(&spec.destination, &property)?;
    if destination.is_empty() {
        return Err(Error::config(property(), "the destination is empty"));
    }
    if !destination.starts_with('/') {
        // Deprecated, but runtimes MUST still take it (config.md#mounts).
        log::warn!("{}: {:?} is not an absolute path, taken below \"/\"", property(), &**destination);
    }
    Ok(Path::new("/").join(&**destination))
}

/// The options of one mount, later ones having changed what earlier ones said.
#[derive(Default)]
struct Options {
    bind: Option<Recursive>,
    remount: bool,
    copy_up: bool,
    id_map: Option<MountIdMap>,
    propagation: Vec<Propagation>,
    attributes: MountAttributes,
    superblock: FlagChange,
    /// What is no option of ours: for the file system, in order.
    data: Vec<String>,
    /// Position in `options` of the first of them that is no `key=value`.
    first_word: usize,
}

impl Options {
    fn parse(spec: &spec::Mount<'_>, property: impl Fn(usize) -> String, container_maps: &IdMaps) -> Result<Self> {
        let mut out = Options::default();
        for (i, option) in spec.options.as_deref().unwrap_or_default().iter().enumerate() {
            match meaning(option) {
                Some(meaning) => out.apply(meaning),
                None => match id_map_option(option) {
                    Some((recursive, maps)) => {
                        let maps = parse_id_maps(maps, container_maps).property(|| property(i))?;
                        check_id_map(&maps.uid, &property(i))?;
                        check_id_map(&maps.gid, &property(i))?;
                        out.id_map = Some(MountIdMap { recursive, maps: Some(maps) });
                    }
                    // mount(8) writes nothing for it either.
                    None if option.is_empty() => {}
                    None => {
                        if !option.contains('=') && out.data.iter().all(|earlier| earlier.contains('=')) {
                            out.first_word = i;
                        }
                        out.data.push(option.to_string());
                    }
                },
            }
        }
        Ok(out)
    }

    fn apply(&mut self, meaning: Meaning) {
        match meaning {
            Meaning::Nothing => {}
            // rbind stays recursive: with mount(8) too the order of the two is of no matter.
            Meaning::Bind => self.bind = Some(self.bind.unwrap_or(false)),
            Meaning::RecursiveBind => self.bind = Some(true),
            Meaning::Remount => self.remount = true,
            Meaning::CopyUp => self.copy_up = true,
            Meaning::IdMap { recursive } => self.id_map = Some(MountIdMap { recursive, maps: None }),
            Meaning::Propagation(kind, recursive) => self.propagation.push(Propagation { kind, recursive }),
            Meaning::Superblock(bit, on) => self.superblock.change(bit, on),
            Meaning::Attribute(bit, on, recursive) => {
                self.forget_top(bit, recursive);
                self.attributes.of(recursive).change(bit, on);
            }
            Meaning::AccessTime(value, on, recursive) => {
                self.forget_top(MOUNT_ATTR__ATIME, recursive);
                let change = self.attributes.of(recursive);
                let chosen = change.clear & MOUNT_ATTR__ATIME != 0;
                // "norelatime" after "noatime" takes nothing back: it is not relatime that was chosen.
                if !on && chosen && change.set & MOUNT_ATTR__ATIME != value {
                    return;
                }
                change.set &= !MOUNT_ATTR__ATIME;
                change.set |= if on { value } else { MOUNT_ATTR_RELATIME };
                change.clear |= MOUNT_ATTR__ATIME;
            }
        }
    }

    /// A recursive option covers the top mount too: what was said about it before no longer holds. So who applies the
    /// attributes sets the recursive ones first, then the top mount's.
    fn forget_top(&mut self, bits: u64, recursive: Recursive) {
        if recursive {
            self.attributes.top.set &= !bits;
            self.attributes.top.clear &= !bits;
        }
    }

    fn kind(&self, spec: &spec::Mount<'_>, bundle: &Path, property: impl Fn(&str) -> String) -> Result<MountKind> {
        let fs_type = spec.fs_type.as_deref().unwrap_or_default();
        let source = spec.source.as_deref().unwrap_or_default();
        if self.remount {
            if self.bind.is_some() {
                self.refuse_data(property, "a bind mount")?;
            }
            return Ok(MountKind::Remount { data: self.data.clone() });
        }
        if let Some(recursive) = self.bind {
            self.refuse_data(&property, "a bind mount")?;
            if self.superblock.set & !libc::MS_SILENT != 0 {
                let options = "sync, dirsync, lazytime, iversion and mand are options of a file system";
                log::warn!("{}: {options}, left out of a bind mount", property("options"));
            }
            if source.is_empty() {
                return Err(Error::config(property("source"), "a bind mount needs a source"));
            }
            // config.md#mounts: relative to the bundle.
            return Ok(MountKind::Bind { source: bundle.join(source), recursive });
        }
        match fs_type {
            "" | "none" | "bind" => {
                // "bnid" is more likely a misspelt option than data.
                self.refuse_data(&property, "a mount without a file system type")?;
                let why = if fs_type.is_empty() {
                    "required property is missing".into()
                } else {
                    format!("{fs_type:?} is no file system")
                };
                Err(Error::config(property("type"), why).hint("for a bind mount add option bind or rbind"))
            }
            "cgroup" | "cgroup2" => Ok(MountKind::Cgroup { data: self.data.clone() }),
            _ => Ok(MountKind::FileSystem {
                fs_type: fs_type.to_string(),
                source: if source.is_empty() { "none".to_string() } else { source.to_string() },
                data: self.data.clone(),
            }),
        }
    }

    /// What is no option that is known cannot be data here. `key=value` is what a file system would take: as mount(8) does,
    /// a mount without a new one leaves it out, and says so.
    fn refuse_data(&self, property: impl Fn(&str) -> String, what: &str) -> Result<()> {
        let Some(option) = self.data.iter().find(|option| !option.contains('=')) else {
            if !self.data.is_empty() {
                let options = self.data.join(",");
                log::warn!("{}: {what} takes no data for a file system: {options} left out", property("options"));
            }
            return Ok(());
        };
        let property = property(&format!("options[{}]", self.first_word));
        let error = Error::config(property, format!("unknown option {option:?}"));
        Err(match suggestion(option, mount_options()) {
            Some(meant) => error.hint(format!("did you mean {meant:?}?")),
            None => error.hint(format!("{what} takes no data for a file system")),
        })
    }
}

impl MountAttributes {
    fn of(&mut self, recursive: Recursive) -> &mut FlagChange {
        if recursive { &mut self.recursive } else { &mut self.top }
    }
}

impl FlagChange {
    fn change(&mut self, bit: u64, on: On) {
        self.set = if on { self.set | bit } else { self.set & !bit };
        self.clear = if on { self.clear & !bit } else { self.clear | bit };
    }
}

/// `idmap=MAPS` or `ridmap=MAPS`, an extension of crun that podman passes on.
fn id_map_option(option: &str) -> Option<(Recursive, &str)> {
    let (name, maps) = option.split_once('=')?;
    match name {
        "idmap" => Some((false, maps)),
        "ridmap" => Some((true, maps)),
        _ => None,
    }
}

/// Maps such as `uids=0-1-10#10-11-10;gids=0-100-10`: id in the file system, id on the host, how many. With `@` before it
/// the second one is an id of the container, and what the host calls it is looked up in the container's maps.
fn parse_id_maps(text: &str, container_maps: &IdMaps) -> Result<IdMaps> {
    let wrong = |why: String| Error::new(crate::error::Kind::Config, why);
    let mut maps = IdMaps::default();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (list, container_map, triples) = match part.split_once('=') {
            Some(("uids", triples)) => (&mut maps.uid, &container_maps.uid, triples),
            Some(("gids", triples)) => (&mut maps.gid, &container_maps.gid, triples),
            _ => return Err(wrong(format!("{part:?} is neither uids=… nor gids=…"))),
        };
        for triple in triples.split('#') {
            let (relative, numbers) = match triple.strip_prefix('@') {
                Some(numbers) => (true, numbers),
                None => (false, triple),
            };
            let ids: Vec<u32> =
                numbers.split('-').map(parse_id).collect::<Result<_>>().map_err(|_| malformed(triple))?;
            let [container, host, size] = ids[..] else { return Err(malformed(triple)) };
            let mapping = IdMapping { container, host, size };
            if relative {
                list.extend(on_the_host(mapping, container_map)?);
            } else {
                list.push(mapping);
            }
        }
    }
    // What is left out is mapped as in the container, as by a plain idmap.
    for (list, container_map) in [(&mut maps.uid, &container_maps.uid), (&mut maps.gid, &container_maps.gid)] {
        if list.is_empty() {
            list.clone_from(container_map);
        }
        if list.is_empty() {
            return Err(wrong(format!("{text:?} needs both uids= and gids=")));
        }
    }
    Ok(maps)
}

fn malformed(triple: &str) -> Error {
    Error::new(crate::error::Kind::Config, format!("{triple:?} is not of the form ID-ID-SIZE"))
}

/// `mapping`, whose host ids are the container's, with the ids that the host has for them; in pieces where these are.
fn on_the_host(mapping: IdMapping, container_map: &[IdMapping]) -> Result<Vec<IdMapping>> {
    let mut out = vec![];
    let mut done = 0;
    while done < mapping.size {
        let id = mapping.host.checked_add(done);
        let found = id.and_then(|id| {
            container_map.iter().find_map(|m| id.checked_sub(m.container).filter(|o| *o < m.size).map(|o| (m, o)))
        });
        let Some((around, offset)) = found else {
            return Err(Error::new(
                crate::error::Kind::Config,
                format!("@: id {} of the container is not mapped", u64::from(mapping.host) + u64::from(done)),
            )
            .hint("@ needs linux.uidMappings and linux.gidMappings"));
        };
        let size = (mapping.size - done).min(around.size - offset);
        let container = mapping.container.checked_add(done).ok_or_else(|| malformed("@"))?;
        out.push(IdMapping { container, host: around.host + offset, size });
        done += size;
    }
    Ok(out)
}
