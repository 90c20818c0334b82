#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("config"), |bytes: &[u8]| oncue_fuzz::run("config", bytes));
