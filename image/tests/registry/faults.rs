//! The registry client against registries that are slow, broken, forgetful or hostile.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::faulty::{Body, Closed, Image, Reply, Request, Server, descriptor_of, digest_of, options};
use kelson_image::manifest::{Content, OCI_MANIFEST};
use kelson_image::registry::{Client, Options, Version};

/// A registry that answers the `number`-th request for the layer by `fault`, and everything else rightly.
fn layer_server(fault: impl Fn(usize, &Request, Reply) -> Reply + Send + Sync + 'static) -> (Server, Image) {
    let (image, count) = (Image::new(), AtomicUsize::new(0));
    let served = image.clone();
    let layer = digest_of(&image.layer).hex();
    let server = Server::start(move |request| {
        let right = served.answer(request);
        if request.path.ends_with(&layer) { fault(count.fetch_add(1, SeqCst), request, right) } else { right }
    });
    (server, image)
}

/// The layer as the client gives it, or what it says.
fn fetched(client: &Client, image: &Image) -> Result<Vec<u8>, String> {
    let mut bytes = vec![];
    let mut blob = client.blob(Image::REPOSITORY, &image.descriptor()).map_err(|error| error.to_string())?;
    blob.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The error of asking for the manifest of the tag `1` of a registry that answers so.
fn manifest_error(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> String {
    let server = Server::start(answer);
    let found = server.client().manifest(Image::REPOSITORY, Version::Tag("1"));
    found.map(|document| document.digest.to_string()).unwrap_err().to_string()
}

fn options_with(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = options();
    change(&mut options);
    options
}

#[test]
fn an_image_is_fetched_by_tag_and_by_digest() {
    let image = Image::new();
    let served = image.clone();
    let server = Server::start(move |request| served.answer(request));
    let client = server.client();
    let document = client.manifest(Image::REPOSITORY, Version::Tag("1")).unwrap();
    assert_eq!((document.digest, document.media_type.as_str()), (digest_of(&image.manifest), OCI_MANIFEST));
    let Content::Manifest(manifest) = document.content().unwrap() else { panic!("an index") };
    let again = client.manifest(Image::REPOSITORY, Version::Digest(document.digest)).unwrap();
    assert_eq!(again.bytes, document.bytes);
    let config = client.document_of(Image::REPOSITORY, &manifest.config, 1000).unwrap();
    assert_eq!(config.bytes, image.config);
    assert_eq!(fetched(&client, &image).unwrap(), image.layer);
    let error = client.document_of(Image::REPOSITORY, &manifest.layers[0], 1000).unwrap_err().to_string();
    assert!(error.contains("at most 1000"), "{error}");
    assert!(server.seen()[0].header("accept").unwrap().contains("manifest.list.v2+json"));
}

#[test]
fn a_cut_blob_goes_on_where_it_was() {
    for cut in [0, 1, 999, 64 << 10, 119_999] {
        let (server, image) =
            layer_server(move |number, _, right| if number == 0 { right.sent(Body::Cut(cut)) } else { right });
        assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer, "cut at {cut}");
        let asked: Vec<_> = server.seen_of("/blobs/").iter().map(Request::from).collect();
        assert_eq!(asked, [0, cut], "cut at {cut}");
    }
}

#[test]
fn a_blob_that_is_cut_again_and_again_arrives_as_long_as_it_gets_on() {
    let (server, image) = layer_server(|_, _, right| right.sent(Body::Cut(10_000)));
    assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer);
    assert_eq!(server.seen_of("/blobs/").len(), 12);
}

#[test]
fn a_blob_that_does_not_get_on_is_given_up() {
    let (server, image) = layer_server(|number, _, right| right.sent(Body::Cut(if number == 0 { 10 } else { 0 })));
    let error = fetched(&server.client(), &image).unwrap_err();
    assert!(error.contains("after 5 tries") && error.contains("closed the connection"), "{error}");
    assert_eq!(server.seen_of("/blobs/").len(), 5);
}

#[test]
fn a_blob_of_a_byte_a_connection_is_given_up() {
    let (server, image) = layer_server(|_, _, right| right.sent(Body::Cut(1)));
    let error = fetched(&server.client(), &image).unwrap_err();
    assert!(error.contains("after 100 connections"), "{error}");
}

#[test]
fn a_registry_without_ranges_sends_all_again() {
    let (server, image) = layer_server(|number, _, right| match number {
        0 => right.sent(Body::Cut(70_000)),
        _ => Reply::new(200, Image::new().layer),
    });
    assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer);
}

#[test]
fn a_wrong_part_is_not_taken() {
    for range in
        ["bytes 0-119999/120000", "bytes 69999-119999/120000", "bytes 70000-119998/120000", "bytes 70000-119999/7", ""]
    {
        let (server, image) = layer_server(move |number, request, right| match number {
            0 => right.sent(Body::Cut(70_000)),
            _ if request.from() > 0 => Reply::new(206, &Image::new().layer[70_000..]).with("Content-Range", range),
            _ => right,
        });
        assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer, "{range}");
        let asked: Vec<_> = server.seen_of("/blobs/").iter().map(Request::from).collect();
        assert_eq!(asked, [0, 70_000, 0], "{range}");
    }
}

#[test]
fn a_part_that_is_refused_is_fetched_as_a_whole() {
    let (server, image) = layer_server(|number, request, right| match number {
        0 => right.sent(Body::Cut(70_000)),
        _ if request.from() > 0 => Reply::new(416, ""),
        _ => right,
    });
    assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer);
}

#[test]
fn every_way_to_send_a_body_is_read() {
    for body in [Body::Chunked, Body::UntilClosed, Body::ChunkedCut(50_000)] {
        let sent = body.clone();
        let (server, image) =
            layer_server(move |number, _, right| if number == 0 { right.sent(sent.clone()) } else { right });
        assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer, "{body:?}");
    }
}

#[test]
fn wrong_content_is_refused_before_its_last_byte() {
    let (server, image) = layer_server(|_, _, mut right| {
        right.content[5] ^= 1;
        right
    });
    let client = server.client();
    let mut blob = client.blob(Image::REPOSITORY, &image.descriptor()).unwrap();
    let mut bytes = vec![];
    let error = blob.read_to_end(&mut bytes).unwrap_err().to_string();
    assert!(error.contains(&image.descriptor().digest.to_string()) && error.contains("was not used"), "{error}");
    assert!(bytes.len() < image.layer.len());
    assert!(blob.read(&mut [0; 10]).is_err());
}

#[test]
fn a_length_that_is_not_the_manifests_is_refused() {
    let (server, image) = layer_server(|_, _, mut right| {
        right.content.push(0);
        right
    });
    let error = fetched(&server.client(), &image).unwrap_err();
    assert!(error.contains("has 120001 bytes where the manifest says 120000"), "{error}");
    let (server, image) = layer_server(|_, _, mut right| {
        right.content.push(0);
        right.sent(Body::Chunked)
    });
    let error = fetched(&server.client(), &image).unwrap_err();
    assert!(error.contains("more than the 120000 bytes"), "{error}");
}

#[test]
fn a_registry_in_trouble_is_asked_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let (server, image) =
            layer_server(move |number, _, right| if number < 4 { Reply::new(status, "busy") } else { right });
        assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer, "{status}");
    }
    let (server, image) = layer_server(|_, _, _| Reply::error(503, "UNAVAILABLE", "down"));
    let error = fetched(&server.client(), &image).unwrap_err();
    assert!(error.contains("after 5 tries") && error.contains("503 Service Unavailable: UNAVAILABLE: down"), "{error}");
    assert_eq!(server.seen_of("/blobs/").len(), 5);
}

#[test]
fn a_wait_that_is_asked_for_is_kept() {
    let limited = |wait: &'static str| {
        layer_server(move |number, _, right| {
            if number == 0 { Reply::error(429, "TOOMANYREQUESTS", "slow").with("Retry-After", wait) } else { right }
        })
    };
    let (server, image) = limited("1");
    let start = Instant::now();
    assert_eq!(fetched(&server.client(), &image).unwrap(), image.layer);
    assert!(start.elapsed() >= Duration::from_secs(1));
    let (server, image) = limited("3600");
    let error = fetched(&server.client(), &image).unwrap_err();
    assert!(error.contains("TOOMANYREQUESTS") && error.contains("try again in 3600 s"), "{error}");
    assert_eq!(server.seen_of("/blobs/").len(), 1);
}

#[test]
fn who_sends_nothing_is_left() {
    let short = options_with(|options| options.stall_timeout = Duration::from_millis(300));
    let (server, image) =
        layer_server(|number, _, right| if number == 0 { right.sent(Body::Stalled(5000)) } else { right });
    let client = Client::new(&server.host, short.clone()).unwrap();
    assert_eq!(fetched(&client, &image).unwrap(), image.layer);
    let (server, image) = layer_server(|_, _, right| right.sent(Body::Stalled(0)));
    let once = Options { retries: 0, ..short };
    let error = fetched(&Client::new(&server.host, once).unwrap(), &image).unwrap_err();
    assert!(error.contains("nothing came from 127.0.0.1") && error.contains("0.3 s"), "{error}");
}

#[test]
fn redirects_are_followed_without_the_login() {
    let image = Image::new();
    let (here, layer) = (image.clone(), image.layer.clone());
    let storage = Server::start(move |_| Reply::new(200, layer.clone()));
    let to = format!("http://{}/signed?secret=1", storage.host);
    let server = Server::start(move |request| match request.header("authorization") {
        None => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if request.path.contains("/blobs/") => Reply::redirect(to.as_str()),
        Some(_) => here.answer(request),
    });
    let login = Some(kelson_image::registry::Login::Password { name: "me".into(), password: "SECRET".into() });
    let client = Client::new(&server.host, options_with(|options| options.login = login)).unwrap();
    assert_eq!(fetched(&client, &image).unwrap(), image.layer);
    client.manifest(Image::REPOSITORY, Version::Tag("1")).unwrap();
    let elsewhere = storage.seen();
    assert_eq!(elsewhere.len(), 1);
    assert_eq!(elsewhere[0].header("authorization"), None);
    // Known to be wanted, the login comes with the first request.
    assert!(server.seen_of("/manifests/")[0].header("authorization").is_some());
}

/// The registry was reached, and with it the way is known to be right.
#[test]
fn a_storage_that_cannot_be_reached_yet() {
    let short = options_with(|options| options.connect_timeout = Duration::from_secs(1));
    for closed in [Closed::refusing(), Closed::silent()] {
        let to = format!("http://{}/signed", closed.host());
        let (server, image) = layer_server(move |number, _, _| {
            // Who asks again has found nobody at the storage.
            if number == 1 {
                closed.open(|_| Reply::new(200, Image::new().layer));
            }
            Reply::redirect(to.as_str())
        });
        assert_eq!(fetched(&Client::new(&server.host, short.clone()).unwrap(), &image).unwrap(), image.layer);
        assert_eq!(server.seen_of("/blobs/").len(), 2);
    }
    let closed = Closed::refusing();
    let host = closed.host();
    let (server, image) = layer_server(move |_, _, _| Reply::redirect(format!("http://{}/", closed.host())));
    let error = fetched(&server.client(), &image).unwrap_err();
    assert!(error.contains("after 5 tries") && error.contains(&format!("nothing listens at {host}")), "{error}");
    assert_eq!(server.seen_of("/blobs/").len(), 5);
}

#[test]
fn redirects_within_the_registry_keep_the_login() {
    let image = Image::new();
    let served = image.clone();
    let server = Server::start(move |request| match request.header("authorization") {
        None => Reply::new(401, "").with("WWW-Authenticate", "Basic"),
        Some(_) if request.path.starts_with("/v2/") => Reply::redirect(format!("/other{}", request.path)),
        Some(_) => served.answer(request),
    });
    let login = Some(kelson_image::registry::Login::Password { name: "me".into(), password: "p".into() });
    let client = Client::new(&server.host, options_with(|options| options.login = login)).unwrap();
    assert_eq!(fetched(&client, &image).unwrap(), image.layer);
}

#[test]
fn redirects_that_lead_nowhere() {
    for (to, why) in [
        ("/v2/a/b/manifests/1", "more than 10 times"),
        ("http://name:SECRET@localhost/", "a name and password"),
        ("file:///etc/passwd", "to no address"),
        ("", "to no address"),
        ("http://localhost:1/x?SECRET", "nothing listens at localhost:1"),
    ] {
        let error = manifest_error(move |_| Reply::redirect(to));
        assert!(error.contains(why) && !error.contains("SECRET"), "{to}: {error}");
    }
    let error = manifest_error(|_| Reply::new(302, ""));
    assert!(error.contains("to no address"), "{error}");
}

#[test]
fn manifests_that_are_refused() {
    let large = vec![b' '; (4 << 20) + 1];
    let of_size = large.clone();
    let error = manifest_error(move |_| Reply::new(200, of_size.clone()));
    assert!(error.contains("more than 4194304 bytes"), "{error}");
    let error = manifest_error(move |_| Reply::new(200, large.clone()).sent(Body::Chunked));
    assert!(error.contains("more than 4194304 bytes"), "{error}");
    let other = digest_of(b"other").to_string();
    let claimed = other.clone();
    let error = manifest_error(move |_| Reply::new(200, "{}").with("Docker-Content-Digest", claimed.as_str()));
    assert!(error.contains(&other) && error.contains("was not used"), "{error}");
    let server = Server::start(|_| Reply::new(200, "{}"));
    let error = server.client().manifest("a/b", Version::Digest(digest_of(b"other"))).unwrap_err().to_string();
    assert!(error.contains(&other), "{error}");
    let old = Reply::new(200, r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#)
        .with("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws");
    let server = Server::start(move |_| old.clone());
    let error = server.client().manifest("a/b", Version::Tag("1")).unwrap().content().unwrap_err().to_string();
    assert!(error.contains("schema 1"), "{error}");
}

#[test]
fn a_cut_manifest_is_fetched_again() {
    let (image, count) = (Image::new(), AtomicUsize::new(0));
    let served = image.clone();
    let server = Server::start(move |request| match count.fetch_add(1, SeqCst) {
        0 => served.answer(request).sent(Body::Cut(100)),
        1 => Reply::raw("HTTP/1.1 200 O"),
        2 => Reply::raw(""),
        _ => served.answer(request),
    });
    let document = server.client().manifest(Image::REPOSITORY, Version::Tag("1")).unwrap();
    assert_eq!(document.bytes, image.manifest);
}

#[test]
fn what_a_registry_says_is_shown_as_one_plain_line() {
    for (reply, parts) in [
        (
            Reply::error(404, "MANIFEST_UNKNOWN", "unknown tag"),
            &["404 Not Found: MANIFEST_UNKNOWN: unknown tag", "no such tag"][..],
        ),
        (Reply::error(404, "NAME_UNKNOWN", "unknown name"), &["NAME_UNKNOWN", "no such repository: see the name"]),
        (Reply::error(403, "DENIED", "no"), &["403 Forbidden: DENIED: no", "docker login 127.0.0.1"]),
        (Reply::error(400, "\u{1b}[31mX\nY", "\u{202e}z\u{7}"), &["400 Bad Request: [31mX Y: z"]),
        (Reply::new(404, "<html>"), &["404 Not Found (the repository has no such tag"]),
        (Reply::raw("SSH-2.0-OpenSSH_9\r\n"), &["sends what is no HTTP"]),
        (Reply::new(200, "").with("X", "y".repeat(70_000)), &["headers", "too long"]),
        (Reply::new(204, ""), &["204 No Content"]),
        (Reply::new(206, "{}"), &["206 Partial Content"]),
    ] {
        let error = manifest_error(move |_| reply.clone());
        assert!(error.starts_with("fetch the manifest 1 of 127.0.0.1:"), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{error:?}");
    }
}

#[test]
fn a_registry_that_is_not_there() {
    // tcpmux, which nobody has.
    let host = "127.0.0.1:1";
    let client = Client::new(host, options()).unwrap();
    let error = client.manifest("a/b", Version::Tag("1")).unwrap_err().to_string();
    assert!(error.contains(&format!("nothing listens at {host}")) && !error.contains("tries"), "{error}");
    for host in ["", "a b", "me@host", "a/b", "host:port"] {
        assert!(Client::new(host, options()).is_err(), "{host}");
    }
}

#[test]
fn names_that_would_be_another_address_are_refused() {
    let server = Server::start(|_| Reply::new(200, "{}"));
    let client = server.client();
    for (repository, tag) in
        [("../x", "1"), ("a//b", "1"), ("a?b", "1"), ("a", "1?x"), ("a#", "1"), ("", "1"), ("a b", "1")]
    {
        assert!(client.manifest(repository, Version::Tag(tag)).is_err(), "{repository} {tag}");
    }
    assert!(server.seen_of("/v2/a").is_empty());
}

#[test]
fn layers_that_are_elsewhere_are_refused() {
    let server = Server::start(|_| Reply::new(200, ""));
    for media_type in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let mut descriptor = descriptor_of(media_type, b"x");
        descriptor.urls = vec![format!("http://{}/steal", server.host)];
        let error = server.client().blob("a/b", &descriptor).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("may not be distributed"), "{error}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn layers_are_fetched_in_parallel() {
    let image = Image::new();
    let served = image.clone();
    // Each answer waits for the others to be asked for.
    let barrier = std::sync::Barrier::new(4);
    let server = Server::start(move |request| {
        if request.path.contains("/blobs/") {
            barrier.wait();
        }
        served.answer(request)
    });
    let client = server.client();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(fetched(&client, &image).unwrap(), image.layer));
        }
    });
}
