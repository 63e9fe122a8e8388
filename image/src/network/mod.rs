//! The hooks of a container's network, which config.json names (see `kelson::image::network`):
//!
//! ```text
//! kelson-image hook network-up   NETWORK --state DIR --files DIR [-p PORT]… [--host-gateway NAME]… [--own-dns]    createRuntime
//! kelson-image hook network-down NETWORK …                                                                        poststop
//! ```
//!
//! The container's state is on standard input. What a later `network-down` has to know is in the [`record`], which is written
//! before anything else is made: a network of which half was made is taken down as a whole one is.

mod addresses;
mod bridge;
mod cni;
mod conflist;
mod etc;
mod lease;
mod netavark;
mod netns;
mod pasta;
mod program;
mod record;
mod watch;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use kelson::error::{Context, Error, Result};
use kelson::image::network::{Network, Port};
use serde::Deserialize;

use record::Record;

/// What the words of a hook say.
struct Words {
    network: Network,
    /// Where the record is.
    state: PathBuf,
    /// Where the container's hosts and resolv.conf are.
    files: PathBuf,
    ports: Vec<Port>,
    /// What the gateway is called, by which the container reaches the host.
    gateway_names: Vec<String>,
    /// resolv.conf is not the network's to write.
    own_dns: bool,
}

/// What of the container's state a hook needs (runtime.md#state).
#[derive(Deserialize)]
struct State {
    id: String,
    #[serde(default)]
    pid: i32,
}

/// What a container finds out of its network.
#[derive(Default)]
struct Made {
    addresses: Vec<IpAddr>,
    servers: Vec<String>,
    search: Vec<String>,
}

/// Runs the hook that `words` name, without `hook` itself.
///
/// # Errors
/// The network cannot be made, and nothing of it is left; or it could not be taken down.
pub fn hook(words: impl Iterator<Item = OsString>) -> Result<()> {
    // What the runtime left open is not for programs that outlive it.
    kelson::sys::fd::close_from(3, kelson::sys::fd::CloseRange::Close).doing(|| "close inherited descriptors")?;
    let mut words =
        words.map(|word| word.into_string().map_err(|word| Error::usage(format!("hook: {word:?} is not valid UTF-8"))));
    match words.next().transpose()?.as_deref() {
        Some("network-up") => up(&read(words)?, &state()?),
        Some("network-down") => down(&read(words)?, &state()?),
        Some("network-watch") => watch::run(&words.collect::<Result<Vec<_>>>()?),
        _ => Err(Error::usage("hook: neither network-up nor network-down").hint("config.json calls it")),
    }
}

fn read(mut words: impl Iterator<Item = Result<String>>) -> Result<Words> {
    let value = |words: &mut dyn Iterator<Item = Result<String>>, what: &str| {
        words.next().unwrap_or_else(|| Err(Error::usage(format!("hook: {what} is missing"))))
    };
    let network = Network::parse(&value(&mut words, "the network")?)?;
    let (mut state, mut files, mut ports, mut gateway_names, mut own_dns) = (None, None, vec![], vec![], false);
    while let Some(word) = words.next().transpose()? {
        match word.as_str() {
            "--state" => state = Some(PathBuf::from(value(&mut words, "--state DIR")?)),
            "--files" => files = Some(PathBuf::from(value(&mut words, "--files DIR")?)),
            "-p" => ports.push(Port::parse(&value(&mut words, "-p PORT")?)?),
            "--host-gateway" => gateway_names.push(value(&mut words, "--host-gateway NAME")?),
            "--own-dns" => own_dns = true,
            _ => return Err(Error::usage(format!("hook: unexpected {word:?}"))),
        }
    }
    let (Some(state), Some(files)) = (state, files) else {
        return Err(Error::usage("hook: --state and --files are needed"));
    };
    Ok(Words { network, state, files, ports, gateway_names, own_dns })
}

fn state() -> Result<State> {
    let text = std::io::read_to_string(std::io::stdin()).doing(|| "read the container's state")?;
    let state: State = serde_json::from_str(&text)
        .map_err(|error| Error::other(format!("standard input is not the state of a container: {error}")))?;
    kelson::state::check_id(&state.id)?;
    Ok(state)
}

fn up(words: &Words, state: &State) -> Result<()> {
    let doing = || format!("--network {}", words.network);
    if state.pid <= 0 {
        return Err(Error::other("the container has no process yet").hint("it is a hook for createRuntime"));
    }
    netns::check_own(state.pid).doing(doing)?;
    let mut record = Record::begin(&words.state, &state.id)?;
    if record.is_left() {
        // Of a container whose poststop hooks did not run.
        take_down(&record).doing(|| "take down what an earlier container left")?;
    }
    let made = match &words.network {
        Network::Pasta(options) => pasta::up(&mut record, options, words, state),
        Network::Cni(name) => cni::up(&mut record, name.as_deref(), words, state),
        Network::Netavark(name) => netavark::up(&mut record, name.as_deref(), words, state),
        Network::None | Network::Host | Network::Path(_) => Err(Error::usage("hook: there is nothing to make")),
    };
    let told = made.doing(doing).and_then(|made| {
        let names: Vec<(&str, IpAddr)> = match &words.gateway_names[..] {
            [] => vec![],
            names => {
                let gateway = addresses::gateway(state.pid).ok_or_else(|| no_gateway(&names[0], &words.network))?;
                names.iter().map(|name| (&**name, gateway)).collect()
            }
        };
        etc::write(&words.files, &made, &names, words.own_dns)
    });
    match (&words.network, told) {
        (Network::Pasta(_), told) => {
            // The watcher has the lock from here on, and ends with the container.
            record.leave_locked();
            told
        }
        (_, Ok(())) => Ok(()),
        (_, Err(error)) => {
            // As far as it was made; the error says more than one of this.
            let _ = take_down(&record);
            let _ = record.remove();
            Err(error)
        }
    }
}

fn no_gateway(name: &str, network: &Network) -> Error {
    let cause = format!("--add-host {name}:host-gateway: the container has no default route with --network {network}");
    Error::other(cause).hint(format!("--add-host {name}:ADDRESS, where ADDRESS is the host's"))
}

fn down(words: &Words, state: &State) -> Result<()> {
    let Some(record) = Record::find(&words.state, &state.id)? else { return Ok(()) };
    let done = take_down(&record).doing(|| format!("take down --network {}", words.network));
    // What could not be taken down now cannot be later.
    record.remove()?;
    done
}

fn take_down(record: &Record) -> Result<()> {
    match record.load()? {
        None => Ok(()),
        Some(record::Kept::Pasta) => pasta::down(record),
        Some(record::Kept::Cni(kept)) => cni::down(&kept),
        Some(record::Kept::Netavark(kept)) => netavark::down(&kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Words> {
        read(text.split(' ').map(|word| Ok(word.to_owned())))
    }

    #[test]
    fn the_words_of_a_hook() {
        let read = words("pasta:-4 --state /s --files /f -p 1:2 -p [::1]:3:4/udp --host-gateway h --own-dns").unwrap();
        assert_eq!(read.gateway_names, ["h"]);
        assert_eq!(read.network, Network::Pasta(vec!["-4".into()]));
        assert_eq!((read.state, read.files, read.own_dns), ("/s".into(), "/f".into(), true));
        assert_eq!(read.ports.iter().map(Port::to_string).collect::<Vec<_>>(), ["1:2/tcp", "[::1]:3:4/udp"]);
        for text in
            ["", "pasta", "pasta --state /s", "pasta --state /s --files", "pasta --state /s --files /f x", "x --state"]
        {
            assert!(words(text).is_err(), "{text}");
        }
    }
}
