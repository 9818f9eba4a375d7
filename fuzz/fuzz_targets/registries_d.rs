#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::registries_d(data));
