//! The container's hosts and resolv.conf, which are mounted from its directory: written in place.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use kelson::error::{Context, Result};

use super::Made;

/// Tells them of the network that was made, in which `others` are.
pub fn write(dir: &Path, made: &Made, others: &[(&str, IpAddr)], own_dns: bool) -> Result<()> {
    if !made.addresses.is_empty() {
        let hostname = read(&dir.join("hostname"))?;
        let own: Vec<(&str, IpAddr)> = made.addresses.iter().map(|address| (hostname.trim(), *address)).collect();
        replace(&dir.join("hosts"), |text| hosts(text, &own))?;
    }
    if !others.is_empty() {
        replace(&dir.join("hosts"), |text| hosts(text, others))?;
    }
    if !made.servers.is_empty() && !own_dns {
        replace(&dir.join("resolv.conf"), |text| resolv(text, made))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).doing(|| format!("read {}", path.display()))
}

fn replace(path: &Path, change: impl FnOnce(&str) -> String) -> Result<()> {
    let text = change(&read(path)?);
    fs::write(path, text).doing(|| format!("write {}", path.display()))
}

/// The lines that had a name before, in an earlier network too, give way to those of its addresses.
fn hosts(text: &str, addresses: &[(&str, IpAddr)]) -> String {
    let is_told =
        |line: &&str| line.split_once('\t').is_some_and(|(_, names)| addresses.iter().any(|(name, _)| names == *name));
    let mut all: String = text.lines().filter(|line| !is_told(line)).map(|line| format!("{line}\n")).collect();
    all.extend(addresses.iter().map(|(name, address)| format!("{address}\t{name}\n")));
    all
}

/// The network's own servers, and the options that were there.
fn resolv(text: &str, made: &Made) -> String {
    let mut all: String = made.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    if !made.search.is_empty() {
        all.push_str(&format!("search {}\n", made.search.join(" ")));
    }
    let is_kept = |line: &&str| match line.split_whitespace().next() {
        Some("nameserver") => false,
        Some("search" | "domain") => made.search.is_empty(),
        _ => true,
    };
    all.extend(text.lines().filter(is_kept).map(|line| format!("{line}\n")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(search: &[&str]) -> Made {
        Made {
            addresses: vec!["10.0.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            servers: vec!["10.0.0.1".into()],
            search: search.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn the_host_name_has_the_addresses_of_the_network() {
        let text = "127.0.0.1\tlocalhost\n127.0.1.1\tbox\n10.1.1.1\tother\n";
        let own: Vec<(&str, IpAddr)> = made(&[]).addresses.iter().map(|address| ("box", *address)).collect();
        let once = hosts(text, &own);
        assert_eq!(once, "127.0.0.1\tlocalhost\n10.1.1.1\tother\n10.0.0.2\tbox\n2001:db8::2\tbox\n");
        assert_eq!(hosts(&once, &own), once);
    }

    #[test]
    fn servers_of_the_network_are_in_place_of_the_hosts() {
        let text = "nameserver 192.0.2.1\nsearch a\noptions ndots:2\n";
        assert_eq!(resolv(text, &made(&[])), "nameserver 10.0.0.1\nsearch a\noptions ndots:2\n");
        assert_eq!(resolv(text, &made(&["b", "c"])), "nameserver 10.0.0.1\nsearch b c\noptions ndots:2\n");
    }
}
