//! Operations on a store beside a plain map; shared with tests/operations.
#![no_main]

#[path = "../../tests/operations/drive.rs"]
mod drive;
#[path = "../../tests/operations/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drive::run(bytes));
