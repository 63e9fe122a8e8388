//! `root` of config.json and the overlay on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;

use super::model::{IdMaps, Namespaces, Overlay, Root};
use super::process::unknown;
use super::{Overrides, mounts, required, some_text, spec};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::mount::stat_at;

pub const LOWER: &str = "org.kelson.overlay.lower";
pub const UPPER: &str = "org.kelson.overlay.upper";
const WORK: &str = "org.kelson.overlay.work";
/// `true`: the layers are seen through `linux.uidMappings` and `linux.gidMappings`.
pub const IDMAP: &str = "org.kelson.overlay.idmap";
pub const FUSE: &str = "org.kelson.overlay.fuse";
/// Digest of the configuration of the image that the layers are of: for `commit`.
pub const IMAGE: &str = "org.kelson.image";
/// Keys that start so are ours: one that we do not know is a mistake.
const OURS: &str = "org.kelson.";

pub fn resolve(
    root: Option<spec::Root<'_>>,
    linux: &spec::Linux<'_>,
    annotations: &BTreeMap<String, String>,
    namespaces: &Namespaces,
    id_maps: &IdMaps,
    bundle: &Path,
    overrides: &Overrides,
) -> Result<Root> {
    let root = root.ok_or_else(|| Error::config("root", "required property is missing"))?;
    let root_path = || "root.path".to_string();
    let path = required(&some_text(root.path), root_path)?.to_string();
    let path = bundle.join(path);
    directory(&path).property(root_path)?;
    let propagation = match linux.rootfs_propagation.as_deref() {
        None | Some("") => None,
        Some(name) => {
            let known = || mounts::mount_options().filter(|option| mounts::propagation(option).is_some());
            let found = mounts::propagation(name);
            Some(found.ok_or_else(|| unknown("linux.rootfsPropagation".into(), "propagation", name, known()))?)
        }
    };
    if let Some(key) = annotations.keys().find(|key| key.starts_with(OURS) && !overrides.is_of_image) {
        check_no_engines(&path, annotations).property(|| property(key))?;
    }
    let overlay = overlay(&path, annotations, overrides)?;
    if overlay.is_some() && !namespaces.mount.is_own() {
        // Without one it would be mounted on the host, where nothing removes it.
        return Err(Error::config("linux.namespaces", "an overlay needs a mount namespace of the container"));
    }
    if overlay.as_ref().is_some_and(|overlay| overlay.id_mapped) && id_maps.uid.is_empty() {
        return Err(Error::config(property(IDMAP), "there is nothing to map with")
            .hint("a user namespace in linux.namespaces, linux.uidMappings and linux.gidMappings"));
    }
    Ok(Root { path, readonly: root.readonly.unwrap_or(false), propagation, overlay })
}

/// By these podman and CRI-O say that a configuration is theirs, whatever their storage is.
const OF_ENGINES: [&str; 2] = ["io.container.manager", "io.kubernetes.cri-o.Annotations"];

/// Refuses an engine's configuration, whose root is mounted. It may have annotations that the image brought (podman passes them on),
/// and directories of the host are not an image's to choose.
fn check_no_engines(root: &Path, annotations: &BTreeMap<String, String>) -> Result<()> {
    let looked_at = root.canonicalize().map_err(Error::from).and_then(|root| Ok(stat_at(AT_FDCWD, &root)?));
    let is_mounted = looked_at.doing(|| format!("look at {root:?}"))?.is_mount_root == Some(true);
    if !is_mounted && OF_ENGINES.iter().all(|key| !annotations.contains_key(*key)) {
        return Ok(());
    }
    let cause = "an engine made root.path, which is mounted, or this configuration: the annotation may be its image's";
    Err(Error::new(Kind::Config, cause)
        .hint("--overlay needs no annotation; a bundle of your own has a root.path that is not mounted"))
}

fn overlay(root: &Path, annotations: &BTreeMap<String, String>, overrides: &Overrides) -> Result<Option<Overlay>> {
    for key in annotations.keys().filter(|key| key.starts_with(OURS)) {
        let known = [LOWER, UPPER, WORK, IDMAP, FUSE, IMAGE];
        if !known.contains(&key.as_str()) {
            return Err(unknown(property(key), "annotation", key, known.into_iter()));
        }
    }
    let is_by_fuse = match annotations.get(FUSE).map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Error::config(property(FUSE), format!("{other:?} is neither true nor false"))),
    };
    let lower = annotations.get(LOWER);
    let upper = match (annotations.get(UPPER), annotations.get(WORK)) {
        (None, None) => None,
        (Some(upper), Some(work)) => Some((layer(upper, || property(UPPER))?, layer(work, || property(WORK))?)),
        (Some(_), None) => return Err(Error::config(property(UPPER), format!("needs {WORK} beside it"))),
        (None, Some(_)) => return Err(Error::config(property(WORK), format!("needs {UPPER} beside it"))),
    };
    if let Some((upper, work)) = &upper
        && (upper.starts_with(work) || work.starts_with(upper))
    {
        // overlayfs refuses it (Documentation/filesystems/overlayfs.rst).
        return Err(Error::config(property(WORK), "the upper and the work directory must not be inside each other"));
    }
    let lower = match lower {
        Some(list) => {
            let list: Vec<String> = serde_json::from_str(list)
                .map_err(|error| Error::config(property(LOWER), format!("not a JSON array of strings: {error}")))?;
            if list.is_empty() {
                return Err(Error::config(property(LOWER), "an overlay needs a lower directory"));
            }
            let layers = list.iter().enumerate();
            layers.map(|(i, path)| layer(path, || format!("{}[{i}]", property(LOWER)))).collect::<Result<_>>()?
        }
        None if upper.is_some() || overrides.overlay => vec![root.to_path_buf()],
        None if annotations.contains_key(IDMAP) => {
            return Err(Error::config(property(IDMAP), format!("there are no layers: it needs {LOWER} beside it")));
        }
        None if is_by_fuse => {
            return Err(Error::config(property(FUSE), "needs an overlay: --overlay, or lower layers"));
        }
        None => return Ok(None),
    };
    let id_mapped = match annotations.get(IDMAP).map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Error::config(property(IDMAP), format!("{other:?} is neither true nor false"))),
    };
    if id_mapped && upper.as_ref().is_some_and(|(upper, work)| upper.parent() != work.parent()) {
        // overlayfs wants them on one mount, which is made of the directory that both are in.
        return Err(Error::config(property(WORK), format!("with {IDMAP} it must be beside the upper directory")));
    }
    if id_mapped && is_by_fuse {
        return Err(Error::config(property(FUSE), format!("with {IDMAP} the kernel alone makes the overlay")));
    }
    Ok(Some(Overlay { lower, upper, id_mapped, is_by_fuse }))
}

fn property(key: &str) -> String {
    format!("annotations[{key:?}]")
}

fn layer(path: &str, property: impl Fn() -> String) -> Result<PathBuf> {
    if path.contains('\0') {
        return Err(Error::config(property(), "the path contains a NUL character"));
    }
    let path = super::absolute(path, &property)?;
    directory(&path).property(property)?;
    Ok(path)
}

fn directory(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).doing(|| format!("look at {path:?}"))?;
    if !metadata.is_dir() {
        return Err(Error::new(Kind::Config, format!("{path:?} is not a directory")));
    }
    Ok(())
}
