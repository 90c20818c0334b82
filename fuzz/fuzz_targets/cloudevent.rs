#![no_main]

libfuzzer_sys::fuzz_target!(init: oncue_fuzz::seed("cloudevent"), |bytes: &[u8]| oncue_fuzz::run("cloudevent", bytes));
