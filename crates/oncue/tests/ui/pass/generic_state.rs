use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

trait Bank: Clone + Send + Sync + 'static {
    fn charge(&self) -> impl Future<Output = Result<(), std::io::Error>> + Send;
}

#[derive(Clone)]
struct RealBank;

impl Bank for RealBank {
    async fn charge(&self) -> Result<(), std::io::Error> {
        Ok(())
    }
}

#[handler]
async fn charge<B: Bank, const LIMIT: usize>(order: OrderCreated, State(bank): State<B>) -> Result<(), std::io::Error>
where
    B: std::any::Any,
{
    assert!(order.order_id.len() < LIMIT);
    bank.charge().await
}

#[handler(concurrency = LIMIT)]
fn plain<B: Bank, const LIMIT: usize>(_: &OrderCreated, _: State<B>) {}

fn main() {
    assert_eq!(plain::<RealBank, 9>.into_registration().options.concurrency, 9);
    assert_eq!(charge::<RealBank, 9>.into_registration().id, "charge");
}
