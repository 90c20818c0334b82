//! The second process of case 33, for the transports that come with Oncue: `conformance-worker URL FROM`.

use oncue_conformance::{Failure, worker};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(Ok(from))) = (arguments.next(), arguments.next().map(|from| from.parse())) else {
        return Err(Failure::new("usage: conformance-worker URL FROM, such as conformance-worker file:data 0"));
    };
    worker::main(&url, from).await
}
