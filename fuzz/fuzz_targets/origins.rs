#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::origins(bytes));
