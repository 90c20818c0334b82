//! `after`: handlers of one event, one before the other.

use std::time::Duration;

use oncue::{
    App, Bus,
    handler::{HandlerError, Registration},
    policy,
    transport::{OnDeadLetter, Start},
};

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::Note,
};

const HANDLERS: [&str; 4] = ["top", "left", "right", "bottom"];

/// `top`, then `left` and `right`, then `bottom`. Number 2 fails twice at `left` and once at `right`; number 3 is
/// rejected by `right`.
fn diamond(app: App, seen: &Seen, on_dead_letter: OnDeadLetter, delay: Duration) -> App {
    let member = |id: &'static str| -> Registration {
        let answer = move |step: &Step, attempt| match (id, step.number, attempt) {
            ("left", 2, 1..=2) | ("right", 2, 1) => Err(HandlerError::transient("not yet")),
            ("right", 3, _) => Err(HandlerError::reject("never")),
            _ => Ok(()),
        };
        noting(id, seen, answer).retry(policy::fixed(delay)).on_dead_letter(on_dead_letter)
    };
    app.on(member("bottom").after_id("left").after_id("right"))
        .on(member("left").after_id("top"))
        .on(member("right").after_id("top"))
        .on(member("top"))
}

/// Each handler ran after all before it had acknowledged the same event.
fn edges_hold(seen: &Seen, key: &str, numbers: u32) -> Result<(), Failure> {
    let notes = seen.notes();
    for (before, after) in [("top", "left"), ("top", "right"), ("left", "bottom"), ("right", "bottom")] {
        for number in 0..numbers {
            let of = |id: &str| {
                let is = |note: &Note| note.handler == id && note.key == key && note.number == number;
                (0..notes.len()).filter(|at| is(&notes[*at])).collect::<Vec<_>>()
            };
            // The last call of the one before is the one that it acknowledged.
            let (Some(last), Some(first)) = (of(before).last().copied(), of(after).first().copied()) else { continue };
            ensure!(last < first, "key {key}, number {number}: `{after}` began before `{before}` was through");
        }
    }
    Ok(())
}

/// Case 38. In a diamond each handler runs once all before it acknowledged that event, and the next event of the key
/// once all of them are through; a failing branch is waited for, a dead-lettered one makes those after it skip the event,
/// or holds the key. All of that survives a restart in the middle. What one skips, those after it skip also when they
/// begin anew.
///
/// # Errors
/// It does not.
pub async fn after(bench: &Bench) -> Result<(), Failure> {
    let mut parts = vec![("skip", skips(bench).await), ("hold", holds(bench).await)];
    if bench.capabilities().history {
        parts.push(("skip and begin anew", skips_anew(bench).await));
    }
    if bench.capabilities().durable {
        parts.push(("hold and restart", holds_after_restart(bench).await));
        parts.push(("retries and restart", restarts(bench).await));
    }
    Failure::of_parts(parts)
}

async fn skips(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let app = bench.app_at("-skip").await?;
    let bus = diamond(app, &seen, OnDeadLetter::Continue, Duration::from_millis(5)).start().await?;
    for key in ["a", "b", "c"] {
        bench.publish(&bus, key, 0..6).await?;
    }
    bench.idle(&bus).await?;
    for key in ["a", "b", "c"] {
        edges_hold(&seen, key, 6)?;
        next_waits_for_all(&seen, key)?;
        ensure_eq!(
            seen.of("left", key),
            [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 1), (4, 1), (5, 1)],
            "`left`, {key}"
        );
        ensure_eq!(seen.of("right", key), [(0, 1), (1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (5, 1)], "`right`, {key}");
        ensure_eq!(seen.of("bottom", key), [(0, 1), (1, 1), (2, 1), (4, 1), (5, 1)], "`bottom`, {key}");
    }
    seen.in_order()?;
    bench.shutdown(bus).await
}

/// The first of three gave up on number 1, and knows nothing of that any more when the last one begins anew: it was skipped
/// by the one between them, which has not handled it.
async fn skips_anew(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let handler = |id: &'static str| {
        let rejects = move |step: &Step, _| match (id, step.number) {
            ("first", 1) => Err(HandlerError::reject("never")),
            _ => Ok(()),
        };
        noting(id, &seen, rejects)
    };
    let app = bench.app_at("-anew").await?.on(handler("first"));
    let app = app.on(handler("second").after_id("first")).on(handler("third").after_id("second"));
    let bus = app.start().await?;
    bench.publish(&bus, "key", 0..3).await?;
    bench.idle(&bus).await?;
    bench.wait("`first` to begin anew", bus.reset("first", Start::Latest)).await?;
    bench.wait("`third` to begin anew", bus.reset("third", Start::Earliest)).await?;
    bench.idle(&bus).await?;
    ensure_eq!(seen.of("second", "key"), [(0, 1), (2, 1)], "`second`");
    ensure_eq!(seen.of("third", "key"), [(0, 1), (2, 1), (0, 1), (2, 1)], "`third`, which began anew");
    bench.shutdown(bus).await
}

/// The next event of the key starts nowhere before the last one is through everywhere.
fn next_waits_for_all(seen: &Seen, key: &str) -> Result<(), Failure> {
    let mut last = 0;
    for note in seen.notes().iter().filter(|note| note.key == key) {
        let (handler, number) = (&note.handler, note.number);
        ensure!(number >= last, "key {key}: `{handler}` was given {number} after another handler had begun {last}");
        last = number;
    }
    Ok(())
}

async fn holds(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let bus = holding(bench, "-hold", &seen).await?;
    bench.shutdown(bus).await?;
    held(&seen)
}

async fn holds_after_restart(bench: &Bench) -> Result<(), Failure> {
    let (before, seen) = (Seen::new(bench), Seen::new(bench));
    let bus = holding(bench, "-held", &before).await?;
    bench.crash(bus);
    let bus =
        diamond(bench.app_at("-held").await?, &seen, OnDeadLetter::Hold, Duration::from_millis(5)).start().await?;
    bench.publish(&bus, "late", 0..3).await?;
    bench.acked(&bus, "bottom", 9).await?;
    bench.shutdown(bus).await?;
    held(&seen)
}

/// Publishes to a diamond, and waits until all is done that can be: number 3 of one key is a held dead letter.
async fn holding(bench: &Bench, place: &str, seen: &Seen) -> Result<Bus, Failure> {
    let bus = diamond(bench.app_at(place).await?, seen, OnDeadLetter::Hold, Duration::from_millis(5)).start().await?;
    bench.publish(&bus, "held", 0..6).await?;
    bench.publish(&bus, "free", 0..3).await?;
    bench.acked(&bus, "left", 7).await?;
    bench.until(&bus, "right", "a dead letter", |known| known.dead == 1).await?;
    bench.acked(&bus, "bottom", 6).await?;
    Ok(bus)
}

fn held(seen: &Seen) -> Result<(), Failure> {
    for handler in HANDLERS {
        let beyond = seen.of(handler, "held").into_iter().find(|(number, _)| *number > 3);
        ensure!(beyond.is_none(), "`{handler}` was given {beyond:?}, which is behind the held dead letter of number 3");
    }
    ensure!(seen.of("bottom", "held").iter().all(|(number, _)| *number < 3), "`bottom` was given the dead letter");
    seen.in_order()
}

/// Both branches of number 2 wait for a retry when the process dies, one for longer than the other.
async fn restarts(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    // Long enough to be open again before it is over.
    let delay = Duration::from_millis(300);
    let bus = diamond(bench.app_at("-restart").await?, &seen, OnDeadLetter::Continue, delay).start().await?;
    bench.publish(&bus, "key", 0..6).await?;
    bench.until(&bus, "left", "a failed attempt", |known| known.stats.retried == 1).await?;
    bench.crash(bus);
    let bus = diamond(bench.app_at("-restart").await?, &seen, OnDeadLetter::Continue, delay).start().await?;
    bench.idle(&bus).await?;
    edges_hold(&seen, "key", 6)?;
    next_waits_for_all(&seen, "key")?;
    seen.in_order()?;
    ensure_eq!(seen.of("bottom", "key"), [(0, 1), (1, 1), (2, 1), (4, 1), (5, 1)], "`bottom`");
    bench.shutdown(bus).await
}
