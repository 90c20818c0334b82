use oncue::prelude::*;

#[handler]
async fn charge(order: String, context: Context) {
    drop((order, context));
}

fn main() {}
