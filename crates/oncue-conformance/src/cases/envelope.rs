//! What an event carries arrives as it was sent.

use bytes::Bytes;
use oncue::{
    Envelope, Event, Timestamp,
    event::{DEFAULT_TOPIC, EnvelopeBuilder},
    handler::{HandlerExt as _, extract::Context},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

use crate::{
    Bench, Failure, Step,
    failure::{ensure, ensure_eq},
};

/// A trace as W3C Trace Context writes it.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Arrived = Arc<Mutex<Vec<Envelope>>>;

/// Publishes events and gives them as a handler was given them.
async fn through(bench: &Bench, place: &str, types: &[&str], events: Vec<Envelope>) -> Result<Vec<Envelope>, Failure> {
    let arrived = Arrived::default();
    let into = Arc::clone(&arrived);
    let handle = (move |event: Envelope| into.lock().push(event)).named("keep").inline().types(types.iter().copied());
    let bus = bench.app_at(place).await?.on(handle.concurrency(1)).start().await?;
    bench.publish_all(&bus, events).await?;
    bench.idle(&bus).await?;
    bench.shutdown(bus).await?;
    let arrived = arrived.lock().clone();
    Ok(arrived)
}

/// An event as its attributes, which are in no order, and data: all of it but the time that the transport accepted it.
fn contents(event: &Envelope) -> (BTreeSet<(String, String)>, Bytes) {
    let attributes = event.attributes().map(|(name, value)| (name.to_owned(), value.into_owned()));
    (attributes.collect(), event.data().clone())
}

/// Case 2. Payloads and attributes of every kind arrive byte for byte: each byte value, nothing at all, text beyond
/// ASCII, with a key and without, every attribute and none.
///
/// # Errors
/// One does not.
pub async fn round_trip(bench: &Bench) -> Result<(), Failure> {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let blob = |payload: Vec<u8>| Envelope::builder("blob").data(payload);
    let full = blob(every_byte.clone())
        .id("id-1")
        .source("/conformance/äöü")
        .subject("subject 1")
        .key("key/1")
        .time(Timestamp::from_micros(1_473_023_719_000_001))
        .content_type("application/octet-stream")
        .schema("https://example.org/schema#1")
        .correlation_id("correlation")
        .causation_id("causation")
        .extension("traceparent", TRACE)
        .extension("tenant", "東京 \u{1F680} \"quoted\"");
    let builders: Vec<EnvelopeBuilder> = vec![
        full,
        blob(Vec::new()),
        blob(vec![0]),
        blob(b"\r\n\0\xff\xfe".to_vec()),
        blob(every_byte.repeat(1_000)).subject("only a subject"),
    ];
    let sent = builders.into_iter().map(EnvelopeBuilder::build).collect::<Result<Vec<_>, _>>()?;
    let arrived = through(bench, "", &["blob"], sent.clone()).await?;
    ensure_eq!(arrived.len(), sent.len(), "events that arrived");
    for event in &sent {
        let same = arrived.iter().find(|arrived| arrived.id() == event.id() && arrived.source() == event.source());
        let Some(same) = same else { return Err(Failure::new(format!("{event:?} did not arrive"))) };
        ensure_eq!(contents(same).0, contents(event).0, "attributes of {}", event.id());
        ensure!(same.data() == event.data(), "the data of {} changed", event.id());
        ensure_eq!(same.key(), event.key(), "the key of {}", event.id());
        ensure!(same.published() > Timestamp::default(), "{} was never published", event.id());
    }
    Ok(())
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "first", key = key)]
struct First {
    key: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "second")]
struct Second;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "third")]
struct Third;

/// Case 25. What a handler emits says where it comes from: the first event of the chain, the one before, the trace, the
/// key and the handler; and it is emitted once.
///
/// # Errors
/// It does not.
pub async fn lineage(bench: &Bench) -> Result<(), Failure> {
    let arrived = Arrived::default();
    let into = Arc::clone(&arrived);
    let keep =
        (move |event: Envelope| into.lock().push(event)).named("keep").inline().types(["first", "second", "third"]);
    let one = |_: First| async { Second };
    let two = |_: Second, context: Context| async move { context.emit(Third) };
    let app = bench.app().await?.on(keep).on(one.named("one")).on(two.named("two").emits::<Third>());
    let bus = app.start().await?;
    let first =
        Envelope::builder_of(&First { key: "k".into() })?.source("/conformance").extension("traceparent", TRACE);
    let receipt = bus.publish(first.build()?).await?;
    bench.idle(&bus).await?;
    bench.shutdown(bus).await?;
    let arrived = arrived.lock().clone();
    let types: Vec<_> = arrived.iter().map(Envelope::event_type).collect();
    ensure_eq!(types, ["first", "second", "third"], "the chain");
    let [first, second, third] = &arrived[..] else { return Ok(()) };
    ensure_eq!(first.id(), receipt.id(), "the id that the receipt tells");
    ensure_eq!((first.correlation_id(), first.causation_id(), first.hops()), (None, None, 0), "the first of a chain");
    for (event, parent, handler, hops) in [(second, first, "/oncue/one", 1), (third, second, "/oncue/two", 2)] {
        let kind = event.event_type();
        ensure_eq!(event.correlation_id(), Some(first.id()), "{kind}: correlation");
        ensure_eq!(event.causation_id(), Some(parent.id()), "{kind}: causation");
        ensure_eq!(event.extension("traceparent"), Some(TRACE), "{kind}: trace");
        ensure_eq!(
            (event.key(), event.source(), event.hops()),
            (Some("k"), handler, hops),
            "{kind}: key, source, hops"
        );
    }
    Ok(())
}

/// Case 27. A `CloudEvent` in structured or binary mode arrives as it was written; a malformed one is refused before
/// anything is written; a record that another tool wrote is delivered with its bytes.
///
/// # Errors
/// It is not.
pub async fn cloud_events(bench: &Bench) -> Result<(), Failure> {
    let json = br#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.created","subject":"o-1","time":"2016-09-04T21:15:19Z","datacontenttype":"application/json","tries":3,"data":{"total":1.50}}"#;
    let structured = Envelope::from_json(json)?;
    let attributes =
        [("specversion", "1.0"), ("id", "2"), ("source", "/shop"), ("type", "order.created"), ("tenant", "t")];
    let binary = Envelope::from_binary(attributes, Bytes::from_static(&[0, 159, 146, 150]))?;
    let foreign = Envelope::builder(DEFAULT_TOPIC).id("3").source("/foreign").foreign().data("a\tb\n").build()?;
    let sent = vec![structured, binary, foreign];
    let mut arrived = through(bench, "", &["order.created", DEFAULT_TOPIC], sent.clone()).await?;
    // They have different keys: nothing orders them.
    arrived.sort_by(|one, other| one.id().cmp(other.id()));
    ensure_eq!(arrived.len(), sent.len(), "events that arrived");
    for (event, arrived) in sent.iter().zip(&arrived) {
        ensure_eq!(contents(arrived), contents(event), "event {}", event.id());
        ensure_eq!(arrived.is_foreign(), event.is_foreign(), "event {}: foreign", event.id());
        ensure_eq!(
            Envelope::from_json(arrived.to_json().as_bytes()).map(|read| contents(&read))?,
            contents(event),
            "as JSON"
        );
    }
    for malformed in ["", "[]", "{}", r#"{"specversion":"1.0","id":"1","source":"/s"}"#, "{\"specversion\":\"1.0\"} x"]
    {
        ensure!(Envelope::from_json(malformed.as_bytes()).is_err(), "`{malformed}` was taken for an event");
    }
    ensure!(Envelope::builder("bell\u{7}").build().is_err(), "a control character in an attribute");
    ensure!(Envelope::builder("t").extension("Upper", "x").build().is_err(), "an extension in upper case");
    let bus = bench.app_at("-names").await?.start().await?;
    for name in ["", "no/slash", "no space", &"long".repeat(100)] {
        let published = bus.publish_to(name, Step::new("k", 1).envelope()?).await;
        ensure!(published.is_err(), "a topic called `{name}`");
    }
    bench.shutdown(bus).await
}
