#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("frame"), |bytes: &[u8]| oncue_fuzz::run("frame", bytes));
