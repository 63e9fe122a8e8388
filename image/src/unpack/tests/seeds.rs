//! The files of tests/corpus/, with which fuzzing begins. `KELSON_WRITE_CORPUS=1` writes them anew.

use std::fs;
use std::path::Path;

use super::streams::{WINDOW, gzip, zstd};
use super::support::*;

/// What is refused is called so.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let small = || Tar::default().dir("a").file("a/b", "data").symlink("a/l", "b").hard_link("c", "a/b");
    let mut gnu_sparse = Head::new(b'S', "sparse").gnu();
    gnu_sparse.put(386, b"00000000000\x0000000000002\0").put(410, b"00000002000\x0000000000002\0").put(482, b"1");
    gnu_sparse.put(483, b"00000002002\0");
    let sparse_1_0: &[(&str, &[u8])] =
        &[("GNU.sparse.major", b"1"), ("GNU.sparse.name", b"sparse"), ("GNU.sparse.realsize", b"1024")];
    let mut base_256 = Head::new(b'0', "negative-time");
    base_256.put(136, &[0xff; 12]);
    let mut prefix = Head::new(b'0', "file");
    prefix.put(345, b"a/b");
    vec![
        ("empty", Vec::new()),
        ("end-alone", Tar::default().end()),
        ("plain", small().end()),
        ("plain.gz", gzip(&small().end())),
        ("plain-two-members.gz", [gzip(&small().0), gzip(&[0; 1024])].concat()),
        ("plain.zst", zstd(&small().end(), WINDOW)),
        ("without-its-end", small().0),
        ("dot-slash", Tar::default().dir("./").dir("./a/").file("./a/b", "").end()),
        ("whiteouts", small().file("a/.wh.x", "").file(".wh.a", "").file("d/.wh..wh..opq", "").file(".wh.c", "").end()),
        ("whiteout-first", Tar::default().file(".wh.a", "").file("a/b", "").file(".wh..wh..opq", "").end()),
        ("aufs", Tar::default().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "").end()),
        ("devices", Tar::default().head(Head::new(b'3', "c").device(1, 3)).head(Head::new(b'6', "fifo")).end()),
        ("replaced", small().file("a", "").dir("a").symlink("a", "c").dir("a").file("a/b", "").end()),
        (
            "through-links",
            Tar::default().symlink("l", "/x/y").symlink("m", "l/..").file("l/a", "").file("m/b", "").end(),
        ),
        (
            "modes",
            Tar::default().head(Head::new(b'5', "a").mode(0o2000)).head(Head::new(b'0', "a/s").mode(0o6755)).end(),
        ),
        (
            "gnu-long",
            Tar::default()
                .entry(Head::new(b'L', "L").gnu(), b"long\0")
                .entry(Head::new(b'K', "K").gnu(), b"to\0")
                .symlink("x", "y")
                .end(),
        ),
        ("gnu-sparse", Tar::default().head(gnu_sparse.size(4)).raw(&[0; 512]).raw(b"1234").end()),
        (
            "pax",
            Tar::default()
                .pax(&[("path", b"p"), ("mtime", b"1.5"), ("uid", b"5"), ("size", b"4")])
                .file("x", "1234")
                .end(),
        ),
        ("pax-global", Tar::default().records(b'g', &[("comment", b"c"), ("path", b"g")]).file("x", "").end()),
        ("pax-link", Tar::default().pax(&[("linkpath", b"target")]).symlink("x", "y").end()),
        (
            "pax-xattr",
            Tar::default()
                .pax(&[("SCHILY.xattr.user.a", b"1"), ("LIBARCHIVE.xattr.user.b", b"AQ")])
                .file("x", "")
                .end(),
        ),
        ("pax-forged-mark", Tar::default().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).dir("x").end()),
        (
            "pax-sparse-0.0",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.offset", b"5"), ("GNU.sparse.numbytes", b"4")])
                .file("x", "1234")
                .end(),
        ),
        (
            "pax-sparse-0.1",
            Tar::default().pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"1,2,5,2")]).file("x", "1234").end(),
        ),
        (
            "pax-sparse-1.0",
            Tar::default()
                .pax(sparse_1_0)
                .entry(Head::new(b'0', "x"), &[&b"1\n5\n4\n"[..], &[0; 506], b"1234"].concat())
                .end(),
        ),
        ("base-256", Tar::default().head(base_256).end()),
        ("prefix", Tar::default().head(prefix).end()),
        (
            "v7",
            Tar::default()
                .head({
                    let mut head = Head::new(0, "v7/");
                    head.put(257, &[0; 255]);
                    head
                })
                .end(),
        ),
        ("refused-dot-dot", small().file("a/../../x", "").end()),
        ("refused-absolute", small().file("/x", "").end()),
        ("refused-link-out", Tar::default().symlink("l", "../../outside").file("l/x", "").end()),
        (
            "refused-hard-link-out",
            Tar::default().symlink("l", "../outside").hard_link("h", "l/file").file("h", "x").end(),
        ),
        ("refused-hard-link-dot-dot", Tar::default().hard_link("h", "../outside/file").file("h", "x").end()),
        ("refused-loop", Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "").end()),
        ("refused-bomb.gz", gzip(&Tar::default().entry(Head::new(b'0', "x"), &[0; 1 << 21]).end())),
        (
            "refused-sparse-bomb",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"99999999999"), ("GNU.sparse.map", b"0,4")])
                .file("x", "1234")
                .end(),
        ),
        ("refused-long-name-bomb", Tar::default().head(Head::new(b'L', "L").gnu().size(4 << 30)).raw(&[b'x'; 600]).0),
        ("refused-cut-off", small().0[..600].to_vec()),
        ("refused-cut-off.gz", gzip(&small().0)[..60].to_vec()),
    ]
}

#[test]
fn the_corpus_is_what_is_written_here() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let seeds = seeds();
    if std::env::var_os("KELSON_WRITE_CORPUS").is_some() {
        for (name, bytes) in &seeds {
            fs::write(directory.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in &seeds {
        // What a new version of the encoder makes is another stream of the same bytes.
        if !name.ends_with(".gz") {
            assert!(fs::read(directory.join(name)).is_ok_and(|found| found == *bytes), "{name}");
        }
    }
    assert_eq!(fs::read_dir(directory).unwrap().count(), seeds.len());
}
