#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stitchback_fuzz::safetensors(bytes));
