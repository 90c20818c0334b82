//! Oncue's side: an app on the transport of a URL.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use oncue::{
    App, Bus, Clock, Envelope, Receipt,
    handler::{HandlerExt as _, Start},
};
use oncue_transports::{
    wire::{self, NodeSettings},
    zmq::ZmqServer,
};

use super::{
    Keys, PARTITIONS, Place,
    measured::{Client, Handled},
    message,
};
use crate::{
    events,
    load::{self, HANDLER},
    measure::Result,
};

/// An app on a broker.
#[derive(Clone)]
pub(super) struct Ours {
    bus: Bus,
    keys: Keys,
    count: Arc<AtomicU64>,
    /// Of the last event of each partition.
    last: Arc<Mutex<HashMap<u16, Receipt>>>,
}

/// An app on a transport, off the threads that others wait on: opening stands still.
pub(super) async fn app(url: String) -> Result<App> {
    let clock = Clock::system();
    let opening = tokio::task::spawn_blocking(move || oncue_transports::open(&url, Clock::system()));
    Ok(App::with_transport(opening.await??, clock))
}

impl Ours {
    async fn at(url: String, keys: Keys) -> Result<Self> {
        let bus = app(url).await?.start().await?;
        Ok(Self { bus, keys, count: Arc::default(), last: Arc::default() })
    }
}

impl Client for Ours {
    async fn open(place: Place) -> Result<Self> {
        let partitions = if place.keyed() { PARTITIONS } else { 1 };
        Self::at(format!("{}?prefix={}&partitions={partitions}", place.url, place.name), place.keys).await
    }

    async fn publish(&self, count: usize) -> Result<()> {
        let keyed = self.keys != Keys::None;
        let first = self.count.fetch_add(count as u64, Ordering::Relaxed);
        let receipts = self.bus.publish_all(events::TOPIC, message::events(first, count, keyed)?, None).await?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Of those of a call, the last ones of each partition are enough.
        for receipt in receipts.into_iter().rev().take(if keyed { count } else { 1 }) {
            let position = receipt.position();
            let is_later =
                last.get(&position.partition()).is_none_or(|known| known.position().offset() < position.offset());
            if is_later {
                last.insert(position.partition(), receipt);
            }
        }
        Ok(())
    }

    async fn handle(&self, handled: Handled) -> Result<()> {
        let arriving = handled.clone();
        let handler = move |event: &Envelope| {
            black_box(event.data().len());
            arriving.arrived();
        };
        let handler = handler.named(HANDLER).types([events::TYPE]).topic(events::TOPIC).start(Start::Earliest);
        let handler = if self.keys == Keys::Pipelined { handler.pipelined() } else { handler };
        self.bus.subscribe(handler.inline()).await?;
        handled.all().await;
        let last: Vec<Receipt> =
            self.last.lock().unwrap_or_else(PoisonError::into_inner).drain().map(|(_, receipt)| receipt).collect();
        for receipt in last {
            load::acked(&receipt).await?;
        }
        Ok(())
    }

    async fn close(self) -> Result<()> {
        Ok(self.bus.shutdown().await?)
    }
}

/// An app on a node, by ZeroMQ; both are in this process.
#[derive(Clone)]
pub(super) struct Node {
    ours: Ours,
    node: Arc<wire::Node>,
    server: Arc<Mutex<Option<ZmqServer>>>,
}

impl Client for Node {
    async fn open(place: Place) -> Result<Self> {
        let settings = NodeSettings { data: place.directory, logs: None, lease: wire::LEASE };
        let opening = tokio::task::spawn_blocking(move || wire::Node::open(settings, Clock::system()));
        let node = opening.await??;
        let server = ZmqServer::listen("127.0.0.1:0", Arc::clone(&node)).await?;
        let ours = Ours::at(server.url(), place.keys).await?;
        Ok(Self { ours, node, server: Arc::new(Mutex::new(Some(server))) })
    }

    fn publish(&self, count: usize) -> impl Future<Output = Result<()>> + Send {
        self.ours.publish(count)
    }

    fn handle(&self, handled: Handled) -> impl Future<Output = Result<()>> + Send {
        self.ours.handle(handled)
    }

    async fn close(self) -> Result<()> {
        self.ours.close().await?;
        self.node.close().await?;
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop().await;
        }
        Ok(())
    }
}
