//! What went wrong with a request, in words, and whether trying again may help.

use std::io;
use std::time::Duration;

use kelson::error::Error;
use rustls::{CertificateError, Error as Tls};
use serde::Deserialize;
use ureq::Timeout;
use ureq::http::{HeaderMap, StatusCode};

/// Longest text that is shown of what a registry says.
const MAX_TEXT: usize = 300;

/// A request that failed.
pub struct Failure {
    pub error: Error,
    pub again: Again,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Never,
    /// The host does not speak TLS: it may speak HTTP without.
    WithoutTls,
    /// Of the content no part is to be had.
    WithoutRange,
    /// The host cannot be reached: worth another try only where the registry or a host of it answered before. A name or port that is
    /// wrong stays so.
    IfAnsweredBefore,
    Yes,
    /// As the registry asks.
    After(Duration),
}

impl Failure {
    pub fn never(error: Error) -> Self {
        Self { error, again: Again::Never }
    }

    pub fn again(cause: impl Into<String>) -> Self {
        Self { error: Error::other(cause.into()), again: Again::Yes }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::never(error)
    }
}

/// The failure of an exchange with `host`, of which there is no answer.
pub fn of_exchange(error: ureq::Error, host: &str, stall: Duration) -> Failure {
    let other = |cause: String, again| Failure { error: Error::other(cause), again };
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            other(format!("{host} cannot be reached in time"), Again::IfAnsweredBefore)
        }
        ureq::Error::Timeout(_) => other(format!("nothing came from {host} for {} s", stall.as_secs_f32()), Again::Yes),
        ureq::Error::HostNotFound => unknown_host(host),
        ureq::Error::Rustls(error) => of_tls(&error, host),
        ureq::Error::Io(error) => of_io(error, host),
        ureq::Error::Tls(_) => Failure::never(Error::other(format!("{host} is no name for a certificate"))),
        ureq::Error::LargeResponseHeader(..) => {
            Failure::never(Error::other(format!("the headers from {host} are too long")))
        }
        ureq::Error::ConnectProxyFailed(text) => {
            let error = Error::other(format!("the proxy does not connect to {host}: {}", printable(&text)));
            // For a registry without TLS, too: ureq knows no other way.
            Failure::never(
                error.hint("see HTTPS_PROXY, HTTP_PROXY and NO_PROXY; the proxy has to allow CONNECT to this port"),
            )
        }
        ureq::Error::Protocol(error) => {
            other(format!("{host} sends what is no HTTP: {}", printable(&error.to_string())), Again::Yes)
        }
        error => Failure::never(Error::other(format!("{host}: {}", printable(&error.to_string())))),
    }
}

fn of_io(error: io::Error, host: &str) -> Failure {
    if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Tls>()) {
        return of_tls(error, host);
    }
    let again = match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => Again::IfAnsweredBefore,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::TimedOut
        | io::ErrorKind::UnexpectedEof => Again::Yes,
        // std tells a name that is not known so, and only so.
        _ if error.raw_os_error().is_none() && error.to_string().contains("lookup address") => {
            return unknown_host(host);
        }
        _ => Again::IfAnsweredBefore,
    };
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens at {host}"),
        io::ErrorKind::UnexpectedEof => format!("{host} closed the connection early"),
        _ => format!("{host}: {}", printable(&Error::from(error).to_string())),
    };
    let error = Error::other(cause);
    Failure {
        error: if again == Again::IfAnsweredBefore {
            error.hint("see the registry's name and port, and whether it runs")
        } else {
            error
        },
        again,
    }
}

fn unknown_host(host: &str) -> Failure {
    let error = Error::other(format!("the name {host} is not known"));
    Failure { error: error.hint("see the registry's name and /etc/resolv.conf"), again: Again::IfAnsweredBefore }
}

/// Whether the host answered to TLS by something that is none, as a server of plain HTTP does.
pub fn speaks_no_tls(error: &ureq::Error) -> bool {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => match error.get_ref().and_then(|error| error.downcast_ref::<Tls>()) {
            Some(error) => error,
            None => return false,
        },
        _ => return false,
    };
    matches!(error, Tls::InvalidMessage(_))
}

fn of_tls(error: &Tls, host: &str) -> Failure {
    let (cause, hint) = match error {
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => (
            format!("the certificate of {host} is from an authority that is not trusted here"),
            format!("the authority's certificate goes into /etc/containers/certs.d/{host}/ca.crt, or among the host's"),
        ),
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (format!("the certificate of {host} is for another name"), "use the name that it is for".to_owned()),
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => (
            format!("the certificate of {host} has expired"),
            "whoever runs the registry renews it; see the clock".to_owned(),
        ),
        Tls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            (format!("the certificate of {host} is not valid yet"), "see the clock".to_owned())
        }
        Tls::InvalidMessage(_) => {
            (format!("{host} does not speak TLS"), format!("--plain-http {host} speaks to it unprotected"))
        }
        error => {
            let error = Error::other(format!("TLS with {host}: {}", printable(&error.to_string())));
            return Failure::never(error);
        }
    };
    Failure::never(Error::other(cause).hint(hint))
}

/// The errors that a registry answers with (distribution-spec, "Error Codes").
#[derive(Deserialize)]
struct Answer {
    errors: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What was asked for, where an answer is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Manifest,
    Blob,
    Token,
}

/// The failure that an answer with this status is; `body` is the beginning of what came with it.
pub fn of_status(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    host: &str,
    asked: Asked,
    knows_login: bool,
) -> Failure {
    let said = serde_json::from_slice::<Answer>(body).ok().and_then(|answer| answer.errors.into_iter().next());
    let code = said.as_ref().map_or("", |said| said.code.as_str());
    let mut cause = format!("{host} answers {}", status.as_str());
    if let Some(reason) = status.canonical_reason() {
        cause = format!("{cause} {reason}");
    }
    if let Some(said) = &said {
        cause = format!("{cause}: {}", printable(&said.code));
        if !said.message.is_empty() && said.message != said.code {
            cause = format!("{cause}: {}", printable(&said.message));
        }
    }
    let wait = headers.get("retry-after").and_then(|value| value.to_str().ok()).and_then(seconds);
    let again = match status.as_u16() {
        408 | 425 | 429 | 500 | 502..=504 => wait.map_or(Again::Yes, Again::After),
        416 => Again::WithoutRange,
        _ => Again::Never,
    };
    let login = match knows_login {
        true => format!("the login that is known for {host} does not allow it, or the repository does not exist"),
        false => format!(
            "the repository does not exist or needs a login: after `docker login {host}` or `podman login {host}` Kelson finds it \
             in their files"
        ),
    };
    let hint = match (status.as_u16(), code, asked) {
        (401 | 403, ..) => login,
        (404, "NAME_UNKNOWN", _) => "the registry has no such repository: see the name".to_owned(),
        (404, _, Asked::Manifest) => {
            "the repository has no such tag or digest, or there is no such repository".to_owned()
        }
        (404, ..) => "the registry has lost it: whoever owns the image pushes it again".to_owned(),
        (429, ..) => {
            let time = wait.map_or("later".to_owned(), |wait| format!("in {} s", wait.as_secs()));
            let login = if knows_login { String::new() } else { format!(", or with a login (`docker login {host}`)") };
            format!("the registry limits how much is fetched: try again {time}{login}")
        }
        (500..=599, ..) => "the registry is in trouble: try again later".to_owned(),
        _ => return Failure { error: Error::other(cause), again },
    };
    Failure { error: Error::other(cause).hint(hint), again }
}

/// Retry-After in seconds. A date, which it can be too, would need the two clocks to be alike: it is not read.
fn seconds(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// What a registry says, so that it can be shown: one line, no control characters, not too long.
pub fn printable(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|letter| if letter.is_control() || is_invisible(letter) { ' ' } else { letter })
        .take(MAX_TEXT)
        .collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Marks that change the direction of what follows: they make a line read as another one.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
