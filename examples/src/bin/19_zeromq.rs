//! ZeroMQ sockets, at most once: a program pushes its events to another one that pulls them into its log.

use oncue::prelude::*;
use oncue_transports::zmq;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "reading.taken", key = sensor)]
struct ReadingTaken {
    sensor: String,
    celsius: f64,
}

#[handler]
async fn show(reading: ReadingTaken, State(shown): State<mpsc::Sender<String>>) {
    shown.send(format!("{}: {} °C", reading.sensor, reading.celsius)).await.expect("it is waited for");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Any PUSH socket may connect here: `context.socket(zmq.PUSH).connect("tcp://…")` in Python.
    let here = zmq::bind("tcp://127.0.0.1:0")?;
    let there = zmq::connect(&here.url())?;
    let (told, mut shown) = mpsc::channel::<String>(8);
    let taking = App::open("memory:").await?.state(told).on(show).source(zmq::Source::pull(here)).start().await?;

    // Any PULL socket may take these: events in CloudEvents JSON, behind their type.
    let sink = zmq::Sink::push(there)?.named("readings").types(["reading.taken"]);
    let giving = App::open("memory:").await?.on(sink).start().await?;
    giving.publish(ReadingTaken { sensor: "kitchen".into(), celsius: 21.5 }).await?;

    let line = shown.recv().await.ok_or("it was lost")?;
    println!("{line}");
    assert_eq!(line, "kitchen: 21.5 °C");
    giving.shutdown().await?;
    Ok(taking.shutdown().await?)
}
