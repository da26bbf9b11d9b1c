#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::index_json(bytes));
