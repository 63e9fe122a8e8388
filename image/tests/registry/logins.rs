//! Tokens, logins and where they go: the registry client against registries that want to know who asks.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::faulty::{Closed, Image, Reply, Request, Server, options};
use crate::real::certificate;
use crate::scratch::{Directory, have, run};
use kelson_image::registry::{Client, Environment, Login, Options, Version};

const CHALLENGE: &str =
    r#"Bearer realm="http://REALM/token?x=1",service="the registry",scope="repository:other/place:push""#;

fn unauthorized(challenge: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge)
}

fn password() -> Login {
    Login::Password { name: "me".into(), password: "SECRET".into() }
}

fn with_login(login: Option<Login>) -> Options {
    Options { login, ..options() }
}

/// A token server that answers by `token`, and a registry that takes what `accepts` says.
fn with_tokens(
    token: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    accepts: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> (Server, Server, Image) {
    let count = AtomicUsize::new(0);
    let tokens = Server::start(move |request| token(count.fetch_add(1, SeqCst), request));
    let (image, challenge) = (Image::new(), CHALLENGE.replace("REALM", &tokens.host));
    let served = image.clone();
    let registry = Server::start(move |request| match request.header("authorization") {
        Some(value) if accepts(value) => served.answer(request),
        _ => unauthorized(&challenge),
    });
    (tokens, registry, image)
}

fn layer(client: &Client, image: &Image) -> Result<(), String> {
    let mut bytes = vec![];
    let mut blob = client.blob(Image::REPOSITORY, &image.descriptor()).map_err(|error| error.to_string())?;
    blob.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    assert_eq!(bytes, image.layer);
    Ok(())
}

#[test]
fn one_token_is_enough_for_a_repository() {
    for name in ["token", "access_token"] {
        let answer = format!(r#"{{"{name}":"T1","expires_in":300}}"#);
        let (tokens, registry, image) =
            with_tokens(move |_, _| Reply::new(200, answer.as_str()), |value| value == "Bearer T1");
        let client = registry.client();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| layer(&client, &image).unwrap());
            }
        });
        client.manifest(Image::REPOSITORY, Version::Tag("1")).unwrap();
        let asked = tokens.seen();
        assert_eq!(asked.len(), 1);
        // The scope is what is needed, whatever the registry says.
        assert_eq!(asked[0].path, "/token?x=1&scope=repository%3Aa%2Fb%3Apull&service=the%20registry");
        assert_eq!(asked[0].header("authorization"), None);
    }
}

/// A registry that asks for a token was reached.
#[test]
fn a_token_server_that_cannot_be_reached_yet() {
    let (closed, count, image) = (Closed::refusing(), AtomicUsize::new(0), Image::new());
    let (challenge, served) = (CHALLENGE.replace("REALM", &closed.host()), image.clone());
    let registry = Server::start(move |request| {
        if request.header("authorization").is_some() {
            return served.answer(request);
        }
        if count.fetch_add(1, SeqCst) == 1 {
            closed.open(|_| Reply::new(200, r#"{"token":"T"}"#));
        }
        unauthorized(&challenge)
    });
    let document = registry.client().manifest(Image::REPOSITORY, Version::Tag("1")).unwrap();
    assert_eq!(document.bytes, image.manifest);
    assert_eq!(registry.seen().iter().filter(|request| request.header("authorization").is_none()).count(), 2);
}

#[test]
fn a_token_that_expired_is_replaced_once() {
    let serial = |number, _: &Request| Reply::new(200, format!(r#"{{"token":"T{number}"}}"#));
    let uses = AtomicUsize::new(0);
    // The first token is good for one request.
    let accepts = move |value: &str| value == "Bearer T1" || value == "Bearer T0" && uses.fetch_add(1, SeqCst) == 0;
    let (tokens, registry, image) = with_tokens(serial, accepts);
    let client = registry.client();
    client.manifest(Image::REPOSITORY, Version::Tag("1")).unwrap();
    layer(&client, &image).unwrap();
    layer(&client, &image).unwrap();
    assert_eq!(tokens.seen().len(), 2);
    // One that is refused at once is not asked for again and again.
    let (tokens, registry, _) = with_tokens(serial, |_| false);
    let error = registry.client().manifest(Image::REPOSITORY, Version::Tag("1")).unwrap_err().to_string();
    assert!(error.contains("401 Unauthorized: UNAUTHORIZED: authentication required"), "{error}");
    assert_eq!(tokens.seen().len(), 1);
}

#[test]
fn a_password_goes_to_the_token_server_and_the_token_to_the_registry() {
    let (tokens, registry, image) =
        with_tokens(|_, _| Reply::new(200, r#"{"token":"T"}"#), |value| value == "Bearer T");
    let client = Client::new(&registry.host, with_login(Some(password()))).unwrap();
    layer(&client, &image).unwrap();
    let asked = &tokens.seen()[0];
    assert_eq!(asked.header("authorization"), Some("Basic bWU6U0VDUkVU"));
    assert!(asked.path.contains("account=me"), "{}", asked.path);
    assert!(
        registry.seen().iter().all(|request| request.header("authorization").is_none_or(|value| value == "Bearer T"))
    );
}

#[test]
fn an_identity_is_posted() {
    let (tokens, registry, image) =
        with_tokens(|_, _| Reply::new(200, r#"{"access_token":"T"}"#), |value| value == "Bearer T");
    let client = Client::new(&registry.host, with_login(Some(Login::Identity("SECRET&".into())))).unwrap();
    layer(&client, &image).unwrap();
    let asked = &tokens.seen()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/token?x=1"));
    assert!(asked.body.contains("grant_type=refresh_token&refresh_token=SECRET%26"), "{}", asked.body);
}

#[test]
fn a_token_of_a_file_is_sent_as_it_is() {
    let (tokens, registry, image) = with_tokens(|_, _| Reply::new(500, ""), |value| value == "Bearer T");
    let client = Client::new(&registry.host, with_login(Some(Login::Token("T".into())))).unwrap();
    layer(&client, &image).unwrap();
    assert!(tokens.seen().is_empty());
}

#[test]
fn token_servers_that_give_no_token() {
    for (reply, why) in [
        (Reply::new(200, ""), "answers with no token"),
        (Reply::new(200, "{}"), "answers with no token"),
        (Reply::new(200, r#"{"token":7,"x":"SECRET"}"#), "answers with no token"),
        (Reply::new(200, r#"{"token":"a\nb"}"#), "cannot be sent"),
        (Reply::new(200, vec![b' '; 300 << 10]), "more than 262144 bytes"),
        (
            Reply::error(401, "UNAUTHORIZED", "incorrect username or password"),
            "incorrect username or password (the login that is",
        ),
        (Reply::new(404, ""), "404 Not Found"),
        (Reply::redirect("http://localhost:1/"), "nothing listens at localhost:1"),
    ] {
        let (_tokens, registry, _) = with_tokens(move |_, _| reply.clone(), |_| false);
        let client = Client::new(&registry.host, with_login(Some(password()))).unwrap();
        let error = client.manifest(Image::REPOSITORY, Version::Tag("1")).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("SECRET") && !error.contains("U0VDUkVU"), "{error}");
    }
}

#[test]
fn a_token_server_in_trouble_is_asked_again() {
    let answer =
        |number, _: &Request| if number < 2 { Reply::new(503, "") } else { Reply::new(200, r#"{"token":"T"}"#) };
    let (_tokens, registry, image) = with_tokens(answer, |value| value == "Bearer T");
    layer(&registry.client(), &image).unwrap();
}

#[test]
fn a_token_servers_redirect_does_not_take_the_password_along() {
    let stranger = Server::start(|_| Reply::new(200, r#"{"token":"T"}"#));
    let to = format!("http://{}/", stranger.host);
    let (_tokens, registry, image) = with_tokens(move |_, _| Reply::redirect(to.as_str()), |value| value == "Bearer T");
    layer(&Client::new(&registry.host, with_login(Some(password()))).unwrap(), &image).unwrap();
    assert_eq!(stranger.seen()[0].header("authorization"), None);
}

#[test]
fn a_password_goes_to_the_registry_that_asks_for_one() {
    let image = Image::new();
    let served = image.clone();
    let registry = Server::start(move |request| match request.header("authorization") {
        Some("Basic bWU6U0VDUkVU") => served.answer(request),
        _ => unauthorized("Basic realm=\"x\""),
    });
    layer(&Client::new(&registry.host, with_login(Some(password()))).unwrap(), &image).unwrap();
    let error = layer(&registry.client(), &image).unwrap_err();
    assert!(error.contains("wants a login and none is known") && error.contains("docker login 127.0.0.1:"), "{error}");
    let wrong = Login::Password { name: "me".into(), password: "WRONG".into() };
    let error = layer(&Client::new(&registry.host, with_login(Some(wrong))).unwrap(), &image).unwrap_err();
    assert!(error.contains("the login that is known for 127.0.0.1:") && !error.contains("WRONG"), "{error}");
}

#[test]
fn challenges_that_cannot_be_met() {
    for (challenge, why) in [
        ("Negotiate", "wants negotiate for a login"),
        ("", "wants nothing"),
        ("Bearer service=\"x\"", "without an address"),
        ("Bearer realm=\"http://example.invalid/token\"", "without TLS: no login goes there"),
        ("Bearer realm=\"nowhere\"", "address is none"),
        ("Bearer realm=\"file:///etc/passwd\"", "address is none"),
    ] {
        let registry = Server::start(move |_| unauthorized(challenge));
        let client = Client::new(&registry.host, with_login(Some(password()))).unwrap();
        let error = client.manifest(Image::REPOSITORY, Version::Tag("1")).unwrap_err().to_string();
        assert!(error.contains(why), "{challenge}: {error}");
    }
}

#[test]
fn logins_are_found_in_a_file_and_by_a_helper() {
    let directory = Directory::new("helper");
    let image = Image::new();
    let served = image.clone();
    let registry = Server::start(move |request| match request.header("authorization") {
        Some("Basic bWU6U0VDUkVU") => served.answer(request),
        _ => unauthorized("Basic"),
    });
    let host = &registry.host;
    let client = |file: &PathBuf| {
        let variables = [("REGISTRY_AUTH_FILE", file.as_os_str()), ("PATH", directory.0.as_os_str())];
        Client::new(host, Options { environment: Environment::from_iter(variables), ..options() }).unwrap()
    };
    let in_file = directory.write("auth.json", format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6U0VDUkVU"}}}}}}"#));
    layer(&client(&in_file), &image).unwrap();

    // Written by another program: a child of another test that has not executed yet would hold it open, and it could not be run.
    let helper = |name: &str, script: &str| {
        directory.write("script", format!("#!/bin/sh\n{script}"));
        run("install", &["-m", "755", "script", &format!("docker-credential-{name}")], &directory.0);
    };
    let script = format!(
        r#"[ "$1" = get ] || exit 3
read -r server
[ "$server" = "{host}" ] || {{ echo "credentials not found in native keychain"; exit 1; }}
echo '{{"ServerURL":"x","Username":"me","Secret":"SECRET"}}'"#
    );
    helper("good", &script);
    helper("broken", "echo it is locked; exit 1");
    helper("empty", "echo credentials not found in native keychain; exit 1");
    helper("odd", "echo SECRET");
    for (name, text, outcome) in [
        ("store", r#"{"credsStore":"good"}"#.to_owned(), Ok(())),
        ("of-host", format!(r#"{{"credsStore":"broken","credHelpers":{{"{host}":"good"}}}}"#), Ok(())),
        ("behind-store", format!(r#"{{"credsStore":"empty","auths":{{"{host}":{{"auth":"bWU6U0VDUkVU"}}}}}}"#), Ok(())),
        ("none", r#"{"credsStore":"empty"}"#.to_owned(), Err("none is known")),
        ("locked", r#"{"credsStore":"broken"}"#.to_owned(), Err("exit status: 1: it is locked")),
        ("absent", r#"{"credsStore":"absent"}"#.to_owned(), Err("ask docker-credential-absent")),
        ("path", r#"{"credsStore":"../x"}"#.to_owned(), Err("its name is none")),
        ("wrong-answer", r#"{"credsStore":"odd"}"#.to_owned(), Err("its answer is not of the form")),
    ] {
        let file = directory.write(name, &text);
        match (layer(&client(&file), &image), outcome) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(why)) => assert!(error.contains(why) && !error.contains("SECRET"), "{name}: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn a_registry_behind_a_proxy() {
    let image = Image::new();
    let served = image.clone();
    // The helper takes CONNECT and goes on as the registry that was meant.
    let proxy = Server::start(move |request| served.answer(request));
    let with = |variables: &[(&str, String)]| {
        let environment = variables.iter().map(|(name, value)| (*name, value.as_str()));
        let plain_http = vec!["registry.example:5000".into(), "registry.example".into()];
        Options { environment: environment.collect(), plain_http, ..options() }
    };
    let address = format!("http://me:SECRET@{}", proxy.host);
    let client = Client::new("registry.example:5000", with(&[("HTTP_PROXY", address.clone())])).unwrap();
    layer(&client, &image).unwrap();
    let connect = &proxy.seen()[0];
    assert_eq!((connect.method.as_str(), connect.path.as_str()), ("CONNECT", "registry.example:5000"));
    assert_eq!(connect.header("proxy-authorization"), Some("Basic bWU6U0VDUkVU"));

    let client = Client::new("registry.example", with(&[("HTTP_PROXY", address.clone())])).unwrap();
    let error = client.manifest("a", Version::Tag("1")).unwrap_err().to_string();
    assert!(error.contains("does not connect to registry.example") && error.contains("403"), "{error}");
    assert!(error.contains("NO_PROXY") && error.contains("CONNECT") && !error.contains("SECRET"), "{error}");

    for (value, why) in [("socks5://x", "neither HTTP nor HTTPS"), ("http://SECRET:x y", "no address of a proxy")] {
        let client = Client::new("registry.example:5000", with(&[("HTTP_PROXY", value.to_owned())])).unwrap();
        let error = client.manifest("a", Version::Tag("1")).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("SECRET"), "{error}");
    }
    if !have(&[("openssl", "openssl")]) {
        return;
    }
    let directory = Directory::new("proxy");
    certificate(&directory.0, "ca", None);
    let options =
        with(&[("https_proxy", address), ("SSL_CERT_FILE", directory.0.join("ca.crt").display().to_string())]);
    let error = Client::new("tls.example", options).unwrap().manifest("a", Version::Tag("1")).unwrap_err().to_string();
    assert!(error.contains("tls.example does not speak TLS (--plain-http tls.example"), "{error}");
}
