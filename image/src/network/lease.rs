//! Addresses of netavark's networks, which leaves it to its caller to choose them: `LEASES/NETWORK/ADDRESS` is a file with the
//! container's name. They are of the host's boot, as the networks are.
//!
//! podman chooses from the lowest address on, in a database of its own; here it is from the highest one down, so that a network
//! of podman's can be used as well.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

const LEASES: &str = "/run/kelson-leases";

/// The addresses of one subnet that containers may have, as numbers.
#[derive(Debug, PartialEq)]
struct Pool {
    is_v6: bool,
    first: u128,
    last: u128,
    gateway: Option<u128>,
}

/// One address of each of the network's subnets for `container`.
///
/// # Errors
/// A subnet is none, or all its addresses are taken; the container may have some of them then.
pub fn take(network: &Value, name: &str, container: &str) -> Result<Vec<IpAddr>> {
    let pools = network["subnets"].as_array().into_iter().flatten().map(pool).collect::<Result<Vec<_>>>()?;
    let (dir, _lock) = lock(name)?;
    pools.iter().map(|pool| pool.take(&dir, container)).collect()
}

/// Gives all addresses of `container` back.
pub fn give(name: &str, container: &str) -> Result<()> {
    let (dir, _lock) = lock(name)?;
    let given = give_in(&dir, container).doing(|| format!("give back the leases in {}", dir.display()));
    // Those with other leases stay.
    let _ = fs::remove_dir(&dir);
    let _ = fs::remove_dir(LEASES);
    given
}

fn give_in(dir: &Path, container: &str) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if fs::read_to_string(&path)? == container {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The directory of a network's leases, which nobody else works on meanwhile.
fn lock(name: &str) -> Result<(PathBuf, Flock<File>)> {
    let dir = Path::new(LEASES).join(name);
    let doing = || format!("lock the leases in {}", dir.display());
    loop {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).doing(doing)?;
        let file = match File::open(&dir) {
            // Its last lease was given back.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.doing(doing)?,
        };
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).doing(doing)?;
        let is_there = |now: fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            lock.metadata().is_ok_and(|locked| (locked.dev(), locked.ino()) == (now.dev(), now.ino()))
        };
        if fs::metadata(&dir).is_ok_and(is_there) {
            return Ok((dir, lock));
        }
    }
}

/// A subnet as netavark's configuration has it.
fn pool(subnet: &Value) -> Result<Pool> {
    let parsed = || {
        let (base, prefix) = subnet["subnet"].as_str()?.split_once('/')?;
        let base: IpAddr = base.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        let (is_v6, width) = (base.is_ipv6(), if base.is_ipv6() { 128 } else { 32 });
        let host = 1u128.checked_shl(width - prefix.min(width)).map_or(u128::MAX, |size| size - 1);
        if prefix > width || host < 3 {
            return None;
        }
        let base = number(base) & !host;
        let address = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok()).map(number);
        let range = &subnet["lease_range"];
        let within = |number: u128| number.clamp(base + 1, base + host - 1);
        Some(Pool {
            is_v6,
            first: within(address(&range["start_ip"]).unwrap_or(base + 1)),
            last: within(address(&range["end_ip"]).unwrap_or(base + host - 1)),
            gateway: address(&subnet["gateway"]),
        })
    };
    parsed().ok_or_else(|| Error::other(format!("the subnet {subnet} has no addresses for containers")))
}

impl Pool {
    fn take(&self, dir: &Path, container: &str) -> Result<IpAddr> {
        for number in (self.first..=self.last).rev().filter(|number| Some(*number) != self.gateway) {
            let address = address(number, self.is_v6);
            let path = dir.join(address.to_string());
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                file => {
                    file.and_then(|mut file| file.write_all(container.as_bytes()))
                        .doing(|| format!("write {}", path.display()))?;
                    return Ok(address);
                }
            }
        }
        Err(Error::other("all addresses of the network are taken").hint(format!("{} says by whom", dir.display())))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, is_v6: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if !is_v6 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_a_subnet() {
        let ends = |subnet: Value| {
            let pool = pool(&subnet).unwrap();
            [pool.first, pool.last].map(|number| address(number, pool.is_v6).to_string())
        };
        assert_eq!(ends(json!({"subnet": "10.87.0.0/16", "gateway": "10.87.0.1"})), ["10.87.0.1", "10.87.255.254"]);
        assert_eq!(ends(json!({"subnet": "10.0.0.5/30"})), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(
            ends(json!({"subnet": "10.0.0.0/24", "lease_range": {"start_ip": "10.0.0.10", "end_ip": "10.0.0.20"}})),
            ["10.0.0.10", "10.0.0.20"]
        );
        assert_eq!(ends(json!({"subnet": "2001:db8::/64"})), ["2001:db8::1", "2001:db8::ffff:ffff:ffff:fffe"]);
        assert_eq!(ends(json!({"subnet": "::/0"}))[0], "::1");
        for subnet in [
            json!({}),
            json!({"subnet": "10.0.0.0"}),
            json!({"subnet": "10.0.0.0/33"}),
            json!({"subnet": "1.2.3.4/31"}),
        ] {
            assert!(pool(&subnet).is_err(), "{subnet}");
        }
    }

    #[test]
    fn each_container_has_an_address_of_its_own() {
        let dir = std::env::temp_dir().join(format!("kelson-leases-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let pool = pool(&json!({"subnet": "10.0.0.0/29", "gateway": "10.0.0.1"})).unwrap();
        let taken: Vec<String> = (0..5).map(|i| pool.take(&dir, &format!("c{i}")).unwrap().to_string()).collect();
        assert_eq!(taken, ["10.0.0.6", "10.0.0.5", "10.0.0.4", "10.0.0.3", "10.0.0.2"]);
        assert!(pool.take(&dir, "c5").unwrap_err().to_string().contains("are taken"));
        give_in(&dir, "c3").unwrap();
        assert_eq!(pool.take(&dir, "c6").unwrap().to_string(), "10.0.0.3");
        fs::remove_dir_all(&dir).unwrap();
    }
}
