#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("record"), |bytes: &[u8]| oncue_fuzz::run("record", bytes));
