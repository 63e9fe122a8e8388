//! Which bus: the system's, or that of the user's own systemd; and what to do where there is none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::address::Target;
use super::connection::Connection;
use crate::error::{Context, Error, Result};

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// systemd's own socket, for root, where it has no bus.
const SYSTEM_PRIVATE: &str = "/run/systemd/private";
/// There where systemd runs the host (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

impl Connection {
    /// The system's bus: DBUS_SYSTEM_BUS_ADDRESS or where it is by default; for root, systemd itself where there is no bus.
    pub fn system(deadline: Instant) -> Result<Self> {
        let doing = || "reach the system's systemd";
        if let Some(address) = variable("DBUS_SYSTEM_BUS_ADDRESS") {
            return Self::open(&address, deadline).hint(|| "DBUS_SYSTEM_BUS_ADDRESS says where").doing(doing);
        }
        let bus = Self::to(&Target::Path(SYSTEM_BUS.into()), true, deadline);
        match bus {
            Err(error) if is_absent(&error) => {
                let private = Target::Path(SYSTEM_PRIVATE.into());
                let direct = geteuid().is_root().then(|| Self::to(&private, false, deadline).ok()).flatten();
                direct.ok_or_else(|| error.hint(without_system_bus(Path::new(BOOTED).exists()))).doing(doing)
            }
            other => other.doing(doing),
        }
    }

    /// The bus of the user's own systemd: DBUS_SESSION_BUS_ADDRESS, or in XDG_RUNTIME_DIR; systemd itself where there is none.
    pub fn user(deadline: Instant) -> Result<Self> {
        let doing = || "reach the user's systemd";
        if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
            return Self::open(&address, deadline).hint(|| "DBUS_SESSION_BUS_ADDRESS says where").doing(doing);
        }
        let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) else {
            return Err(
                Error::other("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set").hint(WITHOUT_SESSION)
            )
            .doing(doing);
        };
        Self::user_in(directory, deadline).doing(doing)
    }

    fn user_in(directory: OsString, deadline: Instant) -> Result<Self> {
        let directory = PathBuf::from(directory);
        let bus = Self::to(&Target::Path(directory.join("bus")), true, deadline);
        match bus {
            Err(error) if is_absent(&error) => {
                let private = Self::to(&Target::Path(directory.join("systemd/private")), false, deadline);
                private.map_err(|_| error.hint(WITHOUT_USER_BUS))
            }
            other => other,
        }
    }
}

const WITHOUT_SESSION: &str = "a session of systemd sets XDG_RUNTIME_DIR: log in by ssh or machinectl shell in place of su or \
     sudo, or keep one without a login by loginctl enable-linger";
const WITHOUT_USER_BUS: &str = "install dbus-user-session, and log in anew or keep a session by loginctl enable-linger; or do \
     without systemd (podman: cgroup_manager = \"cgroupfs\")";

fn without_system_bus(is_booted: bool) -> &'static str {
    if is_booted {
        "install dbus, or dbus-broker"
    } else {
        "systemd does not run this host: leave out --systemd-cgroup (podman: cgroup_manager = \"cgroupfs\")"
    }
}

/// Nobody listens.
fn is_absent(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::ECONNREFUSED))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
