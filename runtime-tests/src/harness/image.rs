//! An image with the guest in it, as the archive that `docker save` writes, and a store of the test's own.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::bundle::GUEST;
use super::{Cmd, Context, Outcome, Run, eventually};

pub struct Image<'c> {
    pub context: &'c Context,
    /// The archive.
    pub file: PathBuf,
    pub store: PathBuf,
}

impl<'c> Image<'c> {
    /// An image of the base bundle's root file system, configured by `config` (`{"Cmd": …}`); without Entrypoint and Cmd the guest
    /// reports. `change` may add to the root file system before.
    pub fn new(context: &'c Context, config: Value, change: impl FnOnce(&std::path::Path) -> Outcome) -> Outcome<Self> {
        context.need_kelson("an image")?;
        let bundle = context.bundle()?;
        change(&bundle.rootfs)?;
        let dir = context.new_dir("image")?;
        let layer = dir.join("layer.tar");
        let tar = |from: &std::path::Path, to: &std::path::Path, names: &[&str]| -> Outcome<Run> {
            context.command("tar").arg("-C").arg(from).arg("-cf").arg(to).args(names).run()?.ok()
        };
        tar(&bundle.rootfs, &layer, &["."])?;
        let sum = context.command("sha256sum").arg(&layer).run()?.ok()?.out();
        let diff_id = format!("sha256:{}", sum.split(' ').next().unwrap_or_default());
        let mut own = config;
        if own.get("Cmd").is_none() && own.get("Entrypoint").is_none() {
            own["Cmd"] = json!([GUEST]);
        }
        let configuration = json!({
            "architecture": "amd64", "os": "linux", "config": own, "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        fs::write(dir.join("config.json"), configuration.to_string())?;
        let manifest = json!([{"Config": "config.json", "RepoTags": ["guest:1"], "Layers": ["layer.tar"]}]);
        fs::write(dir.join("manifest.json"), manifest.to_string())?;
        let file = context.dir.join(format!("guest{}.tar", context.next()));
        tar(&dir, &file, &["manifest.json", "config.json", "layer.tar"])?;
        Ok(Self { context, file, store: context.dir.join(format!("store{}", context.next())) })
    }

    /// An id that no other container of this run has.
    pub fn fresh_id(&self) -> String {
        format!("{}{}", self.context.id_prefix(), self.context.next())
    }

    /// `run --image` of the container `id`.
    pub fn command(&self, id: &str, options: &[&str], words: &[&str]) -> Cmd<'c> {
        let (key, value) = self.context.marker();
        let own = self.context.maker().args(["run", "--network", "none", "--name", id, "--store"]).arg(&self.store);
        own.arg("--cgroup-parent")
            .arg(&self.context.cgroup_parent)
            .args(["-e", &format!("{key}={value}")])
            .args(options)
            .arg("--image")
            .arg(&self.file)
            .arg("--")
            .args(words)
    }

    /// To its end.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Outcome<Run> {
        self.command(&self.fresh_id(), options, words).run()
    }

    /// `words` are the guest's.
    pub fn guest(&self, options: &[&str], words: &[&str]) -> Outcome<Run> {
        let all: Vec<&str> = std::iter::once(GUEST).chain(words.iter().copied()).collect();
        self.run(options, &all)
    }

    /// Runs it until the store knows the file again: one that was written just now may be written once more, and is not remembered.
    pub fn remember(&self) -> Outcome {
        eventually(self.context.patience, "the store knows the archive", || {
            self.run(&[], &[]).and_then(Run::ok).ok()?;
            (!self.entries("sources").is_empty()).then_some(())
        })
    }

    /// Names below a directory of the store, sorted.
    pub fn entries(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.store.join(name)) else { return vec![] };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    /// A container of it that sleeps, until [`Image::end`].
    pub fn start(&self, options: &[&str]) -> Outcome<String> {
        let id = self.fresh_id();
        let options: Vec<&str> = options.iter().copied().chain(["-d"]).collect();
        self.command(&id, &options, &[GUEST, "sleep"]).run()?.ok()?;
        Ok(id)
    }

    pub fn end(&self, id: &str) -> Outcome {
        self.context.runtime().args(["delete", "--force", id]).run()?.ok()?;
        Ok(())
    }

    /// Runs the guest in a container; each of its commands must succeed.
    pub fn exec(&self, id: &str, words: &[&str]) -> Outcome {
        let run = self.context.runtime().args(["exec", id, GUEST]).args(words).run()?.ok()?;
        let failed = run.lines().into_iter().find(|line| {
            line.as_object()
                .into_iter()
                .flatten()
                .any(|(_, said)| said["errno"].as_i64().is_some_and(|errno| errno != 0))
        });
        crate::check!(failed.is_none(), "{words:?}: {failed:?}");
        Ok(())
    }

    /// A command about the store: `diff`, `commit`.
    pub fn about(&self, command: &str, words: &[&str]) -> Cmd<'c> {
        self.context.runtime().arg(command).arg("--store").arg(&self.store).args(words)
    }

    /// `kelson image` with these words.
    pub fn image(&self, words: &[&str]) -> Cmd<'c> {
        self.context.runtime().args(["image", "--store"]).arg(&self.store).args(words)
    }
}
