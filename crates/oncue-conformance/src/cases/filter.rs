//! Which events a handler takes.

use std::{collections::BTreeSet, sync::Arc};

use oncue::{
    Bus, Envelope,
    config::HandlerConfig,
    filter::Filter,
    handler::{HandlerExt as _, Registration},
};
use parking_lot::Mutex;

use crate::{
    Bench, Failure,
    bench::TELLS_WITHIN,
    failure::{ensure, ensure_eq},
};

/// Events as `(id, subject, region)`; the last has neither.
const EVENTS: &[(&str, &str, &str)] = &[
    ("o-1", "eu/orders", "north"),
    ("o-2", "eu/orders", "south"),
    ("o-3", "us/orders", "north"),
    ("p-1", "eu/payments", "north"),
    ("p-2", "us/payments", "south"),
    ("p-3", "", ""),
];

/// What each filter takes of them.
fn filters() -> Vec<(&'static str, Filter, &'static [&'static str])> {
    let (eu, north) = (Filter::prefix("subject", "eu/"), Filter::exact("region", "north"));
    let orders = Filter::suffix("subject", "/orders");
    vec![
        ("exact", north.clone(), &["o-1", "o-3", "p-1"]),
        ("exact-id", Filter::exact("id", "p-3"), &["p-3"]),
        ("prefix", eu.clone(), &["o-1", "o-2", "p-1"]),
        ("suffix", orders.clone(), &["o-1", "o-2", "o-3"]),
        ("all", Filter::all([eu.clone(), north.clone(), orders.clone()]), &["o-1"]),
        ("any", Filter::any([north.clone(), orders.clone()]), &["o-1", "o-2", "o-3", "p-1"]),
        ("not", !eu.clone(), &["o-3", "p-2", "p-3"]),
        ("nested", Filter::any([eu.and(!north), Filter::exact("id", "p-3")]), &["o-2", "p-3"]),
        ("nothing", Filter::exact("region", "west"), &[]),
    ]
}

/// Ids of the events that each handler was given, with the handler's.
type Taken = Arc<Mutex<Vec<(String, String)>>>;

fn taking(id: &str, taken: &Taken) -> Registration {
    let (taken, name) = (Arc::clone(taken), id.to_owned());
    let handle = move |event: &Envelope| taken.lock().push((name.clone(), event.id().to_owned()));
    handle.named(id).inline().types(["filtered"])
}

/// Case 26. A handler with a filter is given the events that match, and no others: by each of the dialects, on any
/// attribute. Changed at run time, the new filter counts for what comes, and after a restart too.
///
/// # Errors
/// It is not.
pub async fn filters_hold(bench: &Bench) -> Result<(), Failure> {
    let taken = Taken::default();
    let mut app = bench.app().await?.on(taking("everything", &taken));
    for (name, filter, _) in filters() {
        app = app.on(taking(name, &taken).filter(filter));
    }
    let bus = app.start().await?;
    let receipts = publish(bench, &bus, "").await?;
    bench.idle(&bus).await?;
    let all: Vec<&str> = EVENTS.iter().map(|(id, ..)| *id).collect();
    for (name, _, wanted) in filters().into_iter().chain([("everything", Filter::exact("id", ""), &all[..])]) {
        ensure_eq!(of(&taken, name), wanted, "events that `{name}` took");
        let known = bus.inspect().subscriptions();
        let known = known.iter().find(|known| known.id == name).map(|known| (known.lag, known.stats.acked));
        ensure_eq!(known, Some((0, wanted.len() as u64)), "events that `{name}` is not through with, and acked");
    }
    let outcome = receipts[0].outcome_of("nothing", TELLS_WITHIN).await;
    ensure!(outcome.is_err(), "an outcome for a handler that does not take the event: {outcome:?}");
    let receivers: BTreeSet<String> = bus.handlers_of("events", &receipts_envelope()?).into_iter().collect();
    let promised = ["everything", "exact", "prefix", "suffix", "all", "any"].map(str::to_owned);
    ensure_eq!(receivers, BTreeSet::from(promised), "handlers of the first event");
    drop(receipts);
    bench.shutdown(bus).await?;
    changed(bench).await
}

/// The first event, as it is published.
fn receipts_envelope() -> Result<Envelope, Failure> {
    let (id, subject, region) = EVENTS[0];
    Ok(Envelope::builder("filtered").id(id).source("/filters").subject(subject).extension("region", region).build()?)
}

async fn changed(bench: &Bench) -> Result<(), Failure> {
    let taken = Taken::default();
    let open = || async {
        let north = Filter::exact("region", "north");
        Ok::<_, Failure>(bench.app_at("-changed").await?.on(taking("changing", &taken).filter(north)).start().await?)
    };
    let mut bus = open().await?;
    publish(bench, &bus, "first-").await?;
    bench.idle(&bus).await?;
    let filter = Some(Filter::exact("region", "south"));
    bus.configure("changing", HandlerConfig { filter, ..HandlerConfig::default() }).await?;
    publish(bench, &bus, "second-").await?;
    bench.idle(&bus).await?;
    let mut promised = vec!["first-o-1", "first-o-3", "first-p-1", "second-o-2", "second-p-2"];
    ensure_eq!(of(&taken, "changing"), promised, "events taken, before the change and after it");
    if bench.capabilities().durable {
        bench.shutdown(bus).await?;
        bus = open().await?;
        publish(bench, &bus, "third-").await?;
        bench.idle(&bus).await?;
        promised.extend(["third-o-2", "third-p-2"]);
        ensure_eq!(of(&taken, "changing"), promised, "events taken, after a restart too");
    }
    bus.forget_configuration("changing").await?;
    publish(bench, &bus, "fourth-").await?;
    bench.idle(&bus).await?;
    promised.extend(["fourth-o-1", "fourth-o-3", "fourth-p-1"]);
    ensure_eq!(of(&taken, "changing"), promised, "events taken, with the filter of the code again");
    bench.shutdown(bus).await
}

/// Publishes the events one after the other: without a common key nothing else orders them.
async fn publish(bench: &Bench, bus: &Bus, prefix: &str) -> Result<Vec<oncue::Receipt>, Failure> {
    let event = |(id, subject, region): &(&str, &str, &str)| {
        let mut builder = Envelope::builder("filtered").id(format!("{prefix}{id}")).source("/filters").key("key");
        if !subject.is_empty() {
            builder = builder.subject(*subject).extension("region", *region);
        }
        builder.build()
    };
    bench.publish_all(bus, EVENTS.iter().map(event).collect::<Result<_, _>>()?).await
}

fn of(taken: &Taken, handler: &str) -> Vec<String> {
    taken.lock().iter().filter(|(known, _)| known == handler).map(|(_, id)| id.clone()).collect()
}
