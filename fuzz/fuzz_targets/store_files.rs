//! A store one of whose files a stranger wrote; shared with tests/operations.
#![no_main]

#[path = "../../tests/operations/files.rs"]
mod files;
#[path = "../../tests/operations/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| files::run(bytes));
