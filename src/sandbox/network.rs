//! `[parent]` and `[init]` Network interfaces: the loopback of a new network namespace, and the host's interfaces that
//! `linux.netDevices` moves into it (config-linux.md#network-devices).
//!
//! ```text
//! host's namespace                             container's namespace
//! find by name · read addresses · set down ─▶  found under its new name · addresses put back · set up
//!               one request moves and renames
//! ```
//!
//! Spoken is rtnetlink(7). A netlink socket belongs to the namespace that it was made in, so the parent reaches both.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, send, socket};

use crate::error::{Context, Error, Result};
use crate::plan::NetDevice;

/// `[init]` Sets the loopback interface of this network namespace up; it has the number 1 in each.
pub fn bring_up_loopback() -> Result<()> {
    let bring_up = || Netlink::open()?.set_up(1, true);
    bring_up().doing(|| "bring up the loopback interface")
}

/// Host interfaces that are in the container's namespace; dropping this brings them back, as they were but for their
/// routes, until `keep`.
pub struct MovedDevices(Option<Moving>);

struct Moving {
    host: Netlink,
    container: Netlink,
    host_ns: File,
    devices: Vec<Moved>,
}

struct Moved {
    host_name: String,
    container_name: String,
    addresses: Vec<Address>,
    was_up: bool,
}

impl MovedDevices {
    /// They stay; nothing brings them back when the container ends (config-linux.md#network-devices).
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for MovedDevices {
    fn drop(&mut self) {
        let Some(moving) = &self.0 else { return };
        for device in moving.devices.iter().rev() {
            if let Err(error) = moving.bring_back(device) {
                log::warn!("bring network interface {:?} back to the host: {error}", device.host_name);
            }
        }
    }
}

/// `[parent]` Moves `devices` from this network namespace into `target`, with their permanent addresses of global scope,
/// under the names that they shall have there, and sets them up. A failure brings back those that were moved.
///
/// The calling thread is in `target` for the time of one socket(2).
///
/// # Errors
/// Names the entry of `linux.netDevices`: no such interface, the name is taken in `target`, or the kernel refuses.
pub fn move_devices(devices: &[NetDevice], target: BorrowedFd<'_>) -> Result<MovedDevices> {
    if devices.is_empty() {
        return Ok(MovedDevices(None));
    }
    let host_ns = File::open("/proc/thread-self/ns/net").doing(|| "open the own network namespace")?;
    let host = Netlink::open()?;
    let container = Netlink::open_in(target, host_ns.as_fd())?;
    let mut moved = MovedDevices(Some(Moving { host, container, host_ns, devices: vec![] }));
    for device in devices {
        if let Some(moving) = &mut moved.0 {
            moving
                .bring_in(device, target)
                .property(|| format!("linux.netDevices[{:?}]", device.host))
                .doing(|| format!("move network interface {:?} into the container", device.host))?;
        }
    }
    Ok(moved)
}

impl Moving {
    fn bring_in(&mut self, device: &NetDevice, target: BorrowedFd<'_>) -> Result<()> {
        let link = self.host.link(&device.host)?.ok_or_else(|| {
            Error::new(crate::error::Kind::System(Errno::ENODEV), "there is no such network interface on the host")
        })?;
        // Before it goes down: that takes the IPv6 addresses away.
        let addresses = self.host.addresses(link.index)?;
        let container_name = self.container.free_name(&device.container)?;
        // Noted before the first change, so that a failure of the next step is undone too.
        self.devices.push(Moved {
            host_name: device.host.clone(),
            container_name: container_name.clone(),
            addresses: addresses.clone(),
            was_up: link.is_up,
        });
        // Kernels before 6.2 do not rename an interface that is up.
        self.host.set_up(link.index, false)?;
        self.host.move_link(link.index, target, &container_name)?;

        let link = self.container.link(&container_name)?.ok_or(Errno::ENODEV)?;
        for address in &addresses {
            self.container.add_address(link.index, address).doing(|| format!("give it the address {address}"))?;
        }
        self.container.set_up(link.index, true)
    }

    /// Undoes as much of `bring_in` as was done.
    fn bring_back(&self, device: &Moved) -> Result<()> {
        if self.host.link(&device.host_name)?.is_none() {
            // The kernel moves first and renames then: if that failed, the interface has its old name there.
            let link = match self.container.link(&device.container_name)? {
                Some(link) => link,
                None => self.container.link(&device.host_name)?.ok_or(Errno::ENODEV)?,
            };
            self.container.set_up(link.index, false)?;
            self.container.move_link(link.index, self.host_ns.as_fd(), &device.host_name)?;
        }
        let link = self.host.link(&device.host_name)?.ok_or(Errno::ENODEV)?;
        let present = self.host.addresses(link.index)?;
        for address in device.addresses.iter().filter(|address| !present.contains(address)) {
            self.host.add_address(link.index, address)?;
        }
        self.host.set_up(link.index, device.was_up)
    }
}

/// What we want to know of an interface.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    is_up: bool,
}

/// An address of an interface, as the kernel told it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix_length: u8,
    /// Those of `KEPT_FLAGS`.
    flags: u32,
    /// `KEPT_ATTRIBUTES` and their values, in the order told.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let bytes = |kind| self.attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| value.as_slice());
        let bytes = bytes(libc::IFA_LOCAL).or(bytes(libc::IFA_ADDRESS)).unwrap_or_default();
        if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
            write!(f, "{}/{}", Ipv4Addr::from(octets), self.prefix_length)
        } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
            write!(f, "{}/{}", Ipv6Addr::from(octets), self.prefix_length)
        } else {
            write!(f, "{bytes:x?}/{}", self.prefix_length)
        }
    }
}

// linux/if_addr.h; libc lacks it.
const IFA_RT_PRIORITY: u16 = 9;

/// Flags that someone has set; the others tell a state.
const KEPT_FLAGS: u32 = libc::IFA_F_NODAD | libc::IFA_F_HOMEADDRESS | libc::IFA_F_NOPREFIXROUTE;
/// Not the label, which is made of the interface's name.
const KEPT_ATTRIBUTES: [u16; 4] = [libc::IFA_LOCAL, libc::IFA_ADDRESS, libc::IFA_BROADCAST, IFA_RT_PRIORITY];

/// A socket that speaks rtnetlink(7) with the kernel about the network namespace that it was made in.
struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> Result<Self> {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map(Self)
            .doing(|| "open a netlink socket")
    }

    /// A socket of the network namespace `target`; the calling thread comes back to `own`.
    fn open_in(target: BorrowedFd<'_>, own: BorrowedFd<'_>) -> Result<Self> {
        setns(target, CloneFlags::CLONE_NEWNET).doing(|| "enter the container's network namespace")?;
        let socket = Self::open();
        setns(own, CloneFlags::CLONE_NEWNET).doing(|| "return to the own network namespace")?;
        socket
    }

    /// Sends `request`, a dump or with NLM_F_ACK, and gives every answer to `take` until the one that ends them.
    fn ask(&self, request: Request, mut take: impl FnMut(Message<'_>)) -> nix::Result<()> {
        // Answers come in order and one request is under way at a time; the number tells them from stray ones.
        const SEQUENCE: u32 = 1;
        let request = request.finish(SEQUENCE);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        // The kernel makes dumps in pieces of at most 32 KiB (netlink(7), NLMSG_GOODSIZE and the reader's buffer).
        let mut buffer = vec![0; 32 << 10];
        let mut is_interrupted = false;
        loop {
            let (length, sender) = match self.receive(&mut buffer) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            // Root of the container's namespace may send us messages; the kernel is 0.
            if sender != Some(0) {
                continue;
            }
            for message in messages(&buffer[..length]).filter(|message| message.sequence == SEQUENCE) {
                is_interrupted |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match message.end() {
                    None => take(message),
                    // The dump may have missed something that changed in between.
                    Some(Ok(())) if is_interrupted => return Err(Errno::EAGAIN),
                    Some(end) => return end,
                }
            }
        }
    }

    /// Length and sender of the next datagram.
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<(usize, Option<u32>)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<NetlinkAddr>(self.0.as_raw_fd(), &mut parts, None, MsgFlags::empty())?;
        if received.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(Errno::EMSGSIZE);
        }
        Ok((received.bytes, received.address.map(|sender| sender.pid())))
    }

    /// The interface called `name`.
    fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut found = None;
        let request = Request::link(libc::RTM_GETLINK, libc::NLM_F_ACK as u16, 0, 0, 0)
            .attribute(libc::IFLA_IFNAME, &c_string(name));
        match self.ask(request, |message| found = message.link().or(found.take())) {
            Ok(()) => Ok(found),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno).doing(|| format!("look for network interface {name:?}")),
        }
    }

    fn dump<T>(&self, request: impl Fn() -> Request, take: impl Fn(Message<'_>) -> Option<T>) -> nix::Result<Vec<T>> {
        loop {
            let mut found = vec![];
            match self.ask(request(), |message| found.extend(take(message))) {
                Ok(()) => return Ok(found),
                Err(Errno::EAGAIN) => continue,
                Err(errno) => return Err(errno),
            }
        }
    }

    fn links(&self) -> Result<Vec<Link>> {
        let request = || Request::link(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16, 0, 0, 0);
        self.dump(request, |message| message.link()).doing(|| "list the network interfaces")
    }

    /// The addresses of interface `index` that may go with it: permanent and of global scope.
    fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let request = || {
            let header = [libc::AF_UNSPEC as u8, 0, 0, 0, 0, 0, 0, 0];
            Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16, &header)
        };
        self.dump(request, |message| message.movable_address(index)).doing(|| "list its addresses")
    }

    /// `name` if no interface has it, or the first free one of the template `name` (`eth%d`).
    fn free_name(&self, name: &str) -> Result<String> {
        let taken: Vec<String> = self.links()?.into_iter().map(|link| link.name).collect();
        first_free(name, &taken).ok_or_else(|| {
            Error::new(
                crate::error::Kind::System(Errno::EEXIST),
                format!("the container's network namespace has an interface {name:?} already"),
            )
        })
    }

    fn set_up(&self, index: u32, up: bool) -> Result<()> {
        let flags = if up { libc::IFF_UP as u32 } else { 0 };
        let request = Request::link(libc::RTM_NEWLINK, libc::NLM_F_ACK as u16, index, flags, libc::IFF_UP as u32);
        self.ask(request, |_| ()).doing(|| if up { "set it up" } else { "set it down" })
    }

    /// Moves interface `index` into the network namespace `target`, where it is called `name`.
    fn move_link(&self, index: u32, target: BorrowedFd<'_>, name: &str) -> Result<()> {
        let request = Request::link(libc::RTM_NEWLINK, libc::NLM_F_ACK as u16, index, 0, 0)
            .attribute(libc::IFLA_IFNAME, &c_string(name))
            .attribute(libc::IFLA_NET_NS_FD, &target.as_raw_fd().to_ne_bytes());
        self.ask(request, |_| ()).doing(|| format!("move it as {name:?}"))
    }

    fn add_address(&self, index: u32, address: &Address) -> nix::Result<()> {
        self.ask(Request::address(index, address), |_| ())
    }
}

/// `name` if it is not among `taken`; for a template the first number that makes it so. The kernel would choose itself,
/// but twice where the host's name is taken too, and does not tell what it chose.
fn first_free(name: &str, taken: &[String]) -> Option<String> {
    let is_free = |name: &String| !taken.contains(name);
    match name.split_once("%d") {
        None => Some(name.to_owned()).filter(is_free),
        Some((before, after)) => (0..=taken.len()).map(|n| format!("{before}{n}{after}")).find(is_free),
    }
}

fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Headers and attributes are padded to four bytes (netlink(7)).
const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A request: `struct nlmsghdr`, the header of its kind, attributes.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(header);
        Self(bytes)
    }

    /// With `struct ifinfomsg`: of the interface's flags, those in `change` become as in `flags`.
    fn link(kind: u16, flags: u16, index: u32, interface_flags: u32, change: u32) -> Self {
        let mut header = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
        header.extend(index.to_ne_bytes());
        header.extend(interface_flags.to_ne_bytes());
        header.extend(change.to_ne_bytes());
        Self::new(kind, flags, &header)
    }

    /// With `struct ifaddrmsg`: give the interface `index` a new address.
    fn address(index: u32, address: &Address) -> Self {
        let mut header = vec![address.family, address.prefix_length, 0, libc::RT_SCOPE_UNIVERSE];
        header.extend(index.to_ne_bytes());
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let request = Self::new(libc::RTM_NEWADDR, flags as u16, &header)
            .attribute(libc::IFA_FLAGS, &address.flags.to_ne_bytes());
        address.attributes.iter().fold(request, |request, (kind, value)| request.attribute(*kind, value))
    }

    /// Appends a `struct rtattr`.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = 4 + value.len();
        self.0.extend((length as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len() + aligned(length) - length, 0);
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// One message of an answer.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages in a datagram; what is cut off is left out.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = number_at::<u32>(bytes, 0)? as usize;
        let message = Message {
            kind: number_at(bytes, 4)?,
            flags: number_at(bytes, 6)?,
            sequence: number_at(bytes, 8)?,
            payload: bytes.get(16..length)?,
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: kind and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(number_at::<u16>(bytes, 0)?);
        let kind = number_at::<u16>(bytes, 2)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

trait Number: Sized {
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Number for u16 {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self::from_ne_bytes)
    }
}

impl Number for u32 {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self::from_ne_bytes)
    }
}

fn number_at<N: Number>(bytes: &[u8], offset: usize) -> Option<N> {
    N::read(bytes.get(offset..)?)
}

impl Message<'_> {
    /// What the answer ends with, if this is the end: NLMSG_DONE, or NLMSG_ERROR with an error number or 0.
    fn end(&self) -> Option<nix::Result<()>> {
        let is_last = self.kind == libc::NLMSG_DONE as u16 || self.kind == libc::NLMSG_ERROR as u16;
        is_last.then(|| match number_at::<u32>(self.payload, 0).map_or(0, |code| code as i32) {
            code if code < 0 => Err(Errno::from_raw(code.wrapping_neg())),
            _ => Ok(()),
        })
    }

    /// The interface that a RTM_NEWLINK describes.
    fn link(&self) -> Option<Link> {
        if self.kind != libc::RTM_NEWLINK {
            return None;
        }
        let name = attributes(self.payload.get(16..)?).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?.1;
        let name = name.strip_suffix(&[0]).unwrap_or(name);
        Some(Link {
            index: number_at(self.payload, 4)?,
            name: String::from_utf8_lossy(name).into_owned(),
            is_up: number_at::<u32>(self.payload, 8)? & libc::IFF_UP as u32 != 0,
        })
    }

    /// The address that a RTM_NEWADDR describes, if it is one of interface `index` that may move with it.
    fn movable_address(&self, index: u32) -> Option<Address> {
        if self.kind != libc::RTM_NEWADDR || number_at::<u32>(self.payload, 4)? != index {
            return None;
        }
        let [family, prefix_length, short_flags, scope] = *self.payload.first_chunk()?;
        let attributes = || attributes(self.payload.get(8..).unwrap_or_default());
        // IFA_FLAGS has more than the eight bits of the header.
        let long_flags =
            attributes().find(|(kind, _)| *kind == libc::IFA_FLAGS).and_then(|(_, value)| u32::read(value));
        let flags = long_flags.unwrap_or(u32::from(short_flags));
        if flags & libc::IFA_F_PERMANENT == 0 || scope != libc::RT_SCOPE_UNIVERSE {
            return None;
        }
        let kept = attributes().filter(|(kind, _)| KEPT_ATTRIBUTES.contains(kind));
        Some(Address {
            family,
            prefix_length,
            flags: flags & KEPT_FLAGS,
            attributes: kept.map(|(kind, value)| (kind, value.to_vec())).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn requests_are_as_rtnetlink_reads_them() {
        let bytes = Request::link(libc::RTM_NEWLINK, libc::NLM_F_ACK as u16, 7, 1, 1)
            .attribute(libc::IFLA_IFNAME, &c_string("eth10"))
            .attribute(libc::IFLA_NET_NS_FD, &9i32.to_ne_bytes())
            .finish(3);
        #[rustfmt::skip]
        let expected: [u16; 26] = [
            52, 0, 16, 5, 3, 0, 0, 0, // length, RTM_NEWLINK, REQUEST|ACK, sequence, port
            0, 0, 7, 0, 1, 0, 1, 0, // family, type, index, flags, change
            10, 3, 0x7465, 0x3168, 0x30, 0, // IFLA_IFNAME and two bytes of padding
            8, 28, 9, 0, // IFLA_NET_NS_FD
        ];
        assert_eq!(bytes, expected.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<_>>());
    }

    fn answer(kind: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        attributes
            .iter()
            .fold(Request::new(kind, 0, header), |request, (kind, value)| request.attribute(*kind, value))
            .finish(1)
    }

    fn address_answer(index: u32, flags: u8, scope: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let header = [&[2, 24, flags, scope], &index.to_ne_bytes()[..]].concat();
        answer(libc::RTM_NEWADDR, &header, attributes)
    }

    #[test]
    fn only_permanent_global_addresses_move_and_without_their_label() {
        let ip: (u16, &[u8]) = (libc::IFA_LOCAL, &[10, 0, 0, 1]);
        let long = (libc::IFA_F_PERMANENT | libc::IFA_F_NOPREFIXROUTE).to_ne_bytes();
        for (bytes, flags) in [
            (address_answer(5, 0x80, 0, &[ip]), Some(0)),
            (address_answer(5, 0x80 | 2, 0, &[ip, (libc::IFA_LABEL, b"eth0:1\0")]), Some(2)),
            (address_answer(5, 0, 0, &[ip, (libc::IFA_FLAGS, &long)]), Some(0x200)),
            (address_answer(5, 0x80, 0, &[ip, (libc::IFA_FLAGS, &[0; 4])]), None),
            (address_answer(6, 0x80, 0, &[ip]), None),
            (address_answer(5, 0, 0, &[ip]), None),
            (address_answer(5, 0x80, libc::RT_SCOPE_LINK, &[ip]), None),
        ] {
            let found = messages(&bytes).find_map(|message| message.movable_address(5));
            let expected = flags.map(|flags| Address {
                family: 2,
                prefix_length: 24,
                flags,
                attributes: vec![(libc::IFA_LOCAL, vec![10, 0, 0, 1])],
            });
            assert_eq!(found, expected, "{bytes:?}");
        }
    }

    #[test]
    fn answers_cut_anywhere_do_no_harm() {
        let header = [&[0, 0, 1, 0], &7u32.to_ne_bytes()[..], &1u32.to_ne_bytes(), &[0; 4]].concat();
        let whole = answer(libc::RTM_NEWLINK, &header, &[(libc::IFLA_MTU, &[0; 4]), (libc::IFLA_IFNAME, b"eth0\0")]);
        let link = Link { index: 7, name: "eth0".into(), is_up: true };
        assert_eq!(messages(&whole).find_map(|message| message.link()), Some(link));
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
            // The same with a header that lies.
            let mut shorter = whole.clone();
            shorter[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            for message in messages(&shorter).take(99) {
                message.link();
                message.movable_address(7);
                message.end();
            }
        }
    }

    #[test]
    fn an_answer_ends_with_done_or_an_error_number() {
        for (kind, code, end) in [
            (libc::NLMSG_ERROR as u16, 0, Some(Ok(()))),
            (libc::NLMSG_ERROR as u16, -libc::EPERM, Some(Err(Errno::EPERM))),
            (libc::NLMSG_DONE as u16, 0, Some(Ok(()))),
            (libc::RTM_NEWLINK, 0, None),
        ] {
            let bytes = answer(kind, &code.to_ne_bytes(), &[]);
            assert_eq!(messages(&bytes).next().map(|message| message.end()), Some(end));
        }
    }

    #[test]
    fn a_template_takes_the_first_free_number() {
        let taken = ["lo".to_owned(), "eth0".into(), "eth1".into(), "a3b".into()];
        for (name, found) in [
            ("eth%d", Some("eth2")),
            ("web%d", Some("web0")),
            ("a%db", Some("a0b")),
            ("eth0", None),
            ("eth2", Some("eth2")),
        ] {
            assert_eq!(first_free(name, &taken).as_deref(), found, "{name}");
        }
        assert_eq!(first_free("eth%d", &[]).as_deref(), Some("eth0"));
    }

    /// Runs `test` in a thread with a network namespace of its own, where that is allowed.
    fn in_new_network(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| match nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
                Ok(()) => test(),
                Err(errno) => eprintln!("skipped: a new network namespace: {errno}"),
            });
        });
    }

    fn ip(words: &str) -> Option<String> {
        let output = match Command::new("ip").args(words.split(' ')).output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("skipped: ip(8) of iproute2: {error}");
                return None;
            }
        };
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn the_loopback_goes_up() {
        in_new_network(|| {
            let up = || Netlink::open().unwrap().link("lo").unwrap().unwrap().is_up;
            assert!(!up());
            bring_up_loopback().unwrap();
            assert!(up());
        });
    }

    fn device(host: &str, container: &str) -> NetDevice {
        NetDevice { host: host.into(), container: container.into() }
    }

    /// In a new namespace with the ends of two veth pairs, `one` (up, with addresses) and `two`; `test` gets the
    /// descriptor of the namespace and that of another.
    fn with_two_networks(test: impl FnOnce(File, File) + Send) {
        in_new_network(|| {
            let own = File::open("/proc/thread-self/ns/net").unwrap();
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let other = File::open("/proc/thread-self/ns/net").unwrap();
            setns(&own, CloneFlags::CLONE_NEWNET).unwrap();
            let made = [
                "link add one mtu 1400 type veth peer name far1",
                "link add two type veth peer name far2",
                "link set far1 up",
                "link set one up",
                "addr add 10.1.2.3/24 broadcast 10.1.2.255 dev one label one:x",
                "addr add 10.1.2.4/24 dev one",
                "addr add 10.9.9.9 peer 10.9.9.8/32 dev one",
                "addr add 169.254.1.1/16 scope link dev one",
                "addr add 10.1.3.3/24 dev one valid_lft 1000 preferred_lft 1000",
                "addr add fd00::1/64 dev one nodad noprefixroute",
            ];
            if made.iter().all(|words| ip(words).is_some()) {
                test(own, other);
            }
        });
    }

    /// Sorted, without lifetimes.
    fn addresses_of(name: &str) -> Vec<String> {
        let text = ip(&format!("-o addr show dev {name} scope global")).unwrap();
        let lines = text.lines().map(|line| line.split('\\').next().unwrap_or_default());
        let mut all: Vec<String> =
            lines.map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect();
        all.sort();
        all
    }

    #[test]
    fn a_device_moves_with_its_permanent_addresses() {
        with_two_networks(|own, other| {
            let moved = move_devices(&[device("one", "eth0"), device("two", "eth%d")], other.as_fd()).unwrap();
            let socket = Netlink::open().unwrap();
            assert!(socket.link("one").unwrap().is_none() && socket.link("two").unwrap().is_none());
            moved.keep();
            setns(&other, CloneFlags::CLONE_NEWNET).unwrap();
            let socket = Netlink::open().unwrap();
            assert!(socket.link("eth0").unwrap().unwrap().is_up);
            assert!(socket.link("eth1").unwrap().unwrap().is_up);
            assert!(ip("link show dev eth0").unwrap().contains("mtu 1400"));
            let found = addresses_of("eth0");
            assert_eq!(found.len(), 4, "{found:?}");
            for (address, text) in found.iter().zip([
                "inet 10.1.2.3/24 brd 10.1.2.255 scope global eth0",
                "inet 10.1.2.4/24 scope global secondary eth0",
                "inet 10.9.9.9 peer 10.9.9.8/32 scope global eth0",
                "inet6 fd00::1/64 scope global nodad noprefixroute",
            ]) {
                assert!(address.starts_with(text), "{address}");
            }
            setns(&own, CloneFlags::CLONE_NEWNET).unwrap();
        });
    }

    #[test]
    fn a_failure_brings_back_what_was_moved() {
        with_two_networks(|_, other| {
            let before = addresses_of("one");
            for (devices, text) in [
                (
                    [device("one", "eth0"), device("two", "eth0")],
                    "move network interface \"two\" into the container: linux.netDevices[\"two\"]: \
                     the container's network namespace has an interface \"eth0\" already",
                ),
                (
                    [device("one", "eth%d"), device("none", "none")],
                    "move network interface \"none\" into the container: linux.netDevices[\"none\"]: \
                     there is no such network interface on the host",
                ),
                (
                    [device("one", "two"), device("lo", "loop")],
                    "move network interface \"lo\" into the container: move it as \"loop\": \
                     linux.netDevices[\"lo\"]: invalid argument",
                ),
            ] {
                let Err(error) = move_devices(&devices, other.as_fd()) else { panic!("{text}") };
                assert_eq!(error.to_string(), text);
                let socket = Netlink::open().unwrap();
                assert!(socket.link("one").unwrap().unwrap().is_up, "{text}");
                assert!(!socket.link("two").unwrap().unwrap().is_up, "{text}");
                let after = addresses_of("one");
                let permanent = before.iter().filter(|address| !address.contains("dynamic"));
                assert!(permanent.clone().all(|address| after.iter().any(|other| same(address, other))), "{after:?}");
            }
        });
        /// But for the label.
        fn same(one: &str, other: &str) -> bool {
            one.replace("one:x", "one") == other.replace("one:x", "one")
        }
    }

    #[test]
    fn a_guard_that_is_dropped_brings_the_device_back_even_if_the_container_is_gone() {
        with_two_networks(|_, other| {
            let moved = move_devices(&[device("one", "eth0")], other.as_fd()).unwrap();
            // The namespace lives by the guard's socket alone from here on.
            drop(other);
            drop(moved);
            assert!(Netlink::open().unwrap().link("one").unwrap().unwrap().is_up);
            assert_eq!(addresses_of("one").len(), 4);
        });
    }

    #[test]
    fn a_failure_after_the_move_undoes_the_move() {
        with_two_networks(|own, other| {
            setns(&other, CloneFlags::CLONE_NEWNET).unwrap();
            for scope in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
            }
            setns(&own, CloneFlags::CLONE_NEWNET).unwrap();
            let Err(error) = move_devices(&[device("one", "eth0")], other.as_fd()) else { panic!() };
            assert!(error.to_string().contains("give it the address fd00::1/64"), "{error}");
            assert!(Netlink::open().unwrap().link("one").unwrap().unwrap().is_up);
            assert_eq!(addresses_of("one").len(), 4);
        });
    }
}
