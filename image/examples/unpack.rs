//! unpack FILE DIR: unpacks one layer, for measuring and for comparing with other programs.

use std::fs::File;
use std::os::fd::AsFd;

use kelson_image::unpack::{Ids, Options, unpack};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, directory] = &arguments[..] else { return Err("unpack FILE DIR".into()) };
    std::fs::create_dir(directory)?;
    let is_root = nix::unistd::geteuid().is_root();
    let ids = if is_root { Ids::AsGiven } else { Ids::Squash };
    let options = Options { user_xattr: !is_root, ids, ..Options::default() };
    println!("{:#?}", unpack(File::open(file)?, None, File::open(directory)?.as_fd(), &options)?);
    Ok(())
}
