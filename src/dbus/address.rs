//! Where a bus listens (D-Bus specification, "Server Addresses"): unix sockets only, as the only ones that tell who asks.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::sys::socket::UnixAddr;

use crate::error::{Error, Result};

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Target {
    pub fn socket_address(&self) -> nix::Result<UnixAddr> {
        match self {
            Target::Path(path) => UnixAddr::new(path),
            Target::Abstract(name) => UnixAddr::new_abstract(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Path(path) => write!(f, "{}", path.display()),
            Target::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// The unix sockets of `addresses`, which `;` separates, in their order; ways that are none are left out.
///
/// # Errors
/// None of them is a unix socket that one can connect to.
pub fn parse(addresses: &str) -> Result<Vec<Target>> {
    let targets: Vec<Target> = addresses.split(';').filter_map(target).collect();
    if targets.is_empty() {
        return Err(Error::other(format!("no unix socket in the address {addresses:?}"))
            .hint("it has the form unix:path=/run/dbus/system_bus_socket"));
    }
    Ok(targets)
}

fn target(address: &str) -> Option<Target> {
    let keys = address.strip_prefix("unix:")?;
    keys.split(',').find_map(|pair| match pair.split_once('=')? {
        ("path", value) => Some(Target::Path(OsString::from_vec(unescaped(value)?).into())),
        ("abstract", value) => Some(Target::Abstract(unescaped(value)?)),
        _ => None,
    })
}

/// `%` and two hexadecimal digits stand for a byte.
fn unescaped(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push((high * 16 + low) as u8);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_specification_has_them() {
        let path = |path: &str| Target::Path(path.into());
        for (address, targets) in [
            ("unix:path=/run/user/1000/bus", vec![path("/run/user/1000/bus")]),
            ("unix:path=/a,guid=00ff", vec![path("/a")]),
            ("unix:guid=00ff,path=/a%20b%2c", vec![path("/a b,")]),
            ("unix:abstract=/tmp/dbus-x", vec![Target::Abstract(b"/tmp/dbus-x".to_vec())]),
            ("tcp:host=localhost;unix:path=/b;unix:abstract=c;", vec![path("/b"), Target::Abstract(b"c".to_vec())]),
        ] {
            assert_eq!(parse(address).unwrap(), targets, "{address}");
        }
    }

    #[test]
    fn an_address_without_a_unix_socket_is_refused() {
        for address in
            ["", "autolaunch:", "tcp:host=localhost,port=1", "unix:", "unix:path", "unix:path=%4", "unix:path=%zz"]
        {
            let error = parse(address).unwrap_err().to_string();
            assert!(error.contains("no unix socket in the address"), "{address}: {error}");
        }
    }
}
