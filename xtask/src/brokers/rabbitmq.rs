//! `RabbitMQ`: the system's package, with a name service (epmd) and a node of its own.

use std::{path::Path, process::Command};

use super::{
    Started, install,
    process::{Running, ask, free_ports},
    write,
};
use crate::step::Failed;

/// Not the one in /usr/sbin, which switches to another user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

pub(super) fn install() -> Result<(), Failed> {
    if Path::new(SERVER).exists() { Ok(()) } else { install::apt("rabbitmq-server") }
}

pub(super) fn start(folder: &Path, data: &Path) -> Result<Started, Failed> {
    let [port, names, distribution] = free_ports()?;
    let text = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.file = false\n\
         vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 100MB\n"
    );
    write(&folder.join("rabbitmq.conf"), &text)?;
    write(&folder.join("enabled_plugins"), "[].\n")?;
    // The server would start one that outlives it and that nobody knows the id of.
    let epmd =
        Running::start(Command::new("epmd").args(["-address", "127.0.0.1", "-port", &names.to_string()]), folder)?;
    let mut server = Command::new(SERVER);
    server
        // Its own cookie.
        .env("HOME", data)
        // The node's data are under its name: the same one each time.
        .env("RABBITMQ_NODENAME", "oncue@localhost")
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("ERL_EPMD_PORT", names.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", data.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", data.join("log"))
        .env("RABBITMQ_PID_FILE", data.join("rabbit.pid"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
    let server = Running::start(&mut server, folder)?;
    // A method frame is its answer to the name of the protocol.
    let answers = move || ask(port, b"AMQP\x00\x00\x09\x01").is_some_and(|answer| answer[0] == 1);
    let url = format!("amqp://guest:guest@127.0.0.1:{port}");
    Ok(Started { processes: vec![epmd, server], url, answers: Box::new(answers) })
}
