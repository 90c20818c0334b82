//! The decoders and parsers of Oncue, by name.

use std::{fs, path::Path};

type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

fn target(name: &str) -> Target {
    let all = oncue_log::fuzz::TARGETS.iter().chain(oncue::fuzz::TARGETS);
    *all.into_iter().find(|target| target.0 == name).expect("every target is named after a decoder")
}

/// Puts inputs that the decoder is made for into its corpus.
pub fn seed(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    fs::create_dir_all(&folder).expect("the corpus can be written");
    for (number, seed) in (target(name).2)().iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), seed).expect("the corpus can be written");
    }
}

/// Hands any bytes to the decoder.
pub fn run(name: &str, bytes: &[u8]) {
    (target(name).1)(bytes);
}
