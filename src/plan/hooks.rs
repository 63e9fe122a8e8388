//! `hooks` of config.json (config.md#posix-platform-hooks).

use std::time::Duration;

use super::json::{List, Text};
use super::model::{Hook, Hooks};
use super::{absolute, required, spec};
use crate::error::{Error, Result};

pub fn resolve(spec: spec::Hooks<'_>) -> Result<Hooks> {
    Ok(Hooks {
        prestart: point(spec.prestart, "prestart")?,
        create_runtime: point(spec.create_runtime, "createRuntime")?,
        create_container: point(spec.create_container, "createContainer")?,
        start_container: point(spec.start_container, "startContainer")?,
        poststart: point(spec.poststart, "poststart")?,
        poststop: point(spec.poststop, "poststop")?,
    })
}

fn point(hooks: Option<List<spec::Hook<'_>>>, point: &str) -> Result<Vec<Hook>> {
    let hooks = hooks.map_or(vec![], |list| list.0);
    hooks.into_iter().enumerate().map(|(i, spec)| hook(spec, format!("hooks.{point}[{i}]"))).collect()
}

fn hook(spec: spec::Hook<'_>, property: String) -> Result<Hook> {
    let part = |name: &str| format!("{property}.{name}");
    let path = absolute(required(&spec.path, || part("path"))?, || part("path"))?;
    let timeout = match spec.timeout {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Some(Duration::from_secs(seconds)),
            _ => return Err(Error::config(part("timeout"), format!("{seconds} is not more than 0 seconds"))),
        },
    };
    let env = strings(spec.env);
    if let Some(i) = env.iter().position(|entry| entry.is_empty() || entry.starts_with('=')) {
        return Err(Error::config(part(&format!("env[{i}]")), format!("environment entry {:?} has no name", env[i])));
    }
    // config.md#posix-platform-hooks: as in environ. std::process::Command passes nothing else on.
    if let Some(i) = env.iter().position(|entry| !entry.contains('=')) {
        return Err(Error::config(part(&format!("env[{i}]")), format!("environment entry {:?} has no value", env[i]))
            .hint("NAME=VALUE, or NAME= for an empty one"));
    }
    Ok(Hook { path, args: strings(spec.args), env, timeout, property })
}

fn strings(list: Option<List<Text<'_>>>) -> Vec<String> {
    list.map_or(vec![], |list| list.0.into_iter().map(|text| text.into_cow().into_owned()).collect())
}
