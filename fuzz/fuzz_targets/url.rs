#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("url"), |bytes: &[u8]| oncue_fuzz::run("url", bytes));
