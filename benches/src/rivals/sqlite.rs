//! `RustStream` on `SQLite`, every commit synced: the other side of row 11.

use std::{convert::Infallible, hint::black_box, path::Path, sync::Arc};

use chrono::{DateTime, Utc};
use ruststream::OutgoingMessage;
use ruststream_sqlx::prelude::*;
use sqlx::{
    Sqlite, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::durable::Pace;
use crate::{
    events,
    measure::{Result, Stopwatch},
    walk::Latch,
};

const QUEUE: &str = "bench";
const SCHEMA: &str = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, locked_until TEXT, payload BLOB NOT NULL)";
/// Of the pool: `SQLite` has one writer at a time, more only wait for each other.
const CONNECTIONS: u32 = 4;

/// A row of the queue.
#[derive(Inbox, sqlx::FromRow)]
#[inbox(table = "jobs")]
struct Job {
    #[field(id, generated)]
    id: i64,
    #[field(locked_until)]
    locked_until: Option<DateTime<Utc>>,
    #[field(payload)]
    payload: Vec<u8>,
}

impl Publish<Sqlite> for Job {
    async fn publish(
        connection: &mut SqliteConnection,
        message: &OutgoingMessage<'_>,
    ) -> std::result::Result<(), sqlx::Error> {
        let insert = sqlx::query("INSERT INTO jobs (payload) VALUES (?)").bind(message.payload());
        insert.execute(connection).await.map(drop)
    }
}

#[derive(Deserialized)]
struct Raw<'a>(&'a [u8]);

/// What the handler counts on: the events of a backlog, and the room for more.
#[derive(Clone)]
struct Handled {
    latch: Latch,
    room: Arc<Semaphore>,
}

#[subscriber(InboxQueue::<Job>::new("bench"))]
async fn handle(data: &Raw<'_>, context: &mut Context<'_, (), Handled>) -> HandlerOutcome {
    black_box(data.0[0]);
    context.state().room.add_permits(1);
    context.state().latch.arrived();
    HandlerOutcome::ack()
}

async fn pool(directory: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(directory.join("ruststream.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
    sqlx::raw_sql(SCHEMA).execute(&pool).await?;
    Ok(pool)
}

/// Everything acknowledged is gone from the table.
async fn check_empty(pool: &SqlitePool) -> Result<()> {
    match sqlx::query_scalar::<_, i64>("SELECT count(*) FROM jobs").fetch_one(pool).await? {
        0 => Ok(()),
        left => Err(format!("{left} events of RustStream's side were never acknowledged").into()),
    }
}

/// Publishes while a handler acknowledges: events per second, until all are acknowledged.
pub(super) async fn live(directory: &Path, pace: &Pace) -> Result<f64> {
    let pool = pool(directory).await?;
    let handled = Handled { latch: Latch::of(u64::MAX), room: Arc::new(Semaphore::new(pace.backlog)) };
    let (room, state) = (Arc::clone(&handled.room), handled.clone());
    let broker = SqlxBroker::new(pool.clone()).route::<Job>(QUEUE).bindable();
    let publishing = broker.bind(Routed);
    let running = RustStream::new(AppInfo::new("bench", "0.0.0"))
        .on_startup(async move |()| Ok::<_, Infallible>(state))
        .with_broker(broker, |broker| {
            broker.include(handle);
        })
        .start()
        .await?;
    let publisher = Arc::new(running.publisher(publishing).await?);
    let watch = Stopwatch::start();
    let mut publishers = JoinSet::new();
    for _ in 0..pace.publishers {
        let (publisher, room, seconds) = (Arc::clone(&publisher), Arc::clone(&room), pace.seconds);
        publishers.spawn(async move {
            let (mut count, payload) = (0_u64, vec![7; events::DATA_BYTES]);
            while watch.seconds() < seconds {
                room.acquire().await?.forget();
                publisher.publish(OutgoingMessage::new(QUEUE, &payload), None).await?;
                count += 1;
            }
            Result::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(ended) = publishers.join_next().await {
        count += ended??;
    }
    // All room is back when all are handled.
    drop(room.acquire_many(u32::try_from(pace.backlog)?).await?);
    let rate = count as f64 / watch.seconds();
    running.shutdown().await?;
    check_empty(&pool).await?;
    pool.close().await;
    Ok(rate)
}

/// Handles and acknowledges events that are there: events per second.
pub(super) async fn from_backlog(directory: &Path, count: u64) -> Result<f64> {
    let pool = pool(directory).await?;
    let mut filling = pool.begin().await?;
    for _ in 0..count {
        let insert = sqlx::query("INSERT INTO jobs (payload) VALUES (?)").bind(vec![7; events::DATA_BYTES]);
        insert.execute(&mut *filling).await?;
    }
    filling.commit().await?;
    let state = Handled { latch: Latch::of(count), room: Arc::new(Semaphore::new(0)) };
    let latch = state.latch.clone();
    let broker = SqlxBroker::new(pool.clone()).route::<Job>(QUEUE);
    let app = RustStream::new(AppInfo::new("bench", "0.0.0"))
        .on_startup(async move |()| Ok::<_, Infallible>(state))
        .with_broker(broker, |broker| {
            broker.include(handle);
        });
    let watch = Stopwatch::start();
    let running = app.start().await?;
    latch.drained().await;
    let rate = count as f64 / watch.seconds();
    running.shutdown().await?;
    check_empty(&pool).await?;
    pool.close().await;
    Ok(rate)
}
