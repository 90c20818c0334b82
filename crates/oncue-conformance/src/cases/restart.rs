//! What survives a restart.

use std::time::Duration;

use oncue::{handler::HandlerError, policy};

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::{accepting, keys},
};

/// Case 15. A subscription goes on where it stood: after a clean restart nothing is repeated, after a crash at most what
/// was not settled; what was published meanwhile is delivered too.
///
/// # Errors
/// It does not.
pub async fn resume(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers) = (keys(8), bench.size(20, 500));
    let seen = Seen::new(bench);
    let bus = bench.app().await?.on(accepting("resumes", &seen)).start().await?;
    for key in &keys {
        bench.publish(&bus, key, 0..numbers).await?;
    }
    bench.acked(&bus, "resumes", 1).await?;
    bench.shutdown(bus).await?;

    // Nobody is subscribed while this is published.
    let bus = bench.app().await?.start().await?;
    for key in &keys {
        bench.publish(&bus, key, numbers..2 * numbers).await?;
    }
    bench.shutdown(bus).await?;

    let bus = bench.app().await?.on(accepting("resumes", &seen)).start().await?;
    bench.idle(&bus).await?;
    seen.complete("resumes", &keys, 2 * numbers, true)?;
    bench.shutdown(bus).await?;

    let bus = bench.app().await?.on(accepting("resumes", &seen)).start().await?;
    for key in &keys {
        bench.publish(&bus, key, 2 * numbers..3 * numbers).await?;
    }
    bench.acked(&bus, "resumes", 1).await?;
    bench.crash(bus);
    let bus = bench.app().await?.on(accepting("resumes", &seen)).start().await?;
    bench.idle(&bus).await?;
    seen.complete("resumes", &keys, 3 * numbers, false)?;
    seen.in_order()?;
    let total = u64::from(3 * numbers) * keys.len() as u64;
    let known = bus.inspect().subscriptions();
    ensure_eq!(known.first().map(|known| known.stats.acked), Some(total), "events acknowledged in all");
    bench.shutdown(bus).await
}

/// Case 43. A crash while events wait for their retry loses nothing: neither the events, nor those behind them, nor the
/// count of their attempts.
///
/// # Errors
/// It does.
pub async fn during_a_retry(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers, failures) = (keys(bench.size(10, 100)), 3, 3);
    let seen = Seen::new(bench);
    let handler = || {
        let answer = move |step: &Step, attempt| match (step.number, attempt) {
            (0, attempt) if attempt <= failures => Err(HandlerError::transient(format!("failure {attempt}"))),
            _ => Ok(()),
        };
        noting("flaky", &seen, answer).retry(policy::fixed(Duration::from_millis(50)))
    };
    let mut bus = bench.app().await?.on(handler()).start().await?;
    for key in &keys {
        bench.publish(&bus, key, 0..numbers).await?;
    }
    let retried = |count: u64| move |known: &oncue::transport::SubscriptionInfo| known.stats.retried >= count;
    for crash in 1..=2 {
        bench.until(&bus, "flaky", "failed attempts", retried(crash * keys.len() as u64)).await?;
        bench.crash(bus);
        bus = bench.app().await?.on(handler()).start().await?;
    }
    bench.idle(&bus).await?;
    seen.in_order()?;
    seen.complete("flaky", &keys, numbers, false)?;
    for key in &keys {
        let attempts: Vec<u32> =
            seen.of("flaky", key).iter().filter(|(number, _)| *number == 0).map(|(_, attempt)| *attempt).collect();
        ensure!(attempts.is_sorted() && attempts.last() == Some(&(failures + 1)), "key {key}: attempts {attempts:?}");
    }
    let known = bus.inspect().subscriptions();
    let total = u64::from(numbers) * keys.len() as u64;
    ensure_eq!(known.first().map(|known| (known.stats.acked, known.dead)), Some((total, 0)), "acked and dead");
    bench.shutdown(bus).await
}
