#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("checkpoint"), |bytes: &[u8]| oncue_fuzz::run("checkpoint", bytes));
