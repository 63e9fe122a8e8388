//! Logins, where docker and podman keep them: docker's config.json, containers-auth.json(5), and credential helpers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use kelson::error::{Context, Error, Result};
use serde::Deserialize;

use super::failure::printable;
use super::options::Environment;

/// Most bytes of such a file, and of what a helper says.
const MAX_SIZE: u64 = 4 << 20;
/// What docker calls its own registry in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// How a user is known to a registry. It has no Debug: nothing of it may be printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        name: String,
        password: String,
    },
    /// For which the registry's token server gives tokens (OAuth2's refresh token).
    Identity(String),
    /// Is sent as it is.
    Token(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `name:password` in base64.
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers to `get`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// The login for a repository of a registry, from the first file that has one.
///
/// # Errors
/// A file cannot be read or is broken, or a helper fails: going on without could fetch something else than was meant.
pub fn find(environment: &Environment, host: &str, repository: &str) -> Result<Option<Login>> {
    for path in files(environment) {
        let what = || format!("read logins from {}", path.display());
        let Some(file) = load(&path).doing(what)? else { continue };
        if let Some(login) = file.find(environment, host, repository).doing(what)? {
            return Ok(Some(login));
        }
    }
    Ok(None)
}

/// Where logins are looked for, in podman's order: its own files, then docker's.
fn files(environment: &Environment) -> Vec<PathBuf> {
    if let Some(named) = environment.text("REGISTRY_AUTH_FILE") {
        return vec![named.into()];
    }
    let home = environment.path("HOME");
    let runtime = environment.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let runtime = runtime.unwrap_or_else(|| format!("/run/containers/{}/auth.json", nix::unistd::getuid()).into());
    let config = environment.path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = environment.text("DOCKER_CONFIG").map(PathBuf::from);
    let docker = docker.or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let others = [config.map(|dir| dir.join("containers/auth.json")), docker.map(|dir| dir.join("config.json"))];
    std::iter::once(runtime).chain(others.into_iter().flatten()).collect()
}

/// The file, if there is one.
fn load(path: &Path) -> Result<Option<File>> {
    let mut text = vec![];
    match fs::File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        file => file?.take(MAX_SIZE).read_to_end(&mut text)?,
    };
    // docker takes an empty file for none.
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    // serde's message may show a value, which may be a secret.
    let wrong = |error: serde_json::Error| {
        Error::other(format!("it is not of docker's form (line {}, column {})", error.line(), error.column()))
    };
    serde_json::from_slice(&text).map(Some).map_err(wrong)
}

impl File {
    fn find(&self, environment: &Environment, host: &str, repository: &str) -> Result<Option<Login>> {
        let helper = self.cred_helpers.iter().find(|(key, _)| host_of(key) == host_of(host));
        if let Some((_, name)) = helper {
            return ask_helper(environment, name, host);
        }
        if !self.creds_store.is_empty()
            && let Some(login) = ask_helper(environment, &self.creds_store, host)?
        {
            return Ok(Some(login));
        }
        self.entry(host, repository).map_or(Ok(None), Entry::login)
    }

    /// The entry for the repository, for what it is below of, or for the registry.
    fn entry(&self, host: &str, repository: &str) -> Option<&Entry> {
        let mut scope = format!("{host}/{repository}");
        while scope.contains('/') {
            if let Some(entry) = self.auths.get(&scope) {
                return Some(entry);
            }
            scope.truncate(scope.rfind('/')?);
        }
        let exact = self.auths.get(host);
        let is_host = |key: &str| !is_repository(key) && host_of(key) == host_of(host);
        exact.or_else(|| self.auths.iter().find(|(key, _)| is_host(key)).map(|(_, entry)| entry))
    }
}

impl Entry {
    fn login(&self) -> Result<Option<Login>> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Login::Token(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(self.identitytoken.clone())));
        }
        if !self.auth.is_empty() {
            let wrong = || Error::other("a login in it is not name:password in base64").hint("log in again");
            let (name, password) = decode(&self.auth).ok_or_else(wrong)?;
            return Ok(Some(Login::Password { name, password }));
        }
        // An empty entry says that a helper has the login.
        let (name, password) = (self.username.clone(), self.password.clone());
        Ok((!name.is_empty()).then_some(Login::Password { name, password }))
    }
}

/// `name:password` in base64, with padding or without.
fn decode(text: &str) -> Option<(String, String)> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, config).decode(text.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, password) = text.split_once(':')?;
    // docker 1.x ended passwords by NUL.
    Some((name.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Whether a key is that of a repository or of what is above some: `quay.io/project`. An address is not.
fn is_repository(key: &str) -> bool {
    !key.contains("://")
        && key.split_once('/').is_some_and(|(_, path)| !matches!(path, "" | "v1" | "v1/" | "v2" | "v2/"))
}

/// The host that a key is for; docker's own registry has several names.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match key.split('/').next().unwrap_or(key) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The login that the program docker-credential-NAME has for the host.
fn ask_helper(environment: &Environment, name: &str, host: &str) -> Result<Option<Login>> {
    let program = format!("docker-credential-{name}");
    let what = || format!("ask {program} for the login at {host}");
    if name.is_empty() || name.contains('/') {
        return Err(Error::other("its name is none")).doing(what);
    }
    let server = if host_of(host) == "docker.io" { DOCKER_HUB } else { host };
    let mut child = Command::new(&program)
        .arg("get")
        .env_clear()
        .envs(environment.iter())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .doing(what)
        .hint(|| "a credsStore or credHelpers entry names it: log in again or remove the entry")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that has ended already is judged by how.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut output = vec![];
    let read = child.stdout.take().map_or(Ok(0), |stdout| stdout.take(MAX_SIZE).read_to_end(&mut output));
    let status = child.wait().doing(what)?;
    read.doing(what)?;
    if status.success() {
        let wrong = |error: serde_json::Error| {
            Error::other(format!("its answer is not of the form (line {}, column {})", error.line(), error.column()))
        };
        let helped: Helped = serde_json::from_slice(&output).map_err(wrong).doing(what)?;
        return Ok(Some(match helped.username.as_str() {
            "<token>" => Login::Identity(helped.secret),
            _ => Login::Password { name: helped.username, password: helped.secret },
        }));
    }
    let said = printable(&String::from_utf8_lossy(&output));
    // The words of docker-credential-helpers, by which docker and podman know it.
    if said.contains("credentials not found in native keychain") {
        return Ok(None);
    }
    Err(Error::other(format!("{status}: {said}"))).doing(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        serde_json::from_str(text).unwrap()
    }

    /// The name of the login that is found.
    fn name(file: &File, host: &str, repository: &str) -> Option<String> {
        match file.find(&Environment::default(), host, repository) {
            Ok(Some(Login::Password { name, .. })) => Some(name),
            Ok(Some(Login::Identity(token) | Login::Token(token))) => Some(token),
            Ok(None) => None,
            Err(error) => Some(format!("error: {error}")),
        }
    }

    #[test]
    fn the_nearest_entry_counts() {
        let entry = |name: &str| format!(r#"{{"username":"{name}","password":"p"}}"#);
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"quay.io":{},"quay.io/a":{},"quay.io/a/b":{},"http://old:5000/v1/":{},
            "docker.io/me/tool":{},"evil.example/v1/quay.io":{}}}}}"#,
            entry("hub"),
            entry("quay"),
            entry("a"),
            entry("ab"),
            entry("old"),
            entry("mine"),
            entry("evil"),
        );
        let file = file(&text);
        for (host, repository, found) in [
            ("docker.io", "library/busybox", Some("hub")),
            ("docker.io", "me/tool", Some("mine")),
            ("quay.io", "x", Some("quay")),
            ("quay.io", "a", Some("a")),
            ("quay.io", "a/c", Some("a")),
            ("quay.io", "ab/c", Some("quay")),
            ("quay.io", "a/b/c", Some("ab")),
            ("old:5000", "x", Some("old")),
            ("old", "x", None),
            ("io", "x", None),
            ("evil.example", "x", None),
        ] {
            assert_eq!(name(&file, host, repository).as_deref(), found, "{host}/{repository}");
        }
    }

    #[test]
    fn the_forms_of_an_entry() {
        for (entry, found) in [
            (r#"{"auth":"bmFtZTpwOnE="}"#, Some("name")),
            (r#"{"auth":"bmFtZTpwOnE"}"#, Some("name")),
            (r#"{"auth":"bmFtZTpw","identitytoken":"it"}"#, Some("it")),
            (r#"{"registrytoken":"rt"}"#, Some("rt")),
            (r#"{"email":"a@b","username":"n"}"#, Some("n")),
            ("{}", None),
            (r#"{"auth":"!"}"#, Some("error: a login in it is not name:password in base64 (log in again)")),
        ] {
            let file = file(&format!(r#"{{"auths":{{"h":{entry}}}}}"#));
            assert_eq!(name(&file, "h", "x").as_deref(), found, "{entry}");
        }
        assert!(decode("bmFtZTpwOnE=") == Some(("name".into(), "p:q".into())));
    }

    #[test]
    fn where_the_files_are() {
        let paths = |variables: &[(&str, &str)]| -> Vec<String> {
            let found = files(&variables.iter().copied().collect());
            found.iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(paths(&[("REGISTRY_AUTH_FILE", "mine"), ("HOME", "/h")]), ["mine"]);
        assert_eq!(
            paths(&[("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h")]),
            ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(
            paths(&[("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d"), ("HOME", "/h")]),
            ["/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json"]
        );
        assert_eq!(paths(&[]), [format!("/run/containers/{}/auth.json", nix::unistd::getuid())]);
    }

    #[test]
    fn a_broken_file_shows_none_of_its_secrets() {
        let path = std::env::temp_dir().join(format!("kelson-logins-{}", std::process::id()));
        fs::write(&path, r#"{"auths":{"h":{"auth":{"SECRET":1}}, "creds": "SECRET"}, SECRET"#).unwrap();
        let error = load(&path).map(|_| ()).unwrap_err().to_string();
        fs::remove_file(&path).unwrap();
        assert!(error.contains("line 1") && !error.contains("SECRET"), "{error}");
    }
}
