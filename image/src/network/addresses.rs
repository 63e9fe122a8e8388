//! The addresses of a process's network namespace, as procfs shows them to whoever may not enter it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Those that others can reach it by.
pub fn of(pid: i32) -> Vec<IpAddr> {
    // A kernel without IPv6 has no list of it.
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    v4(&read("fib_trie")).into_iter().map(IpAddr::V4).chain(v6(&read("if_inet6")).into_iter().map(IpAddr::V6)).collect()
}

/// The gateway of its default route.
pub fn gateway(pid: i32) -> Option<IpAddr> {
    gateway_v4(&std::fs::read_to_string(format!("/proc/{pid}/net/route")).ok()?).map(IpAddr::V4)
}

/// Interface, destination, gateway, flags and more, of which each address is a number in hexadecimal whose bytes are in the
/// network's order in memory.
fn gateway_v4(text: &str) -> Option<Ipv4Addr> {
    text.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_default = fields.next()? == "00000000";
        let gateway = u32::from_str_radix(fields.next()?, 16).ok().filter(|gateway| is_default && *gateway != 0)?;
        Some(Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// `|-- ADDRESS`, then `/32 host LOCAL`; each is in the local table, and in the main one as well where both are one.
fn v4(text: &str) -> Vec<Ipv4Addr> {
    let mut all: Vec<Ipv4Addr> = vec![];
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|address: &Ipv4Addr| !address.is_loopback() && !all.contains(address))
        {
            all.push(address);
        }
    }
    all
}

/// Address, interface, prefix, scope (0: global), flags and name.
fn v6(text: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let bits = u128::from_str_radix(fields.next()?, 16).ok()?;
        (fields.nth(2)? == "00").then(|| Ipv6Addr::from_bits(bits))
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn gateway_of_procfs() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let routes = "eth1\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth0\t0002000A\t0302000A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                      eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(gateway_v4(&format!("{head}{routes}")), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(gateway_v4(head), None);
    }

    #[test]
    fn addresses_of_procfs() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 127.0.0.0/8 2 0 2\n\
                    \x20          |-- 127.0.0.1\n              /32 host LOCAL\n        |-- 192.0.2.2\n           /32 host LOCAL\n\
                    Local:\n        |-- 192.0.2.2\n           /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n";
        assert_eq!(v4(text), ["192.0.2.2".parse::<Ipv4Addr>().unwrap()]);
        let text = "00000000000000000000000000000001 01 80 10 80       lo\nfe800000000000000cceedfffe724e97 02 40 20 80     eth0\n\
                    20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert_eq!(v6(text), ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]);
    }
}
