use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Debug)]
struct BankError;

impl BankError {
    fn class(&self) -> policy::ErrorClass {
        policy::ErrorClass::Permanent
    }
}

#[handler(classify = BankError::class)]
async fn charge(order: OrderCreated) -> Result<(), std::io::Error> {
    drop(order);
    Ok(())
}

fn main() {}
