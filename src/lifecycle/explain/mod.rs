//! explain: what create would do with a bundle, from the first step to execve(2), in this order; nothing is done.
//!
//! What is told comes from the Plan and from what the steps themselves decide by: the cgroups' writes and device rules
//! (`cgroup::intent`), mounts and devices (`rootfs::intent`), init's own list of steps, the compiled filter. A step that
//! explain does not know is an error of a test.
//!
//! No file is opened for writing. With the systemd driver and without root the user's systemd is asked where it has its
//! cgroups.

mod command;
mod container;
mod document;
mod lacks;
mod write;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Runtime, create, image, made, steps};
use crate::cgroup::Driver;
use crate::cgroup::intent::{self, Intent};
use crate::cgroup::resources::Version;
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::image::Options;
use crate::plan::{self, Overrides, Plan};
use crate::rootfs::CgroupView;
use crate::sandbox::{init, stage};
use crate::state;
use crate::sys::mount::Calls;
use crate::timings::Process;
use document::{Explanation, Item, Step};

/// Tells of the bundle that `options` name.
///
/// # Errors
/// Those of create that the command line and the configuration are to blame for.
pub fn explain(runtime: &Runtime, options: &cli::Explain) -> Result<String> {
    let told = match &options.image {
        Some(image) => of_image(runtime, image, options)?,
        None => of_bundle(runtime, options)?,
    };
    if !options.json {
        return Ok(told.text());
    }
    told.json().map_err(|error| Error::other(error.to_string()))
}

/// What `run --image` would do, with an image that the store has.
fn of_image(runtime: &Runtime, image: &Options, options: &cli::Explain) -> Result<Explanation> {
    let id = options.id.as_deref().unwrap_or("container");
    state::check_id(id)?;
    let dir = runtime.root.join(id);
    let terminal = image::wants_terminal(image, false);
    let wanted = image::Wanted { id, dir: &dir, root: None, terminal, program: &options.program, only_looks: true };
    let configured = image::configure(runtime, image, wanted)?;
    let made: Vec<PathBuf> = configured.files.iter().map(|(name, _)| dir.join(name)).collect();
    let overrides = Overrides { is_of_image: true, ..Overrides::default() };
    of_text(runtime, &configured.text, &dir, Some(id), &overrides, &made)
}

fn of_bundle(runtime: &Runtime, options: &cli::Explain) -> Result<Explanation> {
    let bundle =
        create::real_path(&options.bundle).doing(|| format!("open the bundle {}", options.bundle.display()))?;
    let path = match &options.config {
        Some(path) => path.clone(),
        None => bundle.join("config.json"),
    };
    if let Some(id) = &options.id {
        state::check_id(id)?;
    }
    let text = plan::read_config(&path)?;
    let overrides = Overrides { overlay: options.overlay, ..Overrides::default() };
    of_text(runtime, &text, &bundle, options.id.as_deref(), &overrides, &[])
}

/// Tells of the config.json that is `text`, of the bundle at the absolute path `bundle`, as container `id`; without one the
/// bundle's directory gives the name. Files that are `made` before the container is need not be there.
pub fn of_text(
    runtime: &Runtime,
    text: &str,
    bundle: &Path,
    id: Option<&str>,
    overrides: &Overrides,
    made: &[PathBuf],
) -> Result<Explanation> {
    let host = runtime.host();
    let plan = plan::plan(text, bundle, &host, overrides)?;
    let id = id.map_or_else(|| name_of(bundle), str::to_owned);
    let intent = intent::of(
        runtime.driver,
        plan.cgroups_path.as_deref(),
        &id,
        &plan.resources,
        &plan.annotations,
        runtime.rootless,
    )?;
    let view = made::view_of_cgroups(&intent.record)?;
    let kernel = Calls::of_kernel();
    let told = Told { runtime, plan: &plan, intent: &intent, view: &view, id: &id, kernel, made };
    let lacks = lacks::of(&told)?;
    Ok(Explanation {
        bundle: bundle.display().to_string(),
        cgroup_version: if intent.record.version() == Version::V2 { "v2" } else { "v1" },
        cgroup_manager: match runtime.driver {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
            Driver::None => "disabled",
        },
        rootless: runtime.rootless,
        uid: nix::unistd::geteuid().as_raw(),
        steps: all_steps(&told)?,
        lacks,
        id,
    })
}

/// The name of the bundle's directory, or `container` where no container can be called so.
fn name_of(bundle: &Path) -> String {
    let name = bundle.file_name().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    name.filter(|name| state::check_id(name).is_ok()).unwrap_or_else(|| "container".into())
}

/// What the steps are told from.
struct Told<'t> {
    runtime: &'t Runtime,
    plan: &'t Plan,
    intent: &'t Intent,
    view: &'t CgroupView,
    id: &'t str,
    kernel: Calls,
    made: &'t [PathBuf],
}

/// Every step in order, also those with nothing to do.
fn all_steps(told: &Told<'_>) -> Result<Vec<Step>> {
    let has_stage = stage::is_needed(told.plan);
    let mut all = vec![];
    let mut add = |name, process, items: Vec<Item>| all.push(Step { name, process, items });
    for name in [steps::RESERVE, steps::LOCATE, steps::UNIT, steps::PREPARE, steps::CGROUPS, steps::CLONE] {
        add(name, Process::Kelson, command::items(told, name)?);
    }
    if has_stage {
        add(stage::ENTER, Process::Stage, command::items(told, stage::ENTER)?);
    }
    for name in [steps::COMPLETE, steps::KEEP] {
        add(name, Process::Kelson, command::items(told, name)?);
    }
    for name in init::step_names() {
        add(name, Process::Container, container::items(told, name)?.unwrap_or_default());
    }
    add(steps::SAVE, Process::Kelson, command::items(told, steps::SAVE)?);
    for name in [init::WAIT_FOR_START, init::START_HOOKS, init::EXECUTE] {
        add(name, Process::Container, container::items(told, name)?.unwrap_or_default());
    }
    for name in [steps::POSTSTART, command::POSTSTOP] {
        add(name, Process::Kelson, command::items(told, name)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
