//! [init] The five sets of capabilities(7), as masks: bit n for capability n.

use crate::error::{Context, Result};
use crate::plan::{CAPABILITIES, Capabilities};
use crate::sys::process;

/// The capabilities of a mask: number and name.
fn each(mask: u64) -> impl Iterator<Item = (u8, &'static str)> {
    (0..).zip(CAPABILITIES).filter(move |(number, _)| mask & (1 << number) != 0)
}

/// The names of the capabilities of a mask.
pub fn names(mask: u64) -> Vec<&'static str> {
    each(mask).map(|(_, name)| name).collect()
}

/// Takes everything but `wanted` out of the bounding set. Needs CAP_SETPCAP, so it comes before the user changes.
pub fn drop_bounding(wanted: &Capabilities, last_capability: u8) -> Result<()> {
    // A kernel that knows more than this program has numbers without a name here.
    for number in (0..=last_capability).filter(|number| wanted.bounding & (1 << number) == 0) {
        process::drop_bounding(number)
            .property(|| "process.capabilities.bounding")
            .doing(|| format!("drop capability {number}"))?;
    }
    Ok(())
}

/// What of `wanted` this process can have: the kernel refuses a whole set for one capability that is not there.
///
/// Gives the reduced sets and the names of what is missing.
pub fn available(wanted: Capabilities, held: u64) -> (Capabilities, Vec<&'static str>) {
    let asked = wanted.permitted | wanted.effective | wanted.inheritable;
    let missing = each(asked & !held).map(|(_, name)| name);
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

/// With CAP_SYS_ADMIN as well, if it is held.
pub fn with_admin(wanted: Capabilities, held: u64) -> Capabilities {
    /// Its number in linux/capability.h.
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let kept = CAP_SYS_ADMIN & held;
    Capabilities { permitted: wanted.permitted | kept, effective: wanted.effective | kept, ..wanted }
}

/// Sets the other four sets, exactly as given: nothing inheritable that is not asked for (CVE-2022-29162).
pub fn apply(wanted: &Capabilities) -> Result<()> {
    process::set_capabilities(wanted.effective, wanted.permitted, wanted.inheritable)
        .property(|| "process.capabilities")
        .doing(|| "set capabilities")?;
    // A change of user cleared the ambient set; the caller's own may still be there without one.
    process::clear_ambient().doing(|| "clear ambient capabilities")?;
    for (number, name) in each(wanted.ambient) {
        process::raise_ambient(number).property(|| "process.capabilities.ambient").doing(|| format!("raise {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_held_is_left_out_and_named() {
        let (chown, kill) = (1 << 0, 1 << 5);
        let both = kill | chown;
        let wanted =
            Capabilities { bounding: both, permitted: both, effective: both, inheritable: chown, ambient: both };
        let (reduced, missing) = available(wanted, kill);
        assert_eq!(missing, ["CAP_CHOWN"]);
        let expected = Capabilities { bounding: both, permitted: kill, effective: kill, inheritable: 0, ambient: 0 };
        assert_eq!(reduced, expected);
    }

    #[test]
    fn admin_is_kept_only_where_it_is_held() {
        let admin = 1 << CAPABILITIES.iter().position(|name| *name == "CAP_SYS_ADMIN").unwrap();
        let kill = Capabilities { bounding: 1 << 5, permitted: 1 << 5, effective: 1 << 5, ..Default::default() };
        assert_eq!(with_admin(kill, 1 << 5), kill);
        let kept = Capabilities { permitted: admin | 1 << 5, effective: admin | 1 << 5, ..kill };
        assert_eq!(with_admin(kill, u64::MAX), kept);
    }
}
