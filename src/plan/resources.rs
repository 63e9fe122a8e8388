//! `linux.resources` of config.json: values as written, checked as far as no cgroup version is asked
//! (config-linux.md#control-groups).

use std::collections::BTreeSet;

use super::json::{List, Map, Text};
use super::model::{
    BlockIo, Cpu, DeviceRule, DeviceRuleKind, HugepageLimit, Memory, Network, Rdma, Resources, ThrottleDevice,
    WeightDevice,
};
use super::{required, some_text, spec};
use crate::error::{Error, Result};

pub fn resolve(spec: spec::Resources<'_>) -> Result<Resources> {
    Ok(Resources {
        devices: devices(spec.devices.as_deref().unwrap_or_default())?,
        memory: memory(&spec.memory.unwrap_or_default())?,
        cpu: cpu(spec.cpu.unwrap_or_default())?,
        pids_limit: limit(spec.pids.unwrap_or_default().limit, "linux.resources.pids.limit")?,
        block_io: block_io(&spec.block_io.unwrap_or_default())?,
        hugepage_limits: hugepage_limits(spec.hugepage_limits.as_deref().unwrap_or_default())?,
        network: network(&spec.network.unwrap_or_default())?,
        rdma: rdma(spec.rdma)?,
        unified: unified(spec.unified)?,
    })
}

/// A value that may be -1 for no limit, and not less.
fn limit(value: Option<i64>, property: &str) -> Result<Option<i64>> {
    match value {
        Some(value) if value < -1 => {
            Err(Error::config(property, format!("{value} is less than -1")).hint("-1 is unlimited"))
        }
        value => Ok(value),
    }
}

fn devices(specs: &[spec::DeviceRule<'_>]) -> Result<Vec<DeviceRule>> {
    let mut out = Vec::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let property = |name: &str| format!("linux.resources.devices[{i}].{name}");
        let kind = match spec.kind.as_deref() {
            None | Some("" | "a") => DeviceRuleKind::All,
            Some("c") => DeviceRuleKind::Char,
            Some("b") => DeviceRuleKind::Block,
            Some(other) => {
                return Err(Error::config(property("type"), format!("unknown type {other:?}")).hint("a, c or b"));
            }
        };
        let number = |value: Option<i64>, name: &str| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| Error::config(property(name), format!("{value} is no device number")).hint("-1 is any")),
        };
        let access = required(&spec.access, || property("access"))?;
        if access.is_empty() || access.contains(|c| !"rwm".contains(c)) {
            let why = format!("{:?} is not made of r, w and m", &**access);
            return Err(Error::config(property("access"), why));
        }
        out.push(DeviceRule {
            allow: *required(&spec.allow, || property("allow"))?,
            kind,
            major: number(spec.major, "major")?,
            minor: number(spec.minor, "minor")?,
            read: access.contains('r'),
            write: access.contains('w'),
            mknod: access.contains('m'),
        });
    }
    Ok(out)
}

fn memory(spec: &spec::Memory<'_>) -> Result<Memory> {
    let swappiness = match spec.swappiness {
        // -1 as Docker used to write it: unset, as in runc.
        Some(u64::MAX) => None,
        Some(value) if value > 100 => {
            return Err(Error::config("linux.resources.memory.swappiness", format!("{value} is more than 100")));
        }
        value => value,
    };
    Ok(Memory {
        limit: limit(spec.limit, "linux.resources.memory.limit")?,
        reservation: limit(spec.reservation, "linux.resources.memory.reservation")?,
        swap: limit(spec.swap, "linux.resources.memory.swap")?,
        kernel: limit(spec.kernel, "linux.resources.memory.kernel")?,
        kernel_tcp: limit(spec.kernel_tcp, "linux.resources.memory.kernelTCP")?,
        swappiness,
        disable_oom_killer: spec.disable_oom_killer,
        use_hierarchy: spec.use_hierarchy,
        check_before_update: spec.check_before_update.unwrap_or(false),
    })
}

fn cpu(spec: spec::Cpu<'_>) -> Result<Cpu> {
    let realtime = (spec.realtime_runtime, spec.realtime_period);
    if let (Some(runtime), Some(period)) = realtime
        && period > 0
        && u64::try_from(runtime).is_ok_and(|runtime| runtime > period)
    {
        let why = format!("{runtime} is more than the period of {period}");
        return Err(Error::config("linux.resources.cpu.realtimeRuntime", why));
    }
    if let Some(idle) = spec.idle
        && ![0, 1].contains(&idle)
    {
        return Err(Error::config("linux.resources.cpu.idle", format!("{idle} is neither 0 nor 1")));
    }
    let owned = |text: Option<Text<'_>>| some_text(text).map(|text| text.to_string());
    Ok(Cpu {
        shares: spec.shares,
        quota: limit(spec.quota, "linux.resources.cpu.quota")?,
        burst: spec.burst,
        period: spec.period,
        realtime_runtime: limit(spec.realtime_runtime, "linux.resources.cpu.realtimeRuntime")?,
        realtime_period: spec.realtime_period,
        cpus: owned(spec.cpus),
        mems: owned(spec.mems),
        idle: spec.idle,
    })
}

fn block_io(spec: &spec::BlockIo<'_>) -> Result<BlockIo> {
    Ok(BlockIo {
        weight: weight(spec.weight, || "linux.resources.blockIO.weight".into())?,
        leaf_weight: weight(spec.leaf_weight, || "linux.resources.blockIO.leafWeight".into())?,
        weight_device: weight_devices(spec.weight_device.as_deref().unwrap_or_default())?,
        throttle_read_bps: throttle(&spec.throttle_read_bps_device, "throttleReadBpsDevice")?,
        throttle_write_bps: throttle(&spec.throttle_write_bps_device, "throttleWriteBpsDevice")?,
        throttle_read_iops: throttle(&spec.throttle_read_iops_device, "throttleReadIOPSDevice")?,
        throttle_write_iops: throttle(&spec.throttle_write_iops_device, "throttleWriteIOPSDevice")?,
    })
}

/// Docker writes 0 for a weight that nobody asked for.
fn weight(value: Option<u16>, property: impl FnOnce() -> String) -> Result<Option<u16>> {
    match value {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => Err(Error::config(property(), format!("{weight} is not between 10 and 1000"))),
    }
}

fn device_number(value: &Option<i64>, property: impl Fn() -> String) -> Result<u32> {
    let value = *required(value, &property)?;
    u32::try_from(value).map_err(|_| Error::config(property(), format!("{value} is no device number")))
}

fn weight_devices(specs: &[spec::WeightDevice<'_>]) -> Result<Vec<WeightDevice>> {
    let mut out = Vec::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let entry = || format!("linux.resources.blockIO.weightDevice[{i}]");
        let property = |name: &str| format!("{}.{name}", entry());
        let device = WeightDevice {
            major: device_number(&spec.major, || property("major"))?,
            minor: device_number(&spec.minor, || property("minor"))?,
            weight: weight(spec.weight, || property("weight"))?,
            leaf_weight: weight(spec.leaf_weight, || property("leafWeight"))?,
        };
        // config-linux.md#block-io: one of them MUST be there.
        if device.weight.is_none() && device.leaf_weight.is_none() {
            return Err(Error::config(entry(), "needs a weight or a leafWeight"));
        }
        out.push(device);
    }
    Ok(out)
}

fn throttle(specs: &Option<List<spec::ThrottleDevice<'_>>>, name: &str) -> Result<Vec<ThrottleDevice>> {
    let mut out = vec![];
    for (i, spec) in specs.as_deref().unwrap_or_default().iter().enumerate() {
        let property = |part: &str| format!("linux.resources.blockIO.{name}[{i}].{part}");
        out.push(ThrottleDevice {
            major: device_number(&spec.major, || property("major"))?,
            minor: device_number(&spec.minor, || property("minor"))?,
            rate: *required(&spec.rate, || property("rate"))?,
        });
    }
    Ok(out)
}

fn hugepage_limits(specs: &[spec::HugepageLimit<'_>]) -> Result<Vec<HugepageLimit>> {
    let mut out: Vec<HugepageLimit> = Vec::with_capacity(specs.len());
    let mut sizes = BTreeSet::new();
    for (i, spec) in specs.iter().enumerate() {
        let property = |name: &str| format!("linux.resources.hugepageLimits[{i}].{name}");
        let size = required(&spec.page_size, || property("pageSize"))?;
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
            let why = format!("{:?} is not a size such as 64KB, 2MB or 1GB", &**size);
            return Err(Error::config(property("pageSize"), why));
        }
        if !sizes.insert(&**size) {
            return Err(Error::config(property("pageSize"), format!("{} is limited twice", &**size)));
        }
        out.push(HugepageLimit { page_size: size.to_string(), limit: *required(&spec.limit, || property("limit"))? });
    }
    Ok(out)
}

fn network(spec: &spec::Network<'_>) -> Result<Network> {
    let mut priorities = vec![];
    for (i, spec) in spec.priorities.as_deref().unwrap_or_default().iter().enumerate() {
        let property = |name: &str| format!("linux.resources.network.priorities[{i}].{name}");
        let name = required(&spec.name, || property("name"))?;
        // net_prio.ifpriomap is a line "name priority".
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::config(property("name"), format!("{:?} is no name of an interface", &**name)));
        }
        priorities.push((name.to_string(), *required(&spec.priority, || property("priority"))?));
    }
    Ok(Network { class_id: spec.class_id, priorities })
}

fn rdma(specs: Option<Map<'_, spec::Rdma<'_>>>) -> Result<Vec<Rdma>> {
    let mut out = vec![];
    for (device, spec) in specs.iter().flat_map(|map| map.iter()) {
        let property = || format!("linux.resources.rdma[{:?}]", &**device);
        // rdma.max is a line "device hca_handle=… hca_object=…".
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::config(property(), "not the name of a device"));
        }
        // config-linux.md#rdma: at least one of them MUST be there.
        if spec.hca_handles.is_none() && spec.hca_objects.is_none() {
            return Err(Error::config(property(), "needs hcaHandles or hcaObjects"));
        }
        out.push(Rdma { device: device.to_string(), hca_handles: spec.hca_handles, hca_objects: spec.hca_objects });
    }
    Ok(out)
}

fn unified(specs: Option<Map<'_, Text<'_>>>) -> Result<Vec<(String, String)>> {
    let mut out = vec![];
    for (file, value) in specs.iter().flat_map(|map| map.iter()) {
        let is_controllers_file = file.split_once('.').is_some_and(|(controller, name)| {
            !controller.is_empty() && !name.is_empty() && !file.contains(|c: char| c == '/' || c.is_whitespace())
        });
        if !is_controllers_file || file.starts_with('.') {
            return Err(Error::config(
                format!("linux.resources.unified[{:?}]", &**file),
                "not the name of a file such as memory.high",
            ));
        }
        out.push((file.to_string(), value.to_string()));
    }
    Ok(out)
}
