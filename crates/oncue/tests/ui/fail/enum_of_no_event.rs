use oncue::prelude::*;

#[derive(Event)]
enum OrderEvent {
    #[event(type = "order.created")]
    Created(String),
}

fn main() {}
