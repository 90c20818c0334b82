//! `oncue serve`: a node as a process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use oncue::{Clock, Envelope, transport::Publish};

use crate::program::{ONCUE, Scratch, lives, oncue, orders, run_on, timeless};

/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node that is killed when a test ends.
struct Node {
    child: Child,
    url: String,
}

impl Node {
    fn start(listen: &str, data: &str) -> Self {
        Self::start_with(listen, data, &[])
    }

    fn start_with(listen: &str, data: &str, more: &[&str]) -> Self {
        let mut command = Command::new(ONCUE);
        command.args(["serve", "--listen", listen, "--data", data, "--lease", "1"]).args(more).env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let url = ready.trim_end().rsplit(' ').next().unwrap().to_owned();
        let scheme = listen.split_once(':').map_or("", |(scheme, _)| scheme);
        assert!(ready.starts_with("serving ") && url.starts_with(&format!("{scheme}://127.0.0.1:")), "{ready:?}");
        Self { child, url }
    }

    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.url.clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_order_system_over_a_node_that_is_killed_has_the_report_of_an_unbroken_run() {
    for listen in ["http://127.0.0.1:0", "zmq://127.0.0.1:0"] {
        run_over_a_node_that_is_killed(listen);
    }
}

fn run_over_a_node_that_is_killed(listen: &str) {
    let scratch = Scratch::new();
    let input = lives(0..300);
    let alone = timeless(run_on(&input, &["--data", &scratch.argument("alone")]).report());
    let mut node = Node::start(listen, &scratch.argument("node"));
    let file = scratch.write("orders.ndjson", &input);
    let mut command = orders();
    command.args(["--json", "--input", &file, "--transport", &node.url]);
    let run = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        // The same port: whoever is connected finds it again.
        let data = scratch.argument("node");
        let url = node.kill();
        node = Node::start(&url, &data);
    }
    let ended: crate::program::Ended = run.wait_with_output().unwrap().into();
    let mut over_it = timeless(ended.report());
    let mut alone = alone;
    for report in [&mut over_it, &mut alone] {
        report.as_object_mut().unwrap().remove("data");
    }
    assert_eq!(over_it, alone);
}

#[test]
fn workers_of_which_some_are_killed_have_the_report_of_one_process() {
    let scratch = Scratch::new();
    let input = lives(0..300);
    let settings = ["--gateway-failures", "0.1"];
    let data = scratch.argument("alone");
    let mut alone = timeless(run_on(&input, &[&settings[..], &["--data", &data]].concat()).report());
    let node = Node::start("http://127.0.0.1:0", &scratch.argument("node"));
    let file = scratch.write("orders.ndjson", &input);
    let mut command = orders();
    command.args(["--json", "--input", &file, "--transport", &node.url, "--workers", "3"]).args(settings);
    let mut run = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(run.stderr.take().unwrap());
    let (mut line, mut all, mut killed) = (String::new(), String::new(), 0);
    while told.read_line(&mut line).unwrap() > 0 {
        // The first three, as soon as each serves: so some of them while the others are at work.
        if let Some((_, process)) = line.trim_end().split_once(": process ").filter(|_| killed < 3) {
            let status = Command::new("kill").args(["-9", process]).status().unwrap();
            assert!(status.success());
            killed += 1;
        }
        all.push_str(&std::mem::take(&mut line));
    }
    assert_eq!(all.matches("another is started in its place").count(), 3, "{all}");
    let ended: crate::program::Ended = run.wait_with_output().unwrap().into();
    let mut divided = timeless(ended.report());
    for report in [&mut divided, &mut alone] {
        report.as_object_mut().unwrap().remove("data");
    }
    assert_eq!(divided, alone);
    oncue(&["demo", "orders", "--workers", "2"]).refused(&["--transport"]);
}

/// Publishes events to a topic of a node, and waits until as many stand in one of another.
fn forwards(from: &str, to: &str, numbers: std::ops::Range<usize>) {
    let open = |url: &str| oncue_transports::open(url, Clock::system()).unwrap();
    let (near, far) = (open(from), open(to));
    let event = |number: usize| Envelope::builder("step").id(number.to_string()).source("/s").key("k").build().unwrap();
    let (all, events) = (numbers.end, numbers.map(event).collect());
    let batch = Publish { topic: "orders".into(), events, source: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(near.publish(&batch)).unwrap();
    let begun = Clock::system().monotonic();
    let ids = loop {
        let there = far.inspect().browse("shop.orders", 0, usize::MAX).unwrap_or_default();
        assert!(Clock::system().monotonic() - begun < DEADLINE, "{} of {all} came", there.len());
        if there.len() >= all {
            break there.into_iter().map(|(_, event)| event.id().to_owned()).collect::<Vec<_>>();
        }
    };
    assert_eq!(ids, (0..all).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_node_forwards_what_its_configuration_file_says_also_after_it_was_killed() {
    let scratch = Scratch::new();
    let far = Node::start("http://127.0.0.1:0", &scratch.argument("far"));
    let text = format!("[bridges.there]\nfrom = \"orders\"\nto = \"{}\"\ninto_topic = \"shop.orders\"\n", far.url);
    let file = scratch.write("oncue.toml", &text);
    let start = || Node::start_with("http://127.0.0.1:0", &scratch.argument("near"), &["--config", &file]);
    let near = start();
    forwards(&near.url, &far.url, 0..200);
    near.kill();
    let near = start();
    forwards(&near.url, &far.url, 200..300);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    let file = scratch
        .write("oncue.toml", "[bridges.there]\nfrom = \"orders\"\nto = \"nats://me:very-secret@host?colour=red\"\n");
    let ended =
        oncue(&["serve", "--listen", "http://127.0.0.1:0", "--data", &scratch.argument("no"), "--config", &file]);
    ended.refused(&["--config", "oncue.toml:3:6: bridges.there.to: `nats://host?colour=red`: unknown option `colour`"]);
    let node = Node::start("http://127.0.0.1:0", &scratch.argument("node"));
    oncue(&["serve", "--listen", "http://127.0.0.1:0", "--data", &scratch.argument("node")])
        .refused(&["--data", "in use by process"]);
    oncue(&["serve", "--listen", &node.url, "--data", &scratch.argument("other")])
        .refused(&["--listen", "cannot listen on"]);
    oncue(&["serve", "--listen", "127.0.0.1:1", "--data", &scratch.argument("other")]).refused(&["http://HOST:PORT"]);
    oncue(&["serve", "--listen", "https://127.0.0.1:1", "--data", &scratch.argument("other")]).refused(&["cert=FILE"]);
    let users = scratch.write("users", "shop");
    for files in [["http://127.0.0.1:0", &users], ["https://127.0.0.1:0?cert=none.pem&key=none.key", "none"]] {
        let [url, file] = files;
        let ended = oncue(&["serve", "--listen", url, "--users", file, "--data", &scratch.argument("other")]);
        ended.refused(&[if url.contains("none") { "none" } else { file }]);
    }
    let ended =
        oncue(&["serve", "--listen", "zmq://127.0.0.1:0", "--users", &users, "--data", &scratch.argument("other")]);
    ended.refused(&["--users", "zmq://127.0.0.1:0"]);
    for url in ["http://127.0.0.1:1", "zmq://127.0.0.1:1"] {
        oncue(&["demo", "orders", "--transport", url]).refused(&["--transport", "oncue serve", url]);
    }
}

/// MiB of address space that a process has taken, where that can be known.
fn taken(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"))?;
    Some(kib.parse::<u64>().ok()? >> 10)
}

#[test]
fn a_length_that_is_only_said_costs_a_node_nothing() {
    let scratch = Scratch::new();
    let node = Node::start("zmq://127.0.0.1:0", &scratch.argument("node"));
    let address = node.url.strip_prefix("zmq://").unwrap();
    let before = taken(node.child.id());
    let peers: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut peer = TcpStream::connect(address).unwrap();
            let mut greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".to_vec();
            greeting.resize(64, 0);
            peer.write_all(&greeting).unwrap();
            // The node's greeting, then its READY.
            peer.read_exact(&mut [0; 64]).unwrap();
            peer.write_all(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER").unwrap();
            peer.read_exact(&mut [0; 30]).unwrap();
            // A question that is answered, and then 32 MiB of which nothing comes.
            peer.write_all(b"\0\x05hello\x02\0\0\0\0\x02\0\0\0").unwrap();
            peer.read_exact(&mut [0; 9]).unwrap();
            peer
        })
        .collect();
    if let (Some(before), Some(after)) = (before, taken(node.child.id())) {
        let grown = after.saturating_sub(before);
        println!("{} peers: {grown} MiB more than {before}", peers.len());
        assert!(grown < 2_000, "{grown} MiB for {} peers that said 32 MiB each", peers.len());
    }
    run_on(&lives(0..5), &["--transport", &node.url]).report();
}
