//! Many at once: a batch is published by one write, and a batch handler gives each of its events an outcome. What failed is
//! tried again, the others are done.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "reading.taken", key = meter)]
struct ReadingTaken {
    meter: u32,
}

#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<BTreeSet<u32>>>,
    statements: Arc<Mutex<u32>>,
}

/// One statement for up to a hundred rows, or for those that came within ten milliseconds.
#[handler(batch = 100, batch_wait = "10ms", retry = policy::fixed(Duration::ZERO))]
async fn insert(readings: Batch<ReadingTaken>, State(table): State<Table>) -> Vec<Result<(), HandlerError>> {
    *table.statements.lock().expect("no panic") += 1;
    let mut rows = table.rows.lock().expect("no panic");
    let row = |reading: &Delivery<ReadingTaken>| match (reading.meter, reading.attempt) {
        (13, 1) => Err(HandlerError::transient("row 13 is locked")),
        (meter, _) => {
            rows.insert(meter);
            Ok(())
        }
    };
    readings.iter().map(row).collect()
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let table = Table::default();
    let app = App::open("memory:").await?.state(table.clone()).on(insert).start().await?;
    app.publish_batch((0..1_000).map(|meter| ReadingTaken { meter })).await?;
    app.idle().await?;
    let (rows, statements) = (table.rows.lock().expect("no panic").len(), *table.statements.lock().expect("no panic"));
    println!("{rows} rows by {statements} statements");
    assert_eq!(rows, 1_000);
    assert!(statements < 100, "many rows at once: {statements}");
    app.shutdown().await
}
