//! Which bus: the system's, or that of the user's own systemd; and what to do where there is none.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::address::Target;
use super::connection::{Connection, Patience};
use crate::error::{Context, Error, Result};

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// systemd's own socket, for root, where it has no bus.
const SYSTEM_PRIVATE: &str = "/run/systemd/private";
/// There where systemd runs the host (sd_booted(3)).
pub const BOOTED: &str = "/run/systemd/system";

const NOT_BOOTED: &str =
    "systemd does not run this host: leave out --systemd-cgroup (podman: cgroup_manager = \"cgroupfs\")";
const WITHOUT_SYSTEM_BUS: &str = "install dbus or dbus-broker, and see that it runs";
const WITHOUT_SESSION: &str = "a login by ssh or machinectl shell sets XDG_RUNTIME_DIR, su and sudo do not; without a login, \
     loginctl enable-linger USER keeps a session, with XDG_RUNTIME_DIR=/run/user/UID";
const WITHOUT_USER_BUS: &str = "install dbus-user-session and log in anew, without a login keep a session by \
     loginctl enable-linger USER; or do without systemd (podman: cgroup_manager = \"cgroupfs\")";

impl Connection {
    /// The system's bus: DBUS_SYSTEM_BUS_ADDRESS or where it is by default; for root, systemd itself where there is no bus.
    pub fn system(patience: Patience<'_>) -> Result<Self> {
        let doing = || "reach the system's systemd";
        if let Some(address) = variable("DBUS_SYSTEM_BUS_ADDRESS") {
            return Self::open(&address, patience).hint(|| "DBUS_SYSTEM_BUS_ADDRESS says where").doing(doing);
        }
        let private = geteuid().is_root().then_some(SYSTEM_PRIVATE.into());
        let way_out = || if Path::new(BOOTED).exists() { WITHOUT_SYSTEM_BUS } else { NOT_BOOTED };
        Self::first(SYSTEM_BUS.into(), private, way_out, patience).doing(doing)
    }

    /// The bus of the user's own systemd: DBUS_SESSION_BUS_ADDRESS, or in XDG_RUNTIME_DIR; systemd itself where there is none.
    pub fn user(patience: Patience<'_>) -> Result<Self> {
        let doing = || "reach the user's systemd";
        if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
            return Self::open(&address, patience).hint(|| "DBUS_SESSION_BUS_ADDRESS says where").doing(doing);
        }
        let Some(directory) = variable("XDG_RUNTIME_DIR").map(PathBuf::from) else {
            return Err(
                Error::other("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set").hint(WITHOUT_SESSION)
            )
            .doing(doing);
        };
        let private = Some(directory.join("systemd/private"));
        Self::first(directory.join("bus"), private, || WITHOUT_USER_BUS, patience).doing(doing)
    }

    /// The bus at `bus`, or systemd itself at `private` where nobody listens there; `way_out` is for where there is neither.
    pub(super) fn first(
        bus: PathBuf,
        private: Option<PathBuf>,
        way_out: impl FnOnce() -> &'static str,
        patience: Patience<'_>,
    ) -> Result<Self> {
        let absent = match Self::to(&Target::Path(bus), true, patience) {
            Err(error) if is_absent(&error) => error,
            other => return other,
        };
        match private.map(|private| Self::to(&Target::Path(private), false, patience)) {
            Some(Err(error)) if is_absent(&error) => Err(absent.hint(way_out())),
            Some(other) => other,
            None => Err(absent.hint(way_out())),
        }
    }
}

/// Nobody listens.
fn is_absent(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::ECONNREFUSED))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
