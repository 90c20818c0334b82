#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("change"), |bytes: &[u8]| oncue_fuzz::run("change", bytes));
