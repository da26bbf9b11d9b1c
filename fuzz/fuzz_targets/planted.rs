//! The fault that `fuzz/run` plants to see that it would notice one: no parser of ours.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| assert!(!bytes.starts_with(b"bug"), "the planted fault"));
