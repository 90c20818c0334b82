//! The other processes of cases 33 and 40, for the transports that come with Oncue: `conformance-worker URL TASK`.

use oncue_conformance::{Failure, worker};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(task)) = (arguments.next(), arguments.next()) else {
        return Err(Failure::new("usage: conformance-worker URL TASK, such as conformance-worker file:data tally:0"));
    };
    worker::main(&url, task.parse()?).await
}
