//! Brokers that run here: what `cargo xtask brokers up` wrote down.

use std::{fs, path::PathBuf};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/brokers"))
}

/// Their process groups, each led by a process that was started.
pub(crate) fn groups() -> Vec<u32> {
    let folders = fs::read_dir(folder()).into_iter().flatten().flatten();
    let pids = folders.filter_map(|broker| fs::read_to_string(broker.path().join("pids")).ok());
    let leader = |line: &str| line.split_once(' ')?.0.parse().ok();
    pids.flat_map(|pids| pids.lines().filter_map(leader).collect::<Vec<_>>()).collect()
}

/// The URL of one; the error says how to get it.
#[cfg(feature = "brokers")]
pub(crate) fn url(name: &str) -> std::result::Result<String, String> {
    let path = folder().join("urls.json");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let urls: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let url = urls[name].as_str().map(str::to_owned);
    url.ok_or_else(|| format!("no {name} runs here: cargo xtask brokers up {name}"))
}
