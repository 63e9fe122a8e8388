//! What decides how a registry is spoken to: options, and what of the environment is read.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::Login;

/// How to speak to registries.
#[derive(Clone)]
pub struct Options {
    /// Hosts, with their port where they have one, that are spoken to without TLS. Of loopback addresses those that do not
    /// know TLS are found out.
    pub plain_http: Vec<String>,
    /// In place of what docker's and podman's files have.
    pub login: Option<Login>,
    /// For name, connection and TLS of one host.
    pub connect_timeout: Duration,
    /// How long nothing may arrive.
    pub stall_timeout: Duration,
    /// How often something is tried again after nothing new arrived.
    pub retries: u32,
    /// What is waited before the first of them; each further one waits twice as long.
    pub backoff: Duration,
    /// Longest wait that a registry can ask for (Retry-After); one that asks for more has refused.
    pub longest_wait: Duration,
    /// Directories with a directory for each host, `ca.crt`, `client.cert` and `client.key` in it (docker's certs.d).
    pub certificates: Vec<PathBuf>,
    pub environment: Environment,
}

impl Default for Options {
    fn default() -> Self {
        let environment = Environment::of_process();
        let mut certificates = vec![PathBuf::from("/etc/containers/certs.d"), PathBuf::from("/etc/docker/certs.d")];
        certificates.extend(environment.path("HOME").map(|home| home.join(".config/containers/certs.d")));
        Self {
            plain_http: vec![],
            login: None,
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            retries: 4,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            certificates,
            environment,
        }
    }
}

/// The environment variables, as they were when asked for: what they decide can be tested without changing them.
#[derive(Clone, Default)]
pub struct Environment(HashMap<OsString, OsString>);

impl Environment {
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The value, if it is text and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(OsStr::new(name))?.to_str().filter(|value| !value.is_empty())
    }

    /// The value, if it is an absolute path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(variables: T) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
