use oncue::prelude::*;

#[handler]
fn audit(order: &u32) {
    let _ = order;
}

fn main() {}
