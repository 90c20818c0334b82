#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("filter"), |bytes: &[u8]| oncue_fuzz::run("filter", bytes));
