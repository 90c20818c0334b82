use oncue::prelude::*;

#[handler]
async fn charge(order: String, context: Context) {
    drop((order, context));
}

#[handler]
fn audit(order: &u32) {
    let _ = order;
}

fn main() {}
