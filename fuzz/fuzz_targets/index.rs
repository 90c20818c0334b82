#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("index"), |bytes: &[u8]| oncue_fuzz::run("index", bytes));
