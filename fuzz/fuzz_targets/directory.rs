#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("directory"), |bytes: &[u8]| oncue_fuzz::run("directory", bytes));
