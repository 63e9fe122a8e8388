//! fetch IMAGE [PLATFORM] - fetches an image's manifest, configuration and layers, and prints their digests and sizes.

use std::error::Error;
use std::io;
use std::thread;

use kelson::image::Reference;
use kelson_image::platform::{self, Platform};
use kelson_image::progress::Progress;
use kelson_image::registry::{Client, Options, Version};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let reference: Reference = words.next().ok_or("usage: fetch IMAGE [PLATFORM]")?.parse()?;
    let wanted = words.next().map_or(Ok(Platform::host()), |word| word.parse())?;
    let client = Client::new(&reference.host, Options::default())?;
    let version = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => Version::Digest(*digest),
        (None, tag) => Version::Tag(tag.as_deref().unwrap_or("latest")),
    };
    let path = &reference.path;
    let document = client.manifest(path, version)?;
    let (document, manifest) = platform::select(document, &wanted, &mut |one| client.manifest_of(path, one))?;
    println!("{} {} {}", document.digest, document.bytes.len(), document.media_type);
    let (progress, client) = (&Progress::new(false), &client);
    thread::scope(|scope| {
        let fetches: Vec<_> = std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .map(|one| {
                scope.spawn(move || -> kelson::error::Result<u64> {
                    let bar = progress.layer(one);
                    let size = io::copy(&mut bar.reads(client.blob(path, one)?), &mut io::sink())?;
                    bar.finish();
                    Ok(size)
                })
            })
            .collect();
        for (fetch, descriptor) in fetches.into_iter().zip(std::iter::once(&manifest.config).chain(&manifest.layers)) {
            let size = fetch.join().map_err(|_| "a thread panicked")??;
            println!("{} {size} {}", descriptor.digest, descriptor.media_type);
        }
        Ok(())
    })
}
