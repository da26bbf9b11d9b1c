#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| layerstore::fuzzing::config(text));
