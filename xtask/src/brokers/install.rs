//! Getting a broker from the registry of its language or system.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{failed, folder};
use crate::step::Failed;

/// Where a broker is installed, if not by the system.
pub(super) fn place(name: &str) -> PathBuf {
    folder().join("install").join(name)
}

/// Whether a program is there, and says which version it is.
pub(super) fn is_there(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    asked.is_ok_and(|output| output.status.success())
}

/// Runs a command that must succeed; what it says is shown if it does not.
pub(super) fn run(command: &mut Command) -> Result<(), Failed> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(format!("{shown}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(format!("{shown} ({}):\n{}", output.status, String::from_utf8_lossy(&said).trim())))
}

/// A package of `PyPI`, into an environment of its own.
pub(super) fn pip(environment: &Path, package: &str) -> Result<(), Failed> {
    run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", package]))
}

/// A package of the system.
pub(super) fn apt(package: &str) -> Result<(), Failed> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "-y", "--no-install-recommends", package]))
}
