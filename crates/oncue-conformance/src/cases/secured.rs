//! Who may get in.

use oncue::{
    event::DEFAULT_TOPIC,
    transport::{MemberSpec, Publish, SubscriptionSpec, Transport},
};

use crate::{
    Bench, Failure, Intruder, Seen, Step,
    failure::{ensure, ensure_eq},
    seen::accepting,
};

/// Case 30. Whoever has no credentials, wrong ones, or no TLS where that is asked for, can neither publish nor subscribe;
/// who has the right ones can, before and after.
///
/// # Errors
/// It is not so.
pub async fn secured(bench: &Bench) -> Result<(), Failure> {
    let intruders = [Intruder::WrongCredentials, Intruder::NoCredentials, Intruder::NoTls];
    let untried: Vec<&str> = intruders.iter().filter_map(|intruder| bench.transport_as(*intruder).err()).collect();
    if untried.len() == intruders.len() {
        return bench.skip(untried[0]);
    }
    let seen = Seen::new(bench);
    let bus = bench.app().await?.on(accepting("rightful", &seen)).start().await?;
    bench.publish(&bus, "key", 0..2).await?;
    bench.idle(&bus).await?;
    for intruder in intruders {
        match bench.transport_as(intruder) {
            Err(reason) => bench.note(format!("{intruder:?} was not tried: {reason}")),
            Ok(opening) => {
                // One that is let in may be stopped later, at the latest when it wants something.
                if let Ok(transport) = bench.wait(format!("{intruder:?} to be refused"), opening).await {
                    refused(bench, &*transport).await.map_err(|failure| failure.at(format!("{intruder:?}")))?;
                }
            }
        }
    }
    bench.publish(&bus, "key", 2..3).await?;
    bench.idle(&bus).await?;
    seen.complete("rightful", &["key".to_owned()], 3, true)?;
    let kept = bus.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX)?.len();
    ensure_eq!(kept, 3, "events in the topic");
    bench.shutdown(bus).await
}

async fn refused(bench: &Bench, transport: &dyn Transport) -> Result<(), Failure> {
    let events = vec![Step::new("key", 100).envelope()?];
    let batch = Publish { topic: DEFAULT_TOPIC.into(), events, source: None };
    let published = bench.wait("the intruder's event to be refused", transport.publish(&batch)).await;
    ensure!(published.is_err(), "it published an event");
    let member = MemberSpec { id: "intruder".to_owned(), ..MemberSpec::default() };
    let spec =
        SubscriptionSpec { topic: DEFAULT_TOPIC.to_owned(), members: vec![member], ..SubscriptionSpec::default() };
    let subscribed = bench.wait("the intruder's subscription to be refused", transport.subscribe(spec)).await;
    ensure!(subscribed.is_err(), "it subscribed");
    Ok(())
}
