use oncue::{event::codec::MessagePack, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", codec = MesagePack)]
struct OrderCreated {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.paid", codec = MessagePack)]
struct OrderPaid {
    order_id: String,
}

fn main() {}
