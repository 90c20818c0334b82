#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("state"), |bytes: &[u8]| oncue_fuzz::run("state", bytes));
