//! [parent] `run --image` and `bundle`: an image of the store as configuration of a container.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid, gethostname};

use super::{Runtime, is_in_user_namespace, kept, stores};
use crate::error::{Context, Error, Result};
use crate::image::config::{self, Bundle, IdMaps, ImageConfig, Place};
use crate::image::kept::Kept;
use crate::image::network::Helper;
use crate::image::options::{Network, Pull, Source, UserNs};
use crate::image::range::Claim;
use crate::image::store::FORMAT;
use crate::image::{Image, Options, Origin, Store, helper, ids, range};
use crate::sys::mount;

/// The store of `--userns keep-id` in an ordinary user's own.
const KEEP_ID: &str = "keep-id";

/// A configuration whose layers nobody removes from the store while this lives.
pub struct Configured {
    /// config.json
    pub text: String,
    /// Contents of the files that the configuration mounts from the container's directory.
    pub files: Vec<(&'static str, String)>,
    pub store: Store,
    lock: Option<Flock<File>>,
    /// The layer that is kept.
    kept: Option<(kept::Place, Kept)>,
    /// Ids that no other container has, and those of the container's root among them.
    claim: Option<Claim>,
    owner: Option<(u32, u32)>,
}

/// The container that is wanted.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub id: &'a str,
    /// Its directory, which need not be there yet.
    pub dir: &'a Path,
    /// `root.path` of a bundle; `None` where there is none but the layers.
    pub root: Option<&'a Path>,
    pub terminal: bool,
    /// argv[0], beside which other programs of Kelson are.
    pub program: &'a OsStr,
    /// Nothing is fetched and nothing made.
    pub only_looks: bool,
}

/// The configuration of that container.
///
/// # Errors
/// There is no such image, or a flag asks for what is not there.
pub fn configure(runtime: &Runtime, options: &Options, wanted: Wanted<'_>) -> Result<Configured> {
    let Wanted { id, dir, root, terminal, program, only_looks } = wanted;
    let doing = || format!("image {:?}", options.image);
    let mut store = Store::locate(options.store.as_deref(), runtime.rootless)?;
    if options.userns == UserNs::KeepId && runtime.rootless {
        if !only_looks && ids::of_caller().uid.len() < 2 {
            return Err(no_other_ids());
        }
        // Who is root in it is another user outside: its layers are unpacked with other ids.
        store.root.push(KEEP_ID);
    }
    let (image, lock) = find(options, &store, program, only_looks).doing(doing)?;
    let layers = store.stack(&image);
    let top = layers.first().cloned().ok_or_else(|| Error::other("the image has no layers: there is nothing in it"));
    let top = top.doing(doing)?;
    let blob = store.blob(image.config);
    let text = fs::read(&blob).doing(|| format!("read the image's configuration {}", blob.display()))?;
    let own: ImageConfig = serde_json::from_slice(&text)
        .map_err(|error| Error::other(format!("the image's configuration is broken: {error}")))
        .doing(doing)?;
    let is_cgroup_v2 = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let network = options.network.clone().unwrap_or_else(Network::of_this_host);
    if !only_looks {
        make_volumes(options, &store, &layers, program)?;
    }
    let (ids, claim) = id_maps(options, runtime, &store, only_looks)?;
    let kept = kept_layer(options, &store, id, &top, only_looks)?;
    let host_name = gethostname().doing(|| "ask for the host's name")?;
    let place = Place {
        id,
        host_name: &host_name.to_string_lossy(),
        dir,
        root: root.map_or_else(|| top.clone(), Path::to_path_buf),
        upper: kept.as_ref().map(|kept| (kept.upper(), kept.work())),
        layers: layers.clone(),
        store: store.clone(),
        image: image.config,
        id_mapped: claim.is_some(),
        rootless: runtime.rootless,
        in_user_ns: is_in_user_namespace(),
        user: (options.userns == UserNs::KeepId).then(|| format!("{}:{}", geteuid(), getegid())),
        ids,
        terminal,
        is_cgroup_v2,
        limits_swap: limits_swap(is_cgroup_v2),
        has_rro: mount::has_set_attributes(),
        init: if options.init { Some(helper::find("kelson-init", program)?) } else { None },
        helper: match network.needs_making() {
            // The state of a bundle's container is kept by whoever runs it.
            true => Some(Helper {
                program: helper::find("kelson-image", program)?,
                state: if root.is_some() { dir } else { &runtime.root }.to_owned(),
            }),
            false => None,
        },
        network,
    };
    let Bundle { config, files } = config::bundle(&own, options, &place)?;
    let kept = kept.map(|place| {
        let mount_points = mount_points(&config);
        (place, Kept { format: FORMAT, image: image.config, lower: layers, mount_points, user: None })
    });
    let owner = claim.as_ref().and_then(|_| root_of(place.ids.as_ref()?));
    Ok(Configured { text: config.to_string(), files, store, lock, kept, claim, owner })
}

/// The image, and the lock that keeps it; what the store lacks is brought into it.
fn find(options: &Options, store: &Store, program: &OsStr, only_looks: bool) -> Result<(Image, Option<Flock<File>>)> {
    let origin = Origin::parse(&options.image)?;
    let lock = hold(store)?;
    let is_fixed = only_looks || options.pull != Pull::Always || !matches!(origin, Origin::Name(_));
    if is_fixed && let Some(image) = store.find(&origin, options.platform.as_deref())? {
        return Ok((image, lock));
    }
    if only_looks {
        return Err(Error::other("the store does not have it, and nothing is fetched or imported to explain it")
            .hint("kelson image pull or import brings it there"));
    }
    if options.pull == Pull::Never && matches!(origin, Origin::Name(_) | Origin::Id(_)) {
        return Err(Error::other("the store has no such image")
            .hint("--pull missing fetches it; kelson image list tells what is there"));
    }
    // Who adds an image may have to wait for who removes one.
    drop(lock);
    let image = helper::ensure(options, store, program)?;
    let lock = hold(store)?;
    let is_there = |layer: &crate::image::store::Layer| store.layer(layer.diff_id).is_dir();
    match image.layers.iter().all(is_there) {
        true => Ok((image, lock)),
        false => Err(Error::other("the image was removed as soon as it was there").hint("try again")),
    }
}

/// Keeps what is in the store there; `None` if there is no store yet.
fn hold(store: &Store) -> Result<Option<Flock<File>>> {
    let Some(file) = stores::open_lock(store)? else { return Ok(None) };
    let lock = Flock::lock(file, FlockArg::LockShared);
    lock.map(Some).map_err(|(_, errno)| errno).doing(|| format!("lock the store {}", store.root.display()))
}

/// Makes the named volumes that are not there. The store's lock is held: nobody removes one before the container has it.
fn make_volumes(options: &Options, store: &Store, layers: &[PathBuf], program: &OsStr) -> Result<()> {
    for mount in &options.mounts {
        if let Source::Volume { name, is_filled } = &mount.source
            && !store.volume(name).is_dir()
        {
            helper::make_volume(store, program, name, layers, is_filled.then_some(mount.target.as_str()))?;
        }
    }
    Ok(())
}

/// Where what the container writes is kept, if it is.
fn kept_layer(options: &Options, store: &Store, id: &str, top: &Path, only_looks: bool) -> Result<Option<kept::Place>> {
    let dir = match (&options.upper, options.keep_layer) {
        (Some(_), true) => {
            return Err(Error::usage("--upper and --keep-layer: one of them says where the layer is kept"));
        }
        (Some(dir), false) => std::path::absolute(dir).doing(|| format!("--upper {}", dir.display()))?,
        (None, true) => store.kept(id),
        (None, false) => return Ok(None),
    };
    match only_looks {
        true => Ok(Some(kept::Place::at(dir))),
        false => kept::make(dir, top).map(Some),
    }
}

/// Where the runtime mounts something, below the root.
pub fn mount_points(config: &serde_json::Value) -> BTreeSet<PathBuf> {
    let mounts = config["mounts"].as_array();
    let destinations = mounts.into_iter().flatten().filter_map(|mount| mount["destination"].as_str());
    destinations.filter_map(|path| Some(Path::new(path).strip_prefix("/").ok()?.components().collect())).collect()
}

/// The ids of the container: those with which the layers were unpacked, or ones of its own with which they will be seen.
fn id_maps(
    options: &Options,
    runtime: &Runtime,
    store: &Store,
    only_looks: bool,
) -> Result<(Option<IdMaps>, Option<Claim>)> {
    if !config::needs_user_namespace(options, runtime.rootless)? {
        return Ok((None, None));
    }
    if !runtime.rootless {
        let claim = if only_looks { Claim::look()? } else { Claim::take()? };
        return Ok((Some(claim.maps()), Some(claim)));
    }
    match store.ownership()? {
        Some(ownership) if ownership.squash && options.userns == UserNs::KeepId => Err(no_other_ids()),
        Some(ownership) if !ownership.uid.is_empty() => {
            Ok((Some(IdMaps { uid: ownership.uid, gid: ownership.gid }), None))
        }
        _ => {
            Err(Error::other(format!("the layers in {} were not unpacked for an ordinary user", store.root.display()))
                .hint("use a store of your own: --store DIR"))
        }
    }
}

/// The container is set up by its root, who is somebody else then.
fn no_other_ids() -> Error {
    Error::other("--userns keep-id: there are no ids for root and the others")
        .hint("subordinate ids in /etc/subuid and /etc/subgid, newuidmap(1), and a store that was made with them")
}

/// User and group on the host who are root in it.
fn root_of(ids: &IdMaps) -> Option<(u32, u32)> {
    let root = |map: &[(u32, u32, u32)]| map.iter().find(|(container, ..)| *container == 0).map(|(_, host, _)| *host);
    Some((root(&ids.uid)?, root(&ids.gid)?))
}

/// Whether a limit of swap can be set: memory.swap.max, or memsw of v1, which a kernel may be booted without.
fn limits_swap(is_cgroup_v2: bool) -> bool {
    match is_cgroup_v2 {
        true => Path::new("/proc/swaps").exists(),
        false => Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
    }
}

impl Configured {
    /// Where the store will know of the container with the directory `dir`.
    pub fn link(&self, dir: &Path) -> Result<PathBuf> {
        stores::link_of(&self.store, dir)
    }

    /// Where it will be told which ids the container with the directory `dir` has, if they are its own.
    pub fn ids_link(&self, dir: &Path) -> Result<Option<PathBuf>> {
        self.claim.as_ref().map(|_| range::link_of(dir)).transpose()
    }

    /// Makes that link, the one of [`Configured::ids_link`], and the files; from then on the layers are the container's to keep.
    /// Its config.json must be in `dir`: who removes layers reads it.
    /// `user`: the directory of the container that writes to the layer which is kept, if it is made now.
    pub fn settle(&mut self, dir: &Path, link: &Path, user: Option<&Path>) -> Result<()> {
        if let (Some(link), Some(claim)) = (self.ids_link(dir)?, self.claim.take()) {
            claim.settle(dir, &link)?;
        }
        if let Some((place, kept)) = &self.kept {
            kept::claim(&place.dir, Some(kept), user)?;
        }
        stores::tell(dir, link)?;
        self.lock = None;
        self.write_files(dir)
    }

    /// Makes the files that the configuration mounts.
    pub fn write_files(&self, dir: &Path) -> Result<()> {
        for (name, contents) in &self.files {
            let path = dir.join(name);
            let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
            let written = made.and_then(|mut file| {
                file.write_all(contents.as_bytes())?;
                // The container's root may change them.
                self.owner.map_or(Ok(()), |(uid, gid)| fchown(&file, Some(uid), Some(gid)))
            });
            written.doing(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Whether a container in the foreground gets a terminal: where it is asked for, or the caller has one.
pub fn wants_terminal(options: &Options, detach: bool) -> bool {
    let has_terminal = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    options.tty.unwrap_or_else(|| !detach && options.interactive != Some(false) && has_terminal())
}
