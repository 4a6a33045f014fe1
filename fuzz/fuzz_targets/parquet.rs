#![no_main]
libfuzzer_sys::fuzz_target!(init: stitchback_fuzz::caught_panics_are_no_crash(), |bytes: &[u8]| stitchback_fuzz::parquet(bytes));
