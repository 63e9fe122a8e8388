//! Annotations `org.systemd.property.NAME`: properties of the unit, in GVariant's text form. Pure.

use std::collections::BTreeMap;

use super::gvariant;
use super::properties::Property;
use crate::dbus::Value;
use crate::error::{Context, Error, Kind, Result};

const PREFIX: &str = "org.systemd.property.";

/// All dependencies that systemd knows (its unit_dependency_table, and two of earlier versions) but After and Before, which only
/// order. They act on other units, as `…MountsFor` do, or let the container's end be another unit's: before systemd 245 a transient
/// unit may have any of them. `Exec…` and `…Action` run programs or act on the host (CVE-2024-3154). Whoever may write an
/// annotation is not for that reason root of the host.
const DEPENDENCIES: [&str; 31] = [
    "BindsTo",
    "BoundBy",
    "ConflictedBy",
    "Conflicts",
    "ConsistsOf",
    "InSlice",
    "JoinsNamespaceOf",
    "OnFailure",
    "OnFailureOf",
    "OnSuccess",
    "OnSuccessOf",
    "PartOf",
    "PropagatesReloadTo",
    "PropagatesStopTo",
    "ReferencedBy",
    "References",
    "ReloadPropagatedFrom",
    "RequiredBy",
    "Requires",
    "RequiresOverridable",
    "Requisite",
    "RequisiteOf",
    "RequisiteOverridable",
    "SliceOf",
    "StopPropagatedFrom",
    "TriggeredBy",
    "Triggers",
    "UpheldBy",
    "Upholds",
    "WantedBy",
    "Wants",
];

/// Programs that run in the kernel.
const ATTACHES_PROGRAMS: [&str; 3] = ["BPFProgram", "IPEgressFilterPath", "IPIngressFilterPath"];

/// What this runtime says of the unit, and counts on.
const OWN: [&str; 9] = [
    "ControlGroup",
    "Delegate",
    "DelegateSubgroup",
    "Description",
    // linux.resources.devices are: on v1 a list of devices would be added to these.
    "DeviceAllow",
    "DevicePolicy",
    "PIDFDs",
    "PIDs",
    "Slice",
];

/// The properties that annotations ask for.
///
/// # Errors
/// A name or a value that is none, or a property that is not the annotation's to set.
pub fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let asked = annotations.iter().filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, value)));
    asked.map(|(key, name, value)| property(name, value).property(|| format!("annotations[{key:?}]"))).collect()
}

fn property(name: &str, text: &str) -> Result<Property> {
    let refuse = |cause: String| Err(Error::new(Kind::Config, cause));
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return refuse(format!("{name:?} is not the name of a property")).hint(|| "three letters or more");
    }
    let acts = name.starts_with("Exec") || ["Action", "MountsFor"].iter().any(|end| name.ends_with(end));
    if acts || DEPENDENCIES.contains(&name) {
        return refuse(format!("{name} could run a program on the host or act on other units")).hint(|| "leave it out");
    }
    if ATTACHES_PROGRAMS.contains(&name) {
        return refuse(format!("{name} attaches a program to the container's cgroup")).hint(|| "leave it out");
    }
    if OWN.contains(&name) {
        return refuse(format!("{name} is the runtime's own to set"))
            .hint(|| "linux.cgroupsPath names slice and unit, linux.resources.devices the devices");
    }
    let value = gvariant::parse(text)?;
    // systemd documents durations in seconds and takes them in microseconds: TimeoutStopSec is TimeoutStopUSec (as in runc).
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase())) {
        Some(stem) => Ok(Property::new(format!("{stem}USec"), Value::U64(microseconds(&value)?))),
        None => Ok(Property::new(name, value)),
    }
}

/// The annotation whose property systemd names in what it said.
pub fn blamed<'a>(said: &str, annotations: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let words: Vec<&str> = said.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let asked = annotations.keys().filter_map(|key| Some((key, key.strip_prefix(PREFIX)?)));
    let mut named = asked.filter(|(_, name)| words.contains(name) || words.contains(&&*name.replace("Sec", "USec")));
    named.next().map(|(key, _)| key.as_str())
}

/// A number of seconds in microseconds.
fn microseconds(seconds: &Value) -> Result<u64> {
    const PER_SECOND: u64 = 1_000_000;
    let whole = match *seconds {
        Value::Byte(n) => Some(n.into()),
        Value::U16(n) => Some(n.into()),
        Value::U32(n) => Some(n.into()),
        Value::U64(n) => Some(n),
        Value::I16(n) => u64::try_from(n).ok(),
        Value::I32(n) => u64::try_from(n).ok(),
        Value::I64(n) => u64::try_from(n).ok(),
        Value::Double(n) if n >= 0.0 && n < (u64::MAX / PER_SECOND) as f64 => {
            return Ok((n * PER_SECOND as f64) as u64);
        }
        _ => None,
    };
    let micros = whole.and_then(|whole| whole.checked_mul(PER_SECOND));
    micros.ok_or_else(|| Error::new(Kind::Config, "is not a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Property> {
        let annotations = [(format!("{PREFIX}{name}"), value.to_owned()), ("other".into(), "x".into())].into();
        properties(&annotations).map(|mut found| {
            assert_eq!(found.len(), 1);
            found.remove(0)
        })
    }

    #[test]
    fn values_are_typed_and_seconds_become_microseconds() {
        for (name, text, expected_name, value) in [
            ("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", Value::U64(123_456_789)),
            ("TimeoutStopSec", "uint64 7", "TimeoutStopUSec", Value::U64(7_000_000)),
            ("TimeoutStopSec", "7", "TimeoutStopUSec", Value::U64(7_000_000)),
            ("RuntimeMaxSec", "1.5", "RuntimeMaxUSec", Value::U64(1_500_000)),
            ("KillSignal", "int32 37", "KillSignal", Value::I32(37)),
            ("CollectMode", "'inactive-or-failed'", "CollectMode", Value::str("inactive-or-failed")),
            ("SendSIGKILL", "false", "SendSIGKILL", Value::Bool(false)),
            ("After", "['a.service', 'b.service']", "After", Value::strings(["a.service", "b.service"])),
            ("Before", "['a.service']", "Before", Value::strings(["a.service"])),
            ("OnFailureJobMode", "'fail'", "OnFailureJobMode", Value::str("fail")),
            ("MemoryHigh", "uint64 1048576", "MemoryHigh", Value::U64(1 << 20)),
            // Only after a small letter, as in runc.
            ("XSec", "7", "XSec", Value::I32(7)),
            ("XUSec", "uint64 7", "XUSec", Value::U64(7)),
        ] {
            let property = one(name, text).unwrap();
            assert_eq!((property.name.as_str(), property.value), (expected_name, value), "{name}={text}");
        }
    }

    #[test]
    fn what_would_run_a_program_is_refused() {
        let programs = "ExecStart ExecStopPost SuccessAction FailureAction JobTimeoutAction";
        let dependencies = "Requires Requisite Wants BindsTo PartOf Upholds Conflicts OnSuccess OnFailure PropagatesReloadTo \
                            PropagatesStopTo JoinsNamespaceOf References Triggers InSlice RequiresOverridable \
                            RequisiteOverridable RequiresMountsFor WantsMountsFor";
        let reversed = "RequiredBy RequisiteOf WantedBy BoundBy ConsistsOf UpheldBy ConflictedBy OnSuccessOf OnFailureOf \
                        ReloadPropagatedFrom StopPropagatedFrom ReferencedBy TriggeredBy SliceOf";
        for name in [programs, dependencies, reversed].iter().flat_map(|names| names.split_ascii_whitespace()) {
            let error = one(name, "'x'").unwrap_err().to_string();
            assert!(error.contains("could run a program"), "{name}: {error}");
            assert!(error.contains(&format!("annotations[\"org.systemd.property.{name}\"]")), "{error}");
        }
        assert!(one("BPFProgram", "[('device', '/x')]").unwrap_err().to_string().contains("attaches a program"));
        for name in ["Slice", "PIDs", "Delegate", "Description", "DeviceAllow", "DevicePolicy"] {
            assert!(one(name, "'x'").unwrap_err().to_string().contains("runtime's own"), "{name}");
        }
    }

    #[test]
    fn a_name_or_a_value_that_is_none_is_refused() {
        for (name, text) in [
            ("ab", "1"),
            ("Ab1", "1"),
            ("A.b", "1"),
            ("", "1"),
            ("KillSignal", ""),
            ("KillSignal", "int32 x"),
            ("TimeoutStopSec", "'x'"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
        ] {
            assert!(one(name, text).is_err(), "{name}={text}");
        }
        assert_eq!(properties(&BTreeMap::new()).unwrap(), []);
    }

    #[test]
    fn who_asked_for_what_systemd_refuses_is_named() {
        let keys = ["other", "org.systemd.property.CollectMode", "org.systemd.property.TimeoutStopSec"];
        let annotations = keys.map(|key| (key.to_owned(), String::new())).into();
        for (said, expected) in [
            ("Cannot set property CollectMode, or unknown property.", Some(keys[1])),
            ("Cannot set property TimeoutStopUSec, or unknown property.", Some(keys[2])),
            ("Cannot set property MemoryMax, or unknown property.", None),
            ("", None),
        ] {
            assert_eq!(blamed(said, &annotations), expected, "{said}");
        }
    }
}
