//! Watermill, a Go library: a program of its own (`benches/watermill`), which is built here and run once a round.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use super::durable::Pace;
use crate::{events, measure::Result};

/// The program, built.
pub(super) struct Watermill(PathBuf);

#[derive(Deserialize)]
struct Measured {
    events_per_second: f64,
    synchronous: u8,
    journal: String,
}

impl Watermill {
    /// Builds it; if that cannot be done here, why.
    pub(super) fn build(directory: &Path) -> std::result::Result<Self, String> {
        let program = directory.join("watermill");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("watermill");
        let built = Command::new("go").arg("build").arg("-o").arg(&program).arg(".").current_dir(source).output();
        match built {
            Ok(output) if output.status.success() => Ok(Self(program)),
            Ok(output) => Err(format!("go build: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("go cannot be started: {error}")),
        }
    }

    /// Events per second, published in batches and acknowledged one by one.
    pub(super) fn run(&self, on: &str, directory: &Path, pace: &Pace) -> Result<f64> {
        let output = Command::new(&self.0)
            .args(["-on", on, "-dir"])
            .arg(directory)
            .args(["-seconds", &pace.seconds.to_string(), "-publishers", &pace.publishers.to_string()])
            .args(["-batch", &pace.batch.to_string(), "-bytes", &events::DATA_BYTES.to_string()])
            .args(["-backlog", &pace.backlog.to_string()])
            .output()?;
        if !output.status.success() {
            return Err(format!("watermill: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let measured: Measured = serde_json::from_slice(&output.stdout)?;
        if on == "sqlite" && (measured.synchronous < 2 || measured.journal != "wal") {
            return Err("Watermill's database does not sync each commit: it is no match".into());
        }
        Ok(measured.events_per_second)
    }
}
