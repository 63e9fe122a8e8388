//! How a host is reached: whom its certificate must be from, and through which proxy.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kelson::error::{Context, Error, Result};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

use super::options::{Environment, Options};

/// Where distributions keep the certificates that are trusted, in the order in which Go's crypto/x509 looks for them.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Status line and headers of an answer.
const MAX_HEADERS: usize = 64 << 10;

/// The connections to all hosts; those that are idle are used again.
pub struct Connections {
    options: Options,
    provider: Arc<CryptoProvider>,
    /// The host's certificates, read when the first connection with TLS is made.
    roots: OnceLock<Vec<Certificate<'static>>>,
    /// By scheme and authority.
    agents: Mutex<HashMap<String, Agent>>,
    were_answered: AtomicBool,
}

impl Connections {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            roots: OnceLock::new(),
            agents: Mutex::default(),
            were_answered: AtomicBool::new(false),
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether any host, the registry or one that it leads to, has answered anything: then the way is right, and a host that cannot
    /// be reached may be there later.
    pub fn were_answered(&self) -> bool {
        self.were_answered.load(Ordering::Relaxed)
    }

    pub fn note_answer(&self) {
        self.were_answered.store(true, Ordering::Relaxed);
    }

    /// What speaks to the host of `uri`.
    pub fn agent(&self, uri: &Uri) -> Result<Agent> {
        let (is_tls, host) = (uri.scheme_str() == Some("https"), uri.authority().map_or("", |host| host.as_str()));
        let key = format!("{is_tls} {host}");
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy(&self.options.environment, uri)?)
            .user_agent(concat!("kelson/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_response_header_size(MAX_HEADERS)
            .max_idle_connections_per_host(8)
            .timeout_resolve(Some(self.options.connect_timeout))
            .timeout_connect(Some(self.options.connect_timeout))
            .timeout_send_request(Some(self.options.stall_timeout))
            .timeout_recv_response(Some(self.options.stall_timeout))
            .timeout_per_read(Some(self.options.stall_timeout));
        if is_tls {
            config = config.tls_config(self.tls(uri)?);
        }
        let agent = config.build().new_agent();
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn tls(&self, uri: &Uri) -> Result<TlsConfig> {
        let host = uri.authority().map_or("", |host| host.as_str());
        let roots = match self.roots.get() {
            Some(roots) => roots,
            None => {
                let roots = host_certificates(&self.options.environment)?;
                self.roots.get_or_init(|| roots)
            }
        };
        let mut roots = roots.clone();
        let mut client = None;
        for directory in self.options.certificates.iter().map(|directory| directory.join(host)) {
            let files = files_of(&directory).doing(|| format!("read {}", directory.display()))?;
            for file in with_suffix(&files, "crt") {
                roots.extend(certificates(file)?);
            }
            for file in with_suffix(&files, "cert") {
                client = Some(self.client_certificate(file)?);
            }
        }
        // Of this machine's own registry it is not known yet whether it uses TLS.
        if roots.is_empty() && !uri.host().is_some_and(is_loopback) {
            return Err(Error::other(
                "this host has no certificates of authorities, so that no registry can be trusted",
            )
            .hint("install ca-certificates, or name a file with SSL_CERT_FILE"));
        }
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(client)
            .unversioned_rustls_crypto_provider(Arc::clone(&self.provider))
            .build())
    }

    /// The certificate in `file` and its key, which is in the file beside it that ends in `.key`.
    fn client_certificate(&self, file: &Path) -> Result<ClientCert> {
        let key_file = file.with_extension("key");
        let what = || format!("use the certificate {} with the key {}", file.display(), key_file.display());
        let chain = certificates(file)?;
        let text = fs::read(&key_file).doing(what)?;
        // What does not fit ends ureq by a panic.
        let wrong = |error: String| Error::other(error);
        let der = PrivateKeyDer::from_pem_slice(&text).map_err(|error| wrong(error.to_string())).doing(what)?;
        let chain_der = chain.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
        CertifiedKey::from_der(chain_der, der, &self.provider).map_err(|error| wrong(error.to_string())).doing(what)?;
        let key = PrivateKey::from_pem(&text).map_err(|error| wrong(error.to_string())).doing(what)?;
        Ok(ClientCert::new_with_certs(&chain, key))
    }
}

/// The certificates that this host trusts: SSL_CERT_FILE and SSL_CERT_DIR, or the first places that exist.
fn host_certificates(environment: &Environment) -> Result<Vec<Certificate<'static>>> {
    let (named_file, named_dirs) = (environment.path("SSL_CERT_FILE"), environment.text("SSL_CERT_DIR"));
    let mut all = vec![];
    match named_file {
        Some(file) => all.extend(certificates(&file)?),
        None if named_dirs.is_some() => {}
        None => {
            if let Some(bundle) = BUNDLES.iter().map(Path::new).find(|bundle| bundle.exists()) {
                return certificates(bundle);
            }
        }
    }
    let named_dirs: Vec<_> = named_dirs.iter().flat_map(|dirs| dirs.split(':')).map(PathBuf::from).collect();
    let dirs = match named_dirs.is_empty() && all.is_empty() {
        true => DIRECTORIES.map(PathBuf::from).to_vec(),
        false => named_dirs,
    };
    for file in dirs.iter().flat_map(|dir| files_of(dir).unwrap_or_default()) {
        // What else is in such a directory is no reason to trust nothing.
        all.extend(certificates(&file).unwrap_or_default());
    }
    Ok(all)
}

/// The certificates in a file in PEM.
fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let what = || format!("read the certificates in {}", file.display());
    let text = fs::read(file).doing(what)?;
    let found: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(Error::other(error.to_string()))),
        })
        .collect::<Result<_>>()
        .doing(what)?;
    if found.is_empty() {
        return Err(Error::other("there is none")).doing(what);
    }
    Ok(found)
}

/// The files of a directory, sorted; none where there is no such directory.
fn files_of(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(vec![]),
        entries => entries?,
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn with_suffix<'a>(files: &'a [PathBuf], suffix: &'a str) -> impl Iterator<Item = &'a PathBuf> {
    files.iter().filter(move |file| file.extension().is_some_and(|extension| extension == suffix))
}

/// The proxy for `uri`, as Go's net/http and so docker and podman choose it.
fn proxy(environment: &Environment, uri: &Uri) -> Result<Option<Proxy>> {
    let either = |upper: &'static str, lower: &'static str| {
        [upper, lower].into_iter().find_map(|name| Some((name, environment.text(name)?)))
    };
    let chosen = match uri.scheme_str() {
        Some("https") => either("HTTPS_PROXY", "https_proxy"),
        // A server that runs programs for its clients has HTTP_PROXY from them (CVE-2016-5385).
        _ if environment.text("REQUEST_METHOD").is_some() => None,
        _ => either("HTTP_PROXY", "http_proxy"),
    };
    let Some((name, address)) = chosen else { return Ok(None) };
    let excluded = either("NO_PROXY", "no_proxy").map_or("", |(_, list)| list);
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    if is_loopback(host) || is_excluded(host, port, excluded) {
        return Ok(None);
    }
    let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err(Error::other(format!("{name} names a proxy that speaks neither HTTP nor HTTPS")));
    }
    // The address may have a password in it and is not shown.
    Proxy::new(&address).map(Some).map_err(|_| Error::other(format!("{name} is no address of a proxy")))
}

/// Whether NO_PROXY's `list` has the host: names with all below them, addresses, networks, each with a port or not, or `*`.
fn is_excluded(host: &str, port: u16, list: &str) -> bool {
    let host = bare(host).to_ascii_lowercase();
    let address: Option<std::net::IpAddr> = host.parse().ok();
    list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Some((network, bits)), Some(address)) = (entry.split_once('/'), address) {
            return is_within(address, network, bits).unwrap_or(false);
        }
        let (name, wanted_port) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse().ok()),
            _ => (entry.as_str(), None),
        };
        if wanted_port.is_some_and(|wanted: u16| wanted != port) || name.is_empty() {
            return false;
        }
        let name = bare(name);
        match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None if address.is_some() => host == name,
            None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
        }
    })
}

/// Whether the address is in the network of these leading bits.
fn is_within(address: std::net::IpAddr, network: &str, bits: &str) -> Option<bool> {
    use std::net::IpAddr::{V4, V6};
    let bits: u32 = bits.parse().ok()?;
    let mask = |width: u32| if bits == 0 { 0 } else { u128::MAX << width.saturating_sub(bits) };
    Some(match (address, network.parse().ok()?) {
        (V4(address), V4(network)) => (u128::from(address.to_bits() ^ network.to_bits()) & mask(32)) == 0,
        (V6(address), V6(network)) => (address.to_bits() ^ network.to_bits()) & mask(128) == 0,
        _ => false,
    })
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// Whether the host's name or address is this machine's own: localhost, what is below it (RFC 6761), 127.0.0.0/8 and ::1.
pub fn is_loopback(host: &str) -> bool {
    let host = bare(host).to_ascii_lowercase();
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_hosts_are_this_machine() {
        for (host, is_this) in [
            ("localhost", true),
            ("LocalHost", true),
            ("a.localhost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("localhost.example", false),
            ("notlocalhost", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), is_this, "{host}");
        }
    }

    #[test]
    fn hosts_that_no_proxy_is_for() {
        for (list, host, is_excluded) in [
            ("*", "a.example", true),
            ("example", "example", true),
            ("example", "a.example", true),
            ("example", "anexample", false),
            (".example", "a.example", true),
            (".example", "example", false),
            ("*.example", "a.example", true),
            ("other, Example", "a.EXAMPLE", true),
            ("example:443", "example", true),
            ("example:80", "example", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("0.0.1", "10.0.0.1", false),
            ("10.0.0.0/8", "10.9.9.9", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("10.0.0.0/40", "10.0.0.0", true),
            ("fd00::/8", "[fd12::1]", true),
            ("fd00::/8", "10.0.0.1", false),
            ("[fd12::1]", "[fd12::1]", true),
            ("fd12::1", "[fd12::1]", true),
            ("", "a", false),
            (",,", "a", false),
        ] {
            assert_eq!(super::is_excluded(host, 443, list), is_excluded, "{list:?} {host}");
        }
    }

    #[test]
    fn which_proxy_is_used() {
        let address = |variables: &[(&str, &str)], uri: &str| {
            let environment = variables.iter().copied().collect();
            proxy(&environment, &uri.parse().unwrap()).unwrap().map(|proxy| proxy.uri().to_string())
        };
        let both = [("HTTP_PROXY", "http://plain:1"), ("https_proxy", "secure:2"), ("NO_PROXY", "inside")];
        assert_eq!(address(&both, "http://a/").as_deref(), Some("http://plain:1/"));
        assert_eq!(address(&both, "https://a/").as_deref(), Some("http://secure:2/"));
        for uri in ["https://inside/", "https://a.inside/", "https://localhost:5000/", "http://[::1]/"] {
            assert_eq!(address(&both, uri), None, "{uri}");
        }
        let cgi = [("HTTP_PROXY", "http://client:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(address(&cgi, "http://a/"), None);
        assert_eq!(address(&[("ALL_PROXY", "http://a")], "https://b/"), None);
    }
}
