use oncue::prelude::*;

#[derive(Event)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

fn main() {}
