//! Reads one blob of a store, as the section `read` of `benches/peers/run` asks:
//!
//! ```text
//! reader ROOT DIGEST verified|unverified in-order|at-pages|anywhere BYTES-A-READ BYTES-IN-ALL
//! ```
//!
//! What is unverified is read from the blob's file, with the same calls and into the same buffer.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

use layerstore::{Blob, BlobStore};

enum Source {
    Verified(Box<Blob>),
    Unverified(File),
}

impl Source {
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Box<dyn Error>> {
        match self {
            Source::Unverified(file) => file.read_exact_at(buffer, offset)?,
            Source::Verified(blob) => {
                let mut at = 0;
                while at < buffer.len() {
                    match blob.read_at(&mut buffer[at..], offset + at as u64)? {
                        0 => return Err("the blob ends too soon".into()),
                        read => at += read,
                    }
                }
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [root, digest, how, order, size, all] = &words[..] else {
        return Err("see the head of the source for what to give".into());
    };
    let blob = BlobStore::open(root)?.open_blob(&digest.parse()?)?;
    let (len, size, all): (u64, usize, u64) = (blob.len(), size.parse()?, all.parse()?);
    let mut source = match how.as_str() {
        "verified" => Source::Verified(Box::new(blob)),
        "unverified" => Source::Unverified(blob.into_unverified_file()),
        other => return Err(format!("{other} is neither verified nor unverified").into()),
    };
    let room = len.checked_sub(size as u64).ok_or("the blob is shorter than a read")?;
    let (mut buffer, mut offset, mut random) = (vec![0; size], 0, 1_u64);
    for _ in 0..all / size as u64 {
        offset = match order.as_str() {
            "in-order" if offset > room => 0,
            "in-order" => offset,
            _ => {
                // The generator of Knuth's MMIX, whose upper bits are the better ones.
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let anywhere = (random >> 16) % (room + 1);
                if order == "at-pages" { anywhere / 4096 * 4096 } else { anywhere }
            }
        };
        source.read_exact_at(&mut buffer, offset)?;
        offset += size as u64;
    }
    Ok(())
}
