//! fetch IMAGE [PLATFORM] - fetches an image's manifest, configuration and layers, and prints their digests and sizes.

use std::error::Error;
use std::io;

use kelson::image::Reference;
use kelson_image::platform::{self, Platform};
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
    let document = client.manifest(&reference.path, version)?;
    let mut by_digest = |descriptor: &_| client.manifest_of(&reference.path, descriptor);
    let (document, manifest) = platform::select(document, &wanted, &mut by_digest)?;
    println!("{} {} {}", document.digest, document.bytes.len(), document.media_type);
    for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let size = io::copy(&mut client.blob(&reference.path, descriptor)?, &mut io::sink())?;
        println!("{} {size} {}", descriptor.digest, descriptor.media_type);
    }
    Ok(())
}
