//! One request: redirects are followed, and what may be told to whom is decided.

use std::io::Read;

use kelson::error::{Error, Result};
use ureq::Body;
use ureq::http::{HeaderValue, Method, Request, Response, Uri, header};

use super::connection::Connections;
use super::failure::{self, Failure, printable};

/// Redirects that are followed, as docker's client does.
const MAX_REDIRECTS: u32 = 10;
/// What is read of an answer that is an error.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// What is asked for.
pub struct Ask<'a> {
    pub uri: &'a Uri,
    pub accept: &'static str,
    /// The first byte that is wanted.
    pub from: u64,
    pub authorization: Option<&'a HeaderValue>,
    /// What is posted, as a form; it never follows a redirect.
    pub form: Option<&'a str>,
}

/// An answer and who gave it.
pub struct Answer {
    pub response: Response<Body>,
    /// Where it is from, after redirects.
    pub uri: Uri,
}

impl Answer {
    /// The host as it can be shown; what else is in an address may be a secret.
    pub fn host(&self) -> &str {
        host_of(&self.uri)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// At most `limit` bytes; more is a failure.
    pub fn read(self, limit: u64, connections: &Connections) -> Result<Vec<u8>, Failure> {
        let host = self.host().to_owned();
        let too_long =
            || Failure::never(Error::other(format!("{host} sends more than {limit} bytes where that is the most")));
        if self.response.body().content_length().is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let mut bytes = vec![];
        let read = self.response.into_body().into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| failure::of_exchange(error.into(), &host, connections.options().stall_timeout))?;
        if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(bytes) }
    }

    /// The beginning of what came with an error.
    pub fn explanation(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        // What cannot be read of an explanation leaves the status, which says enough.
        let _ = self.response.body_mut().as_reader().take(MAX_ERROR_BODY).read_to_end(&mut bytes);
        bytes
    }
}

/// The host and port of an address.
pub fn host_of(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

/// Whether both are the same scheme, host and port: only then one is told what is meant for the other.
pub fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// The answer to `ask`, whatever its status, after redirects.
pub fn fetch(connections: &Connections, ask: &Ask) -> Result<Answer, Failure> {
    let mut uri = ask.uri.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = exchange(connections, ask, &uri)?;
        if ask.form.is_some() || !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(Answer { response, uri });
        }
        uri = next(connections, &uri, &response)?;
    }
    Err(Failure::never(Error::other(format!("{} redirects more than {MAX_REDIRECTS} times", host_of(ask.uri)))))
}

/// Where a redirect leads.
fn next(connections: &Connections, from: &Uri, response: &Response<Body>) -> Result<Uri, Failure> {
    let host = host_of(from);
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let wrong = |why: &str| Failure::never(Error::other(format!("{host} redirects {why}")));
    let to = location.and_then(|location| resolve(from, location)).ok_or_else(|| wrong("to no address"))?;
    if host_of(&to).contains('@') {
        return Err(wrong("to an address with a name and password in it"));
    }
    let is_downgrade = from.scheme_str() == Some("https") && to.scheme_str() != Some("https");
    if is_downgrade && !connections.options().plain_http.iter().any(|plain| plain == host_of(&to)) {
        let to = printable(host_of(&to));
        let error = Error::other(format!("{host} redirects from TLS to unprotected HTTP at {to}"));
        return Err(Failure::never(error.hint(format!("--plain-http {to} accepts it"))));
    }
    Ok(to)
}

/// One request and the head of its answer.
fn exchange(connections: &Connections, ask: &Ask, uri: &Uri) -> Result<Response<Body>, Failure> {
    let agent = connections.agent(uri)?;
    let mut request = Request::builder().uri(uri).header(header::ACCEPT, ask.accept);
    if let Some(value) = ask.authorization.filter(|_| is_same_origin(uri, ask.uri)) {
        let mut value = value.clone();
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    if ask.from > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", ask.from));
    }
    let wrong = |error: ureq::http::Error| Failure::never(Error::other(format!("{}: {error}", host_of(uri))));
    let answer = match ask.form {
        None => agent.run(request.method(Method::GET).body(()).map_err(wrong)?),
        Some(form) => {
            let request =
                request.method(Method::POST).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            agent.run(request.body(form.to_owned()).map_err(wrong)?)
        }
    };
    if answer.is_ok() {
        connections.note_answer();
    }
    answer.map_err(|error| {
        let no_tls = failure::speaks_no_tls(&error);
        let failure = failure::of_exchange(error, host_of(uri), connections.options().stall_timeout);
        if no_tls { Failure { again: failure::Again::WithoutTls, ..failure } } else { failure }
    })
}

/// The address that `location` is, seen from `base` (RFC 3986, 5.2, without dots in paths).
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    // The part after # is the client's own.
    let location = location.split('#').next()?;
    let origin = format!("{}://{}", base.scheme_str()?, base.authority()?);
    let text = match location {
        _ if location.starts_with("http://") || location.starts_with("https://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{}:{location}", base.scheme_str()?),
        _ if location.starts_with('/') => format!("{origin}{location}"),
        _ if location.starts_with('?') => format!("{origin}{}{location}", base.path()),
        _ if location.split('/').next()?.contains(':') || location.is_empty() => return None,
        _ => format!("{origin}{}{location}", &base.path()[..=base.path().rfind('/')?]),
    };
    text.parse().ok().filter(|uri: &Uri| uri.host().is_some_and(|host| !host.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_redirect_leads() {
        let base: Uri = "https://a:5000/v2/x/blobs/y?z=1".parse().unwrap();
        for (location, to) in [
            ("https://b/c?d=e", Some("https://b/c?d=e")),
            ("http://b", Some("http://b/")),
            ("//b/c", Some("https://b/c")),
            ("/c", Some("https://a:5000/c")),
            ("/c#d", Some("https://a:5000/c")),
            ("?c", Some("https://a:5000/v2/x/blobs/y?c")),
            ("c", Some("https://a:5000/v2/x/blobs/c")),
            ("file:///etc/passwd", None),
            ("ftp://b/", None),
            ("https:///x", None),
            ("https://", None),
            ("", None),
            ("https://b c/", None),
        ] {
            assert_eq!(resolve(&base, location).map(|uri| uri.to_string()).as_deref(), to, "{location}");
        }
    }

    #[test]
    fn who_is_told_the_authorization() {
        for (a, b, same) in [
            ("https://a/x", "https://a/y", true),
            ("https://a/x", "https://A:443/y", true),
            ("https://a/x", "http://a/x", false),
            ("https://a/x", "https://a:5000/x", false),
            ("https://a/x", "https://b.a/x", false),
            ("http://a/x", "http://a:80/x", true),
        ] {
            assert_eq!(is_same_origin(&a.parse().unwrap(), &b.parse().unwrap()), same, "{a} {b}");
        }
    }
}
