//! A bridge: what a handler emits to a topic of its own log is forwarded to another transport, once and in order.

use oncue::{Clock, bridge, prelude::*, transport};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.paid", key = order_id, topic = "paid")]
struct OrderPaid {
    order_id: String,
}

#[handler]
async fn charge(order: OrderCreated) -> OrderPaid {
    OrderPaid { order_id: order.order_id }
}

#[handler]
async fn ship(order: OrderPaid, State(shipped): State<mpsc::Sender<String>>) {
    shipped.send(order.order_id).await.expect("it is waited for");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let url = |name: &str| format!("file:{}", directory.path().join(name).display());

    // The warehouse has a log of its own.
    let far = transport::open(&url("warehouse"), Clock::system())?;
    let (told, mut shipped) = mpsc::channel::<String>(8);
    let warehouse = App::with_transport(far.clone(), Clock::system()).state(told).on(ship).start().await?;

    // The shop writes `order.paid` with the acknowledgement of `order.created`, to its own log; the bridge takes it from
    // there. For a broker or a node: `oncue_transports::bridge("nats://127.0.0.1:4222", Clock::system())`.
    let there = bridge::to(far).topic("paid").named("paid-to-warehouse");
    let shop = App::open(&url("shop")).await?.on(charge).on(there).start().await?;
    shop.publish(OrderCreated { order_id: "o-1".into() }).await?;

    let order = shipped.recv().await.ok_or("it was lost")?;
    println!("shipped: {order}");
    assert_eq!(order, "o-1");
    shop.shutdown().await?;
    Ok(warehouse.shutdown().await?)
}
