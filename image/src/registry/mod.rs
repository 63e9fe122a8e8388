//! A client of the OCI distribution API (distribution-spec 1.1, docker's registry v2) that fetches.
//!
//! ```text
//!   Client::manifest ─┐               ┌─ auth ──────── credentials    tokens, logins of docker's and podman's files
//!   Client::blob ─────┴─ Client::ask ─┤
//!     └─ blob::Blob      retries      └─ http ──────── connection     redirects; certificates and proxy of a host
//!        resumes,
//!        verifies
//! ```
//!
//! What is fetched counts by its digest alone; TLS and logins decide who is asked and who is told. A [`Client`] is used by several
//! threads at once: layers are fetched in parallel.

mod auth;
mod blob;
mod connection;
mod credentials;
mod failure;
mod http;
mod options;

use std::sync::OnceLock;
use std::time::Duration;

use kelson::error::{Context, Error, Result};
use kelson::image::Digest;
use sha2::{Digest as _, Sha256};
use ureq::http::Uri;

pub use self::blob::Blob;
pub use self::credentials::Login;
pub use self::options::{Environment, Options};

use self::auth::Authorizations;
use self::connection::{Connections, is_loopback};
use self::failure::{Again, Asked, Failure};
use self::http::{Answer, Ask};
use crate::manifest::{self, Descriptor, Document};

/// Where docker.io really is.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Layers that may not be distributed are elsewhere; docker's and OCI's media types of them.
const FOREIGN: [&str; 2] =
    ["application/vnd.docker.image.rootfs.foreign.", "application/vnd.oci.image.layer.nondistributable."];

/// A registry.
pub struct Client {
    /// As names have it: `docker.io`, `localhost:5000`.
    host: String,
    connections: Connections,
    authorizations: Authorizations,
    /// Scheme and authority; known before the first request where there is no choice.
    base: OnceLock<String>,
}

/// The tag or the digest that a manifest is asked for by.
#[derive(Clone, Copy, Debug)]
pub enum Version<'a> {
    Tag(&'a str),
    Digest(Digest),
}

impl Client {
    /// The registry that an image's name has as its host.
    ///
    /// # Errors
    /// The host is no name or address.
    pub fn new(host: &str, options: Options) -> Result<Self> {
        let authority = if host == "docker.io" { DOCKER_HUB } else { host };
        let uri: Option<Uri> = format!("https://{authority}/v2/").parse().ok();
        // A name and password, or a port that is no number, would be something else to the parser.
        let is_host = |uri: &Uri| {
            let name = uri.host().unwrap_or_default();
            let with_port = uri.port_u16().map_or(name.to_owned(), |port| format!("{name}:{port}"));
            !name.is_empty() && with_port == authority
        };
        let uri = uri.filter(is_host).ok_or_else(|| Error::usage(format!("{host:?} is no name of a registry")))?;
        let base = OnceLock::new();
        let is_plain = options.plain_http.iter().any(|plain| plain == host);
        if is_plain || !uri.host().is_some_and(is_loopback) {
            let scheme = if is_plain { "http" } else { "https" };
            base.get_or_init(|| format!("{scheme}://{authority}"));
        }
        let connections = Connections::new(options);
        Ok(Self { host: host.to_owned(), connections, authorizations: Authorizations::new(host), base })
    }

    /// The manifest or index of a repository, e.g. `library/busybox`; its bytes have the digest that is asked for.
    pub fn manifest(&self, repository: &str, version: Version) -> Result<Document> {
        let name = match version {
            Version::Tag(tag) => tag.to_owned(),
            Version::Digest(digest) => digest.to_string(),
        };
        let what = || format!("fetch the manifest {name} of {}/{repository}", self.host);
        self.manifest_named(repository, &name, version).doing(what)
    }

    /// The manifest or index that a descriptor names, for [`crate::platform::select`].
    pub fn manifest_of(&self, repository: &str, descriptor: &Descriptor) -> Result<Document> {
        let mut document = self.manifest(repository, Version::Digest(descriptor.digest))?;
        // What the index says is under a digest; what it was sent as is not.
        if !descriptor.media_type.is_empty() {
            document.media_type.clone_from(&descriptor.media_type);
        }
        Ok(document)
    }

    fn manifest_named(&self, repository: &str, name: &str, version: Version) -> Result<Document> {
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
        let path = Path { repository, kind: "manifests", name };
        let mut failed = 0;
        loop {
            let answer = self.ask(&path, accept, &mut failed)?;
            match self.document(answer, version) {
                Ok(document) => return Ok(document),
                Err(failure) => self.wait(failure, &mut failed)?,
            }
        }
    }

    fn document(&self, answer: Answer, version: Version) -> Result<Document, Failure> {
        let text = |name| answer.header(name).map(str::to_owned);
        let (media_type, claimed) = (text("content-type"), text("docker-content-digest"));
        let media_type =
            media_type.as_deref().and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_owned();
        let host = answer.host().to_owned();
        let bytes = answer.read(manifest::MAX_SIZE, &self.connections)?;
        let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
        let wanted = match version {
            Version::Digest(wanted) => Some(wanted),
            // A digest of another algorithm cannot be compared.
            Version::Tag(_) => claimed.and_then(|claimed| claimed.parse().ok()),
        };
        match wanted {
            Some(wanted) if wanted != digest => Err(Failure::never(wrong_digest(&host, wanted, digest))),
            _ => Ok(Document { bytes, media_type, digest }),
        }
    }

    /// The content that a descriptor names, as a stream: see [`Blob`].
    pub fn blob(&self, repository: &str, descriptor: &Descriptor) -> Result<Blob<'_>> {
        let what = || format!("fetch {} of {}/{repository}", descriptor.digest, self.host);
        if !descriptor.urls.is_empty() && FOREIGN.iter().any(|foreign| descriptor.media_type.starts_with(foreign)) {
            return Err(Error::other(
                "the layer may not be distributed and is at another place, where Kelson does not fetch",
            )
            .hint("a layer of Windows has this"))
            .doing(what);
        }
        Blob::open(self, repository, descriptor).doing(what)
    }

    /// A small blob as a whole, e.g. a configuration; `limit` is how many bytes are taken at most.
    pub fn document_of(&self, repository: &str, descriptor: &Descriptor, limit: u64) -> Result<Document> {
        let what = || format!("fetch {} of {}/{repository}", descriptor.digest, self.host);
        if descriptor.size > limit {
            return Err(Error::other(format!("it has {} bytes, and at most {limit} are taken", descriptor.size)))
                .doing(what);
        }
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut self.blob(repository, descriptor)?, &mut bytes)?;
        Ok(Document { bytes, media_type: descriptor.media_type.clone(), digest: descriptor.digest })
    }

    /// The answer to a request, which is a success; it `failed` so often before.
    fn ask(&self, path: &Path, accept: &'static str, failed: &mut u32) -> Result<Answer> {
        loop {
            match self.ask_once(path, accept, 0) {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.wait(failure, failed)?,
            }
        }
    }

    fn ask_once(&self, path: &Path, accept: &'static str, from: u64) -> Result<Answer, Failure> {
        let uri = self.uri(path)?;
        let mut authorization = self.authorizations.known(path.repository);
        let mut is_renewed = false;
        loop {
            let value = authorization.as_ref().map(|known| &known.value);
            let mut answer =
                http::fetch(&self.connections, &Ask { uri: &uri, accept, from, authorization: value, form: None })?;
            let status = answer.response.status();
            if status == 200 || status == 206 && from > 0 {
                return Ok(answer);
            }
            let is_registry = http::is_same_origin(&answer.uri, &uri);
            if status == 401 && is_registry && !is_renewed {
                let headers = answer.response.headers().clone();
                // Read to its end the connection can be used again.
                answer.explanation();
                let renewed = self.authorizations.renew(
                    &self.connections,
                    &uri,
                    path.repository,
                    &headers,
                    authorization.as_ref(),
                )?;
                authorization = Some(renewed);
                is_renewed = true;
                continue;
            }
            let said = answer.explanation();
            let asked = if path.kind == "manifests" { Asked::Manifest } else { Asked::Blob };
            let host = if is_registry { self.host.as_str() } else { answer.host() };
            return Err(failure::of_status(
                status,
                answer.response.headers(),
                &said,
                host,
                asked,
                authorization.is_some(),
            ));
        }
    }

    fn uri(&self, path: &Path) -> Result<Uri, Failure> {
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte));
        let Path { repository, kind, name } = path;
        if !is_plain(repository)
            || !is_plain(name)
            || repository.split('/').any(|part| part.is_empty() || part.starts_with('.'))
        {
            return Err(Error::usage(format!("{repository:?} with {name:?} is no name of an image")).into());
        }
        let base = self.base()?;
        let uri = format!("{base}/v2/{repository}/{kind}/{name}");
        uri.parse().map_err(|_| Failure::never(Error::usage(format!("{uri:?} is no address"))))
    }

    /// Scheme and authority. On this machine TLS is tried first, without saying anything, as docker does.
    fn base(&self) -> Result<&str, Failure> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let host = &self.host;
        let probe: Uri =
            format!("https://{host}/v2/").parse().map_err(|_| Error::usage(format!("{host:?} is no name")))?;
        let ask = |uri| Ask { uri, accept: "*/*", from: 0, authorization: None, form: None };
        let scheme = match http::fetch(&self.connections, &ask(&probe)) {
            Ok(_) => "https",
            Err(failure) if failure.again == Again::WithoutTls => "http",
            // Without a port the two are at different ones.
            Err(failure) if failure.again == Again::IfAnsweredBefore && probe.port().is_none() => "http",
            Err(failure) => {
                let error = failure.error.hint(format!("--plain-http {host} if it does without TLS"));
                return Err(Failure { error, ..failure });
            }
        };
        Ok(self.base.get_or_init(|| format!("{scheme}://{host}")))
    }

    /// Returns when it is time for another try of what `failed` so often since it last got on.
    ///
    /// # Errors
    /// The failure itself, where trying again is of no use or was tried often enough.
    fn wait(&self, failure: Failure, failed: &mut u32) -> Result<()> {
        let options = self.connections.options();
        match delay(options, failure.again, *failed, self.connections.were_answered()) {
            Some(delay) => {
                log::warn!("{}; trying again in {:.1} s", failure.error, delay.as_secs_f32());
                *failed += 1;
                std::thread::sleep(delay);
                Ok(())
            }
            None if *failed > 0 => Err(failure.error).doing(|| format!("after {} tries", *failed + 1)),
            None => Err(failure.error),
        }
    }
}

/// The last part of an address: `REPOSITORY/manifests/NAME`.
struct Path<'a> {
    repository: &'a str,
    kind: &'static str,
    name: &'a str,
}

/// How long to wait before the next try of what `failed` so often; `None` if there is none.
fn delay(options: &Options, again: Again, failed: u32, were_answered: bool) -> Option<Duration> {
    if failed >= options.retries {
        return None;
    }
    match again {
        Again::Never | Again::WithoutTls | Again::WithoutRange => None,
        Again::IfAnsweredBefore if !were_answered => None,
        Again::After(wait) => (wait <= options.longest_wait).then_some(wait),
        Again::IfAnsweredBefore | Again::Yes => {
            let whole = options.backoff.saturating_mul(1 << failed.min(16)).min(options.longest_wait);
            // Many clients that failed together come back one by one.
            Some(whole.mul_f64(0.5 + 0.5 * random()))
        }
    }
}

/// Between 0 and 1, from the seed of std's hash maps.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

fn wrong_digest(host: &str, wanted: Digest, found: Digest) -> Error {
    Error::other(format!("{host} sends what has the digest {found} where {wanted} is asked for"))
        .hint("the registry or a proxy before it is broken, or somebody changed it: it was not used")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again() {
        let options = Options::default();
        let half = options.backoff / 2;
        for (again, failed, were_answered, at_least) in [
            (Again::Never, 0, true, None),
            (Again::WithoutTls, 0, true, None),
            (Again::WithoutRange, 0, true, None),
            (Again::IfAnsweredBefore, 0, false, None),
            (Again::IfAnsweredBefore, 0, true, Some(half)),
            (Again::IfAnsweredBefore, 3, true, Some(half * 8)),
            (Again::IfAnsweredBefore, 4, true, None),
            (Again::Yes, 0, false, Some(half)),
            (Again::Yes, 1, false, Some(half * 2)),
            (Again::Yes, 4, true, None),
            (Again::After(options.longest_wait), 0, false, Some(options.longest_wait)),
            (Again::After(options.longest_wait * 2), 0, true, None),
        ] {
            let delay = super::delay(&options, again, failed, were_answered);
            assert_eq!(delay.is_some(), at_least.is_some(), "{again:?} {failed} {were_answered}");
            let is_within = delay.zip(at_least).is_none_or(|(delay, least)| delay >= least && delay <= least * 2);
            assert!(is_within, "{again:?} {failed}: {delay:?}");
        }
    }
}
