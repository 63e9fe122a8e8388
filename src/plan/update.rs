//! What `update` asks for: the resources object of a file and the options of the command line.

use super::json::{self, Text};
use super::model::Resources;
use super::{resources, spec};
use crate::error::{Error, Result};

/// Limits that the options of `update` name, in the units of `linux.resources`; `None` is an option that was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitOptions {
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub memory_swap: Option<i64>,
    pub cpu_share: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    pub cpu_burst: Option<u64>,
    pub cpu_idle: Option<i64>,
    pub cpu_rt_period: Option<u64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<i64>,
    pub blkio_weight: Option<u16>,
}

impl LimitOptions {
    /// `error`, naming the option in place of the property that it gave the value of.
    pub fn name_in(&self, error: Error) -> Error {
        error.rename_property(|property| {
            let property = property.strip_prefix("linux.resources.")?;
            let given = self.given().into_iter().find(|(_, own, is_given)| *is_given && *own == property);
            given.map(|(option, ..)| option.into())
        })
    }

    /// Each option, its property below `linux.resources`, and whether it was given.
    fn given(&self) -> [(&'static str, &'static str, bool); 14] {
        [
            ("--memory", "memory.limit", self.memory.is_some()),
            ("--memory-reservation", "memory.reservation", self.memory_reservation.is_some()),
            ("--memory-swap", "memory.swap", self.memory_swap.is_some()),
            ("--cpu-share", "cpu.shares", self.cpu_share.is_some()),
            ("--cpu-quota", "cpu.quota", self.cpu_quota.is_some()),
            ("--cpu-period", "cpu.period", self.cpu_period.is_some()),
            ("--cpu-burst", "cpu.burst", self.cpu_burst.is_some()),
            ("--cpu-idle", "cpu.idle", self.cpu_idle.is_some()),
            ("--cpu-rt-period", "cpu.realtimePeriod", self.cpu_rt_period.is_some()),
            ("--cpu-rt-runtime", "cpu.realtimeRuntime", self.cpu_rt_runtime.is_some()),
            ("--cpuset-cpus", "cpu.cpus", self.cpuset_cpus.is_some()),
            ("--cpuset-mems", "cpu.mems", self.cpuset_mems.is_some()),
            ("--pids-limit", "pids.limit", self.pids_limit.is_some()),
            ("--blkio-weight", "blockIO.weight", self.blkio_weight.is_some()),
        ]
    }
}

/// The limits that `update` asks for: `text` is a resources object, and an option wins over its property. Device rules in
/// it are left out: engines send those of the config again, and others (GPU plugins) may have changed them since.
///
/// # Errors
/// As for `linux.resources` of a config.json.
pub fn resources_of_update(text: Option<&str>, options: &LimitOptions) -> Result<Resources> {
    let mut spec: spec::Resources<'_> = match text {
        Some(text) => json::read(text, "the resources object")
            .map_err(|error| error.rename_property(|property| Some(format!("linux.resources.{property}"))))?,
        None => spec::Resources::default(),
    };
    if spec.devices.take().is_some_and(|rules| !rules.is_empty()) {
        log::debug!("linux.resources.devices: update leaves device rules as they are");
    }
    let memory = spec.memory.get_or_insert_default();
    replace(&mut memory.limit, options.memory);
    replace(&mut memory.reservation, options.memory_reservation);
    replace(&mut memory.swap, options.memory_swap);
    let cpu = spec.cpu.get_or_insert_default();
    replace(&mut cpu.shares, options.cpu_share);
    replace(&mut cpu.quota, options.cpu_quota);
    replace(&mut cpu.period, options.cpu_period);
    replace(&mut cpu.burst, options.cpu_burst);
    replace(&mut cpu.idle, options.cpu_idle);
    replace(&mut cpu.realtime_period, options.cpu_rt_period);
    replace(&mut cpu.realtime_runtime, options.cpu_rt_runtime);
    replace(&mut cpu.cpus, options.cpuset_cpus.as_deref().map(Text::from));
    replace(&mut cpu.mems, options.cpuset_mems.as_deref().map(Text::from));
    replace(&mut spec.pids.get_or_insert_default().limit, options.pids_limit);
    replace(&mut spec.block_io.get_or_insert_default().weight, options.blkio_weight);
    resources::resolve(spec)
}

fn replace<T>(value: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *value = given;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_win_over_the_file() {
        let text = r#"{"memory": {"limit": 100, "swap": 300, "checkBeforeUpdate": true}, "cpu": {"cpus": "0", "idle": 1},
                       "pids": {"limit": 5}}"#;
        let options = LimitOptions {
            memory: Some(200),
            cpuset_cpus: Some("1".into()),
            cpu_quota: Some(-1),
            blkio_weight: Some(500),
            ..LimitOptions::default()
        };
        let found = resources_of_update(Some(text), &options).unwrap();
        assert_eq!((found.memory.limit, found.memory.swap), (Some(200), Some(300)));
        assert!(found.memory.check_before_update);
        assert_eq!((found.cpu.cpus.as_deref(), found.cpu.idle, found.cpu.quota), (Some("1"), Some(1), Some(-1)));
        assert_eq!((found.pids_limit, found.block_io.weight), (Some(5), Some(500)));
        let nothing = resources_of_update(None, &LimitOptions::default()).unwrap();
        assert_eq!((nothing.memory.limit, nothing.pids_limit, nothing.cpu.cpus), (None, None, None));
    }

    #[test]
    fn device_rules_are_left_out() {
        let text = r#"{"devices": [{"allow": false, "access": "rwm"}], "pids": {"limit": 5}}"#;
        assert!(resources_of_update(Some(text), &LimitOptions::default()).unwrap().devices.is_empty());
    }

    /// Every option that is in [`LimitOptions`], with a value that is wrong, where one can be.
    #[test]
    fn errors_name_the_option_or_the_property() {
        let none = LimitOptions::default;
        let wrong = Some(-7);
        for (options, named) in [
            (LimitOptions { memory: wrong, ..none() }, "--memory"),
            (LimitOptions { memory_reservation: wrong, ..none() }, "--memory-reservation"),
            (LimitOptions { memory_swap: wrong, ..none() }, "--memory-swap"),
            (LimitOptions { cpu_quota: wrong, ..none() }, "--cpu-quota"),
            (LimitOptions { cpu_idle: wrong, ..none() }, "--cpu-idle"),
            (LimitOptions { cpu_rt_runtime: wrong, ..none() }, "--cpu-rt-runtime"),
            (LimitOptions { pids_limit: wrong, ..none() }, "--pids-limit"),
            (LimitOptions { blkio_weight: Some(7), ..none() }, "--blkio-weight"),
        ] {
            let error = options.name_in(resources_of_update(None, &options).unwrap_err());
            assert_eq!(error.property(), Some(named));
        }
        for (text, message) in [
            (r#"{"memory": {"limit": "1M"}}"#, "linux.resources.memory.limit: invalid type"),
            (r#"{"cpu": {"idle": 2}}"#, "linux.resources.cpu.idle: 2 is neither 0 nor 1"),
            ("{", "the resources object is truncated"),
            ("[]", "the resources object is not valid"),
        ] {
            let error = resources_of_update(Some(text), &none()).unwrap_err();
            let error = LimitOptions { memory: None, ..none() }.name_in(error).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
