//! What a registry wants to know before it answers: a token from its token server, or name and password.
//!
//! A password goes to the registry that it is for and to the token server that this registry names, as docker's client has it; both by
//! TLS, unless the registry itself is spoken to without.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kelson::error::{Error, Result};
use serde::Deserialize;
use ureq::http::{HeaderMap, HeaderValue, Uri, header};

use super::connection::{Connections, is_loopback};
use super::credentials::{self, Login};
use super::failure::{self, Asked, Failure, printable};
use super::http::{self, Ask, host_of, is_same_origin};

/// Most bytes of a token server's answer.
const MAX_TOKEN: u64 = 256 << 10;
/// How long a token is good of which the server does not say (distribution's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// What goes into the header `Authorization`, and which of those that were made it is.
#[derive(Clone)]
pub struct Authorization {
    pub value: HeaderValue,
    number: u64,
    until: Option<Instant>,
}

/// The authorizations of this run, by repository.
pub struct Authorizations {
    host: String,
    known: Mutex<HashMap<String, Authorization>>,
}

/// What the header `WWW-Authenticate` asks for (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

impl Authorizations {
    /// For the registry that names and files call `host`.
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), known: Mutex::default() }
    }

    /// What is known for the repository and still good.
    pub fn known(&self, repository: &str) -> Option<Authorization> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // One that expired must not be taken for one that another thread has just got.
        known.retain(|_, one| one.until.is_none_or(|until| Instant::now() < until));
        known.get(repository).cloned()
    }

    /// A new one, after the registry at `registry` refused `refused` with these headers.
    ///
    /// Of several threads that are refused at once the first asks the token server, and the others take what it got.
    pub fn renew(
        &self,
        connections: &Connections,
        registry: &Uri,
        repository: &str,
        headers: &HeaderMap,
        refused: Option<&Authorization>,
    ) -> Result<Authorization, Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newer) =
            known.get(repository).filter(|known| Some(known.number) != refused.map(|refused| refused.number))
        {
            return Ok(newer.clone());
        }
        let challenges: Vec<_> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenges)
            .collect();
        let login = match &connections.options().login {
            Some(login) => Some(login.clone()),
            None => credentials::find(&connections.options().environment, &self.host, repository)?,
        };
        let find = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let (text, life) = match (find("bearer"), find("basic"), login) {
            (_, _, Some(Login::Token(token))) => (format!("Bearer {token}"), None),
            (Some(challenge), _, login) => {
                let token = token(connections, registry, repository, challenge, login)?;
                let life = token.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).max(DEFAULT_LIFE);
                (format!("Bearer {}", token.token), Some(life))
            }
            (None, Some(_), Some(Login::Password { name, password })) => (basic(&name, &password), None),
            (None, Some(_), Some(Login::Identity(_))) => {
                return Err(Error::other(format!("{} takes a password and the login is a token", self.host)).into());
            }
            (None, Some(_), None) => return Err(self.no_login()),
            (None, None, _) => {
                let schemes: Vec<_> = challenges.iter().map(|challenge| printable(&challenge.scheme)).collect();
                let wanted = if schemes.is_empty() { "nothing".into() } else { schemes.join(", ") };
                return Err(Error::other(format!(
                    "{} wants {wanted} for a login; Basic and Bearer are known",
                    self.host
                ))
                .into());
            }
        };
        let number = refused.map_or(0, |refused| refused.number + 1);
        let invalid = |_| Failure::never(Error::other("the login or token has characters that cannot be sent"));
        let mut value = HeaderValue::from_str(&text).map_err(invalid)?;
        value.set_sensitive(true);
        let until = life.and_then(|life| Instant::now().checked_add(life));
        let new = Authorization { value, number, until };
        known.insert(repository.to_owned(), new.clone());
        Ok(new)
    }

    fn no_login(&self) -> Failure {
        let host = &self.host;
        let error = Error::other(format!("{host} wants a login and none is known"));
        Failure::never(error.hint(format!("`docker login {host}` or `podman login {host}`: Kelson reads their files")))
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

/// A token for the repository from the server that the challenge names.
fn token(
    connections: &Connections,
    registry: &Uri,
    repository: &str,
    challenge: &Challenge,
    login: Option<Login>,
) -> Result<Token, Failure> {
    let realm = realm(registry, challenge)?;
    let mut query = vec![("scope", format!("repository:{repository}:pull"))];
    query.extend(challenge.parameter("service").map(|service| ("service", service.to_owned())));
    let knows_login = login.is_some();
    let mut answer = match login {
        Some(Login::Identity(identity)) => {
            query.push(("client_id", "kelson".to_owned()));
            query.push(("grant_type", "refresh_token".to_owned()));
            query.push(("refresh_token", identity));
            let form = encode(&query);
            http::fetch(
                connections,
                &Ask { uri: &realm, accept: "application/json", from: 0, authorization: None, form: Some(&form) },
            )?
        }
        login => {
            let mut authorization = None;
            if let Some(Login::Password { name, password }) = login {
                let invalid = |_| Failure::never(Error::other("the login has characters that cannot be sent"));
                authorization = Some(HeaderValue::from_str(&basic(&name, &password)).map_err(invalid)?);
                query.push(("account", name));
            }
            let joint = if realm.query().is_some() { '&' } else { '?' };
            let uri = format!("{realm}{joint}{}", encode(&query));
            let invalid = |_| Failure::never(Error::other("the address of the token server is none"));
            let uri: Uri = uri.parse().map_err(invalid)?;
            let authorization = authorization.as_ref();
            http::fetch(
                connections,
                &Ask { uri: &uri, accept: "application/json", from: 0, authorization, form: None },
            )?
        }
    };
    let (status, host) = (answer.response.status(), answer.host().to_owned());
    if status != 200 {
        let said = answer.explanation();
        let headers = answer.response.headers();
        return Err(failure::of_status(status, headers, &said, &host, Asked::Token, knows_login));
    }
    let bytes = answer.read(MAX_TOKEN, connections)?;
    let wrong = || Failure::never(Error::other(format!("{host} answers with no token")));
    // What came is not shown, whatever it is.
    let mut token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    if token.token.is_empty() {
        token.token = std::mem::take(&mut token.access_token);
    }
    if token.token.is_empty() { Err(wrong()) } else { Ok(token) }
}

/// The address of the token server.
fn realm(registry: &Uri, challenge: &Challenge) -> Result<Uri, Failure> {
    let host = host_of(registry);
    let wrong = |why: &str| Failure::never(Error::other(format!("{host} names a token server {why}")));
    let realm = challenge.parameter("realm").ok_or_else(|| wrong("without an address"))?;
    let realm: Uri = realm.parse().map_err(|_| wrong("whose address is none"))?;
    if host_of(&realm).contains('@') || realm.host().is_none() {
        return Err(wrong("whose address is none"));
    }
    // Without TLS only where the registry is spoken to so as well: on this machine, or at the very same place.
    let is_same_host = is_same_origin(registry, &realm) || realm.host().is_some_and(is_loopback);
    match realm.scheme_str() {
        Some("https") => Ok(realm),
        Some("http") if registry.scheme_str() == Some("http") && is_same_host => Ok(realm),
        Some("http") => Err(wrong("that is spoken to without TLS: no login goes there")),
        _ => Err(wrong("whose address is none")),
    }
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one header; what does not follow the grammar ends them.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut all: Vec<Challenge> = vec![];
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|letter: char| !is_token(letter)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return all;
        }
        let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
            all.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: vec![] });
            rest = after;
            continue;
        };
        let (Some(challenge), Some((value, after))) = (all.last_mut(), value_of(value.trim_start_matches([' ', '\t'])))
        else {
            return all;
        };
        challenge.parameters.push((word.to_ascii_lowercase(), value));
        rest = after;
    }
}

/// A value, quoted or not, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|letter: char| !is_token(letter)).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let (mut value, mut letters) = (String::new(), quoted.char_indices());
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

/// RFC 9110's token68 and token without what is never in them here.
fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(letter)
}

/// `application/x-www-form-urlencoded`
fn encode(pairs: &[(&str, String)]) -> String {
    let one = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    pairs.iter().map(|(name, value)| format!("{}={}", one(name), one(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_asks_for() {
        let parameters = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (text, expected) in [
            ("Basic", vec![("basic", vec![])]),
            (r#"Basic realm="a, b=\"c\"""#, vec![("basic", parameters(&[("realm", r#"a, b="c""#)]))]),
            (
                r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#,
                vec![(
                    "bearer",
                    parameters(&[("realm", "https://a/t"), ("service", "s"), ("scope", "repository:a/b:pull,push")]),
                )],
            ),
            (
                r#"Negotiate, BEARER Realm = x , basic realm="y""#,
                vec![
                    ("negotiate", vec![]),
                    ("bearer", parameters(&[("realm", "x")])),
                    ("basic", parameters(&[("realm", "y")])),
                ],
            ),
            ("", vec![]),
            ("realm=x", vec![]),
            (r#"Bearer realm="x"#, vec![("bearer", vec![])]),
            ("\u{1b}[m", vec![]),
        ] {
            let found: Vec<_> =
                challenges(text).into_iter().map(|challenge| (challenge.scheme, challenge.parameters)).collect();
            let expected: Vec<_> =
                expected.into_iter().map(|(scheme, parameters)| (scheme.to_owned(), parameters)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn which_token_servers_are_asked() {
        for (registry, realm, is_fine) in [
            ("https://registry-1.docker.io/v2/", "https://auth.docker.io/token", true),
            ("https://a/", "http://a/token", false),
            ("https://a/", "http://127.0.0.1/token", false),
            ("http://localhost:5000/", "http://127.0.0.1:5001/token", true),
            ("http://a:5000/", "http://a:5000/token", true),
            ("http://a:5000/", "http://b/token", false),
            ("http://a:5000/", "http://a.localhost.example/token", false),
            ("https://a/", "https://name:password@b/token", false),
            ("https://a/", "/token", false),
            ("https://a/", "file:///etc/passwd", false),
        ] {
            let challenge = Challenge { scheme: String::new(), parameters: vec![("realm".into(), realm.into())] };
            assert_eq!(super::realm(&registry.parse().unwrap(), &challenge).is_ok(), is_fine, "{registry} {realm}");
        }
    }

    #[test]
    fn what_expired_is_forgotten() {
        let authorizations = Authorizations::new("a");
        let mut one = Authorization { value: HeaderValue::from_static("x"), number: 0, until: None };
        for (until, is_known) in [(None, true), (Some(Duration::from_secs(60)), true), (Some(Duration::ZERO), false)] {
            one.until = until.map(|life| Instant::now() + life);
            authorizations.known.lock().unwrap().insert("b".into(), one.clone());
            assert_eq!(authorizations.known("b").is_some(), is_known);
        }
        assert!(authorizations.known.lock().unwrap().is_empty());
    }

    #[test]
    fn a_form_is_encoded() {
        assert_eq!(
            encode(&[("scope", "a/b:c d&e=é".into()), ("x", "~".into())]),
            "scope=a%2Fb%3Ac%20d%26e%3D%C3%A9&x=~"
        );
    }
}
