#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("envelope"), |bytes: &[u8]| oncue_fuzz::run("envelope", bytes));
