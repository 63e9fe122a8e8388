//! Docker's own registry, filled by skopeo.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use kelson_image::manifest::{self, Content, Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use kelson_image::platform::{self, Platform};
use kelson_image::registry::{Client, Environment, Login, Options, Version};

use crate::faulty::{descriptor_of, digest_of, options};
use crate::scratch::{Directory, Running, have, run};

const PROGRAMS: [(&str, &str); 2] = [("docker-registry", "docker-registry"), ("skopeo", "skopeo")];
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A registry with `section` in its configuration's part about HTTP and `rest` beside it.
fn start(directory: &Directory, section: &str, rest: &str) -> (Running, String) {
    let config = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{section}{rest}",
        directory.0.join("registry").display()
    );
    let config = directory.write("config.yml", config);
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(config)
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut all = String::new();
    let running = Running(child);
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "the registry ended: {all}");
        all += &line;
        if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            // What it says later must not fill the pipe.
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            return (running, port);
        }
    }
}

/// An OCI layout with an image for two platforms, `layout:1`, and the layers' bytes.
fn layout(directory: &Directory) -> Vec<Vec<u8>> {
    let mut layers = vec![];
    let store = |media_type: &str, bytes: &[u8]| -> Descriptor {
        directory.write(format!("layout/blobs/sha256/{}", digest_of(bytes).hex()), bytes);
        descriptor_of(media_type, bytes)
    };
    let mut manifests = vec![];
    for architecture in ["arm64", "amd64"] {
        let file = directory.write(format!("{architecture}/file"), architecture.repeat(10_000));
        run("tar", &["czf", "layer.tar.gz", "file"], file.parent().unwrap());
        let layer = fs::read(file.with_file_name("layer.tar.gz")).unwrap();
        let diff_id = run("sh", &["-c", "gzip -dc layer.tar.gz | sha256sum | cut -c 1-64"], file.parent().unwrap());
        let config = serde_json::json!({
            "os": "linux", "architecture": architecture,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", diff_id.trim())] },
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.into(),
            config: store(OCI_CONFIG, config.to_string().as_bytes()),
            layers: vec![store(LAYER, &layer)],
        };
        let mut descriptor = store(OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap());
        descriptor.platform = Some(format!("linux/{architecture}").parse().unwrap());
        manifests.push(descriptor);
        layers.push(layer);
    }
    let inner = Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests };
    let mut descriptor = store(OCI_INDEX, &serde_json::to_vec(&inner).unwrap());
    descriptor.annotations = Some([("org.opencontainers.image.ref.name".into(), "1".into())].into());
    let outer = Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: vec![descriptor] };
    directory.write("layout/index.json", serde_json::to_vec(&outer).unwrap());
    directory.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    layers
}

fn push(directory: &Directory, arguments: &[&str], to: &str) {
    let fixed = ["copy", "--quiet", "--insecure-policy"];
    run("skopeo", &[&fixed[..], arguments, &["oci:layout:1", &format!("docker://{to}")]].concat(), &directory.0);
}

/// The layers of the image for a platform, whole.
fn pull(
    client: &Client,
    repository: &str,
    tag: &str,
    wanted: &str,
) -> Result<(Manifest, Vec<Vec<u8>>), kelson::error::Error> {
    let wanted: Platform = wanted.parse()?;
    let document = client.manifest(repository, Version::Tag(tag))?;
    let (_, manifest) =
        platform::select(document, &wanted, &mut |descriptor| client.manifest_of(repository, descriptor))?;
    let config = client.document_of(repository, &manifest.config, 1 << 20)?;
    assert!(String::from_utf8(config.bytes).unwrap().contains(&wanted.architecture));
    let mut layers = vec![];
    for layer in &manifest.layers {
        let mut bytes = vec![];
        client.blob(repository, layer)?.read_to_end(&mut bytes)?;
        layers.push(bytes);
    }
    Ok((manifest, layers))
}

#[test]
fn an_image_for_several_platforms() {
    if !have(&PROGRAMS) {
        return;
    }
    let directory = Directory::new("real-plain");
    let layers = layout(&directory);
    let (_registry, port) = start(&directory, "", "");
    let host = format!("localhost:{port}");
    push(&directory, &["--all", "--dest-tls-verify=false"], &format!("{host}/some/image:1"));
    push(
        &directory,
        &["--dest-tls-verify=false", "--format", "v2s2", "--override-arch", "arm64"],
        &format!("{host}/docker:2"),
    );
    let client = Client::new(&host, options()).unwrap();
    for (number, platform) in ["linux/arm64", "linux/amd64"].into_iter().enumerate() {
        let (manifest, found) = pull(&client, "some/image", "1", platform).unwrap();
        assert_eq!((manifest.media_type.as_str(), &found[0]), (OCI_MANIFEST, &layers[number]), "{platform}");
    }
    let error = pull(&client, "some/image", "1", "linux/s390x").unwrap_err().to_string();
    assert!(error.contains("it is for linux/arm64, linux/amd64"), "{error}");
    let (manifest, found) = pull(&client, "docker", "2", "linux/arm64").unwrap();
    assert_eq!((manifest.media_type.as_str(), &found[0]), (manifest::DOCKER_MANIFEST, &layers[0]));

    for (repository, version, why) in [
        ("some/image", Version::Tag("none"), "MANIFEST_UNKNOWN"),
        ("none", Version::Tag("1"), "404 Not Found"),
        ("some/image", Version::Digest(digest_of(b"none")), "MANIFEST_UNKNOWN"),
    ] {
        let error = client.manifest(repository, version).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let error = client.blob("some/image", &descriptor_of(LAYER, b"none")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("404 Not Found: BLOB_UNKNOWN"), "{error}");
    let by_digest = client.manifest("some/image", Version::Tag("1")).unwrap();
    assert!(matches!(by_digest.content(), Ok(Content::Index(_))));
    assert_eq!(client.manifest("some/image", Version::Digest(by_digest.digest)).unwrap().bytes, by_digest.bytes);
}

#[test]
fn a_registry_that_wants_a_password() {
    if !have(&PROGRAMS) {
        return;
    }
    let directory = Directory::new("real-password");
    let layers = layout(&directory);
    // bcrypt, the only form that the registry takes.
    let hash = run("perl", &["-e", r#"print crypt("SECRET", "\$2b\$05\$abcdefghijklmnopqrstuu")"#], &directory.0);
    let users = directory.write("users", format!("me:{hash}\n"));
    let section = format!("auth:\n  htpasswd:\n    realm: x\n    path: {}\n", users.display());
    let (_registry, port) = start(&directory, "", &section);
    let host = format!("127.0.0.1:{port}");
    push(&directory, &["--all", "--dest-tls-verify=false", "--dest-creds", "me:SECRET"], &format!("{host}/a:1"));
    let file = directory.0.join("auth.json");
    let with_file = || {
        let environment = Environment::from_iter([("REGISTRY_AUTH_FILE", &file)]);
        Client::new(&host, Options { environment, ..options() }).unwrap()
    };
    let error = pull(&with_file(), "a", "1", "amd64").unwrap_err().to_string();
    assert!(error.contains("none is known") && error.contains(&format!("docker login {host}")), "{error}");
    // What skopeo (and so podman) writes when somebody logs in is what is read.
    let login =
        ["login", "--tls-verify=false", "--authfile", file.to_str().unwrap(), "-u", "me", "-p", "SECRET", &host];
    run("skopeo", &login, &directory.0);
    assert_eq!(pull(&with_file(), "a", "1", "amd64").unwrap().1[0], layers[1]);
    let login = Some(Login::Password { name: "me".into(), password: "WRONG".into() });
    let client = Client::new(&host, Options { login, ..options() }).unwrap();
    let error = pull(&client, "a", "1", "amd64").unwrap_err().to_string();
    assert!(error.contains("401 Unauthorized: UNAUTHORIZED") && !error.contains("WRONG"), "{error}");
}

/// A certificate and its key, signed by the authority `ca`, or that authority itself.
pub fn certificate(directory: &Path, name: &str, extension: Option<&str>) {
    let subject = format!("/CN={name}");
    let key = format!("{name}.key");
    let kind =
        ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", &key, "-subj", &subject];
    let Some(extension) = extension else {
        run("openssl", &[&kind[..], &["-x509", "-days", "2", "-out", "ca.crt"]].concat(), directory);
        return;
    };
    fs::write(directory.join("extension"), format!("subjectAltName={extension}\n")).unwrap();
    run("openssl", &[&kind[..], &["-out", "request"]].concat(), directory);
    let certificate = format!("{name}.crt");
    let sign = ["x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
    run("openssl", &[&sign[..], &["-extfile", "extension", "-out", &certificate]].concat(), directory);
}

#[test]
fn a_registry_with_tls() {
    if !have(&[&PROGRAMS[..], &[("openssl", "openssl")]].concat()) {
        return;
    }
    let directory = Directory::new("real-tls");
    let layers = layout(&directory);
    certificate(&directory.0, "ca", None);
    certificate(&directory.0, "server", Some("DNS:localhost"));
    certificate(&directory.0, "client", Some("DNS:client"));
    let path = |name: &str| directory.0.join(name);
    let section = format!(
        "  tls:\n    certificate: {}\n    key: {}\n",
        path("server.crt").display(),
        path("server.key").display()
    );
    let (registry, port) = start(&directory, &section, "");
    let host = format!("localhost:{port}");
    push(&directory, &["--all", "--dest-tls-verify=false"], &format!("{host}/a:1"));
    let none = [("REGISTRY_AUTH_FILE", "/nonexistent".into())];
    let with = |variables: &[(&str, std::path::PathBuf)], host: &str| {
        let environment = none.iter().chain(variables).map(|(name, value)| (*name, value)).collect();
        let certificates = vec![path("certs.d")];
        Client::new(host, Options { environment, certificates, ..options() }).unwrap()
    };
    let other = directory.write("other.crt", fs::read(path("client.crt")).unwrap());
    let error = pull(&with(&[("SSL_CERT_FILE", other.clone())], &host), "a", "1", "amd64").unwrap_err().to_string();
    assert!(error.contains("not trusted") && error.contains(&format!("certs.d/{host}/ca.crt")), "{error}");
    let trusted = [("SSL_CERT_FILE", path("ca.crt"))];
    assert_eq!(pull(&with(&trusted, &host), "a", "1", "amd64").unwrap().1[0], layers[1]);
    let error = pull(&with(&trusted, &format!("127.0.0.1:{port}")), "a", "1", "amd64").unwrap_err().to_string();
    assert!(error.contains("is for another name"), "{error}");
    let authority = fs::read(path("ca.crt")).unwrap();
    directory.write(format!("certs.d/{host}/ca.crt"), &authority);
    assert_eq!(pull(&with(&[("SSL_CERT_FILE", other)], &host), "a", "1", "amd64").unwrap().1[0], layers[1]);
    drop(registry);

    let section = format!("{section}    clientcas:\n      - {}\n", path("ca.crt").display());
    let (_registry, port) = start(&directory, &section, "");
    let host = format!("localhost:{port}");
    let error = pull(&with(&trusted, &host), "a", "1", "amd64").unwrap_err().to_string();
    assert!(error.contains(&format!("TLS with {host}")), "{error}");
    let here = format!("certs.d/{host}");
    directory.write(format!("{here}/client.cert"), fs::read(path("client.crt")).unwrap());
    directory.write(format!("{here}/client.key"), fs::read(path("server.key")).unwrap());
    let error = pull(&with(&trusted, &host), "a", "1", "amd64").unwrap_err().to_string();
    assert!(error.contains("use the certificate") && error.contains("client.key"), "{error}");
    directory.write(format!("{here}/client.key"), fs::read(path("client.key")).unwrap());
    assert_eq!(pull(&with(&trusted, &host), "a", "1", "amd64").unwrap().1[0], layers[1]);
}
