//! The addresses of a process's network namespace, as procfs shows them to whoever may not enter it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Those that others can reach it by.
pub fn of(pid: i32) -> Vec<IpAddr> {
    // A kernel without IPv6 has no list of it.
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    v4(&read("fib_trie")).into_iter().map(IpAddr::V4).chain(v6(&read("if_inet6")).into_iter().map(IpAddr::V6)).collect()
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
