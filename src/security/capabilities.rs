//! [init] The five sets of capabilities(7).

use caps::{CapSet, Capability};

use crate::error::{Context, Error, Result};
use crate::plan::Capabilities;
use crate::sys::process;

fn from_caps(error: caps::errors::CapsError) -> Error {
    Error::other(error.to_string())
}

/// Takes everything but `wanted` out of the bounding set. Needs CAP_SETPCAP, so it comes before the user changes.
pub fn drop_bounding(wanted: &Capabilities, last_capability: u8) -> Result<()> {
    for capability in caps::all() {
        let is_known = capability.index() <= last_capability;
        if is_known && wanted.bounding & capability.bitmask() == 0 {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(from_caps)
                .property(|| "process.capabilities.bounding")
                .doing(|| format!("drop {capability}"))?;
        }
    }
    Ok(())
}

/// What of `wanted` this process can have: the kernel refuses a whole set for one capability that is not there.
///
/// Gives the reduced sets and the names of what is missing.
pub fn available(wanted: Capabilities, held: u64) -> (Capabilities, Vec<String>) {
    let asked = wanted.permitted | wanted.effective | wanted.inheritable;
    let missing = caps::all().into_iter().filter(|c| asked & !held & c.bitmask() != 0).map(|c| c.to_string());
    let permitted = wanted.permitted & held;
    let inheritable = wanted.inheritable & held;
    let reduced = Capabilities {
        bounding: wanted.bounding,
        permitted,
        // capset(2): effective must be permitted; ambient must be permitted and inheritable (capabilities(7)).
        effective: wanted.effective & permitted,
        inheritable,
        ambient: wanted.ambient & permitted & inheritable,
    };
    (reduced, missing.collect())
}

/// Sets the other four sets, exactly as given: nothing inheritable that is not asked for (CVE-2022-29162).
pub fn apply(wanted: &Capabilities) -> Result<()> {
    process::set_capabilities(wanted.effective, wanted.permitted, wanted.inheritable)
        .property(|| "process.capabilities")
        .doing(|| "set capabilities")?;
    // A change of user cleared the ambient set; the caller's own may still be there without one.
    caps::clear(None, CapSet::Ambient).map_err(from_caps).doing(|| "clear ambient capabilities")?;
    for capability in caps::all() {
        if wanted.ambient & capability.bitmask() != 0 {
            raise_ambient(capability)?;
        }
    }
    Ok(())
}

fn raise_ambient(capability: Capability) -> Result<()> {
    caps::raise(None, CapSet::Ambient, capability)
        .map_err(from_caps)
        .property(|| "process.capabilities.ambient")
        .doing(|| format!("raise {capability}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_held_is_left_out_and_named() {
        let kill = Capability::CAP_KILL.bitmask();
        let chown = Capability::CAP_CHOWN.bitmask();
        let both = kill | chown;
        let wanted =
            Capabilities { bounding: both, permitted: both, effective: both, inheritable: chown, ambient: both };
        let (reduced, missing) = available(wanted, kill);
        assert_eq!(missing, ["CAP_CHOWN"]);
        let expected = Capabilities { bounding: both, permitted: kill, effective: kill, inheritable: 0, ambient: 0 };
        assert_eq!(reduced, expected);
    }
}
