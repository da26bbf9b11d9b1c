//! Puts files into a folder as the section `put` of `benches/peers/run` asks, as a program that
//! knows nothing of many files would, each durable before the next begins:
//!
//! ```text
//! plain_put FOLDER FILE...
//! ```

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let folder = words.next().ok_or("see the head of the source for what to give")?;
    std::env::set_current_dir(folder)?;
    let directory = File::open(".")?;
    for source in words {
        let source = Path::new(&source);
        let bytes = fs::read(source)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o444).open("new")?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename("new", source.file_name().ok_or("a file has no name")?)?;
        directory.sync_all()?;
    }
    Ok(())
}
