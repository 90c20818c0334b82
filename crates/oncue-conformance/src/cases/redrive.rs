//! Dead letters: what they hold up, and how they are taken up again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oncue::{
    Bus, Envelope,
    event::DEFAULT_TOPIC,
    filter::Filter,
    handler::{HandlerError, HandlerExt as _, Registration},
    policy,
    transport::{DeadLetter, OnDeadLetter, Position},
};
use parking_lot::Mutex;

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::accepting,
};

/// Case 36. A key whose event fails waits for its retry, and behind a held dead letter; no other key does. Handled again,
/// the dead letter comes first and then all that waited, in order; discarded or edited it lets the key go on too. One
/// that holds nothing is handled again alone within its key, in one go with others that a filter finds, and by the
/// subscription that failed only. All of that survives a restart.
///
/// # Errors
/// It does not.
pub async fn dead_letters(bench: &Bench) -> Result<(), Failure> {
    Failure::of_parts([
        ("held", held(bench).await),
        ("discarded", discarded(bench).await),
        ("edited", edited(bench).await),
        ("in bulk", in_bulk(bench).await),
        ("again and again", again(bench).await),
    ])
}

/// Fails event 1 of the key `held`, first for a while and then for good, until it is mended.
fn holds(seen: &Seen, mended: &Arc<AtomicBool>) -> Registration {
    let mended = Arc::clone(mended);
    let answer = move |step: &Step, attempt: u32| match (step.key.as_str(), step.number, attempt) {
        _ if mended.load(Ordering::SeqCst) => Ok(()),
        ("held", 1, 1) => Err(HandlerError::transient("not yet")),
        ("held", 1, _) => Err(HandlerError::reject("never")),
        _ => Ok(()),
    };
    let retry = policy::fixed(Duration::from_millis(20));
    noting("holds", seen, answer).retry(retry).on_dead_letter(OnDeadLetter::Hold)
}

/// The only dead letter.
fn only(bus: &Bus, handler: &str) -> Result<DeadLetter, Failure> {
    let mut letters = bus.dead_letters(handler).list()?;
    ensure_eq!(letters.len(), 1, "dead letters of `{handler}`");
    letters.pop().ok_or_else(|| Failure::new("no dead letter"))
}

async fn held(bench: &Bench) -> Result<(), Failure> {
    let (seen, mended) = (Seen::new(bench), Arc::default());
    let open = || async { Ok::<_, Failure>(bench.app().await?.on(holds(&seen, &mended)).start().await?) };
    let mut bus = open().await?;
    bench.publish(&bus, "held", 0..5).await?;
    bench.publish(&bus, "free", 0..5).await?;
    bench.until(&bus, "holds", "a dead letter", |known| known.dead == 1).await?;
    bench.publish(&bus, "held", 5..6).await?;
    bench.publish(&bus, "free", 5..6).await?;
    bench.acked(&bus, "holds", 7).await?;
    // Nothing else is left: what waits behind it is not waited for.
    bench.idle(&bus).await?;
    let promised = [(0, 1), (1, 1), (1, 2)];
    ensure_eq!(seen.of("holds", "held"), promised, "calls with the held key");
    if bench.capabilities().durable {
        bench.crash(bus);
        bus = open().await?;
    }
    bench.publish(&bus, "free", 6..7).await?;
    bench.acked(&bus, "holds", 8).await?;
    bench.idle(&bus).await?;
    ensure_eq!(seen.of("holds", "held"), promised, "calls with the held key, later");
    let letter = only(&bus, "holds")?;
    ensure!(letter.holds && letter.history.len() == 2, "a dead letter that holds, with two attempts: {letter:?}");
    mended.store(true, Ordering::SeqCst);
    if bench.capabilities().durable {
        // A restart between the decision and the handling.
        bus.pause("holds").await?;
        bus.dead_letters("holds").redrive(letter.position).await?;
        bench.crash(bus);
        bus = open().await?;
        bench.wait("the handler to be resumed", bus.resume("holds")).await?;
    } else {
        bus.dead_letters("holds").redrive(letter.position).await?;
    }
    bench.idle(&bus).await?;
    bench.publish(&bus, "held", 6..7).await?;
    bench.idle(&bus).await?;
    let drained: Vec<u32> = seen.of("holds", "held").iter().skip(3).map(|(number, _)| *number).collect();
    ensure_eq!(drained, (1..7).collect::<Vec<_>>(), "the held key, from its dead letter on");
    ensure_eq!(bus.dead_letters("holds").list()?.len(), 0, "dead letters");
    seen.in_order()?;
    let gone = bus.dead_letters("holds").redrive(letter.position).await;
    ensure!(gone.is_err(), "a dead letter was handled again that was handled");
    bench.shutdown(bus).await
}

async fn discarded(bench: &Bench) -> Result<(), Failure> {
    let (seen, mended) = (Seen::new(bench), Arc::default());
    let bus = bench.app_at("-discarded").await?.on(holds(&seen, &mended)).start().await?;
    bench.publish(&bus, "held", 0..5).await?;
    bench.until(&bus, "holds", "a dead letter", |known| known.dead == 1).await?;
    bus.dead_letters("holds").discard(only(&bus, "holds")?.position).await?;
    bench.idle(&bus).await?;
    let promised = [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1), (4, 1)];
    ensure_eq!(seen.of("holds", "held"), promised, "calls with the key whose dead letter was discarded");
    ensure_eq!(bus.dead_letters("holds").list()?.len(), 0, "dead letters");
    bench.shutdown(bus).await
}

/// Every event that a handler was given, with its place.
type Given = Arc<Mutex<Vec<(Position, Envelope)>>>;

fn keeping(id: &str, given: &Given, refuses: &'static [u8]) -> Registration {
    let given = Arc::clone(given);
    let handle = move |event: &Envelope, position: Position| {
        given.lock().push((position, event.clone()));
        if event.data().as_ref() == refuses { Err(HandlerError::reject("wrong")) } else { Ok(()) }
    };
    handle.named(id).inline().types(["letter"]).on_dead_letter(OnDeadLetter::Hold)
}

async fn edited(bench: &Bench) -> Result<(), Failure> {
    let (given, beside) = (Given::default(), Given::default());
    let app = bench.app_at("-edited").await?.on(keeping("strict", &given, b"wrong"));
    let bus = app.on(keeping("lenient", &beside, b"")).start().await?;
    let wrong = Envelope::builder("letter").id("1").source("/letters").key("k").extension("tenant", "t").data("wrong");
    let receipt = bus.publish(wrong.build()?).await?;
    bus.publish(Envelope::builder("letter").key("k").data("next").build()?).await?;
    bench.until(&bus, "strict", "a dead letter", |known| known.dead == 1).await?;
    let letters = bus.dead_letters("strict");
    let other = letters.edit(receipt.position(), |event| event.id("2")).await;
    ensure!(other.is_err(), "an edited event got another id");
    letters.edit(receipt.position(), |event| event.data("right")).await?;
    bench.idle(&bus).await?;
    let seen = given.lock().clone();
    let texts: Vec<_> = seen.iter().map(|(_, event)| String::from_utf8_lossy(event.data()).into_owned()).collect();
    ensure_eq!(texts, ["wrong", "right", "next"], "what the handler was given");
    let ((first, original), (second, edited)) = (&seen[0], &seen[1]);
    let about = |event: &Envelope| (event.id().to_owned(), event.source().to_owned(), event.key().map(str::to_owned));
    ensure_eq!(about(edited), about(original), "id, source and key of the edited event");
    ensure_eq!((second, edited.published()), (first, original.published()), "where and when it was published");
    ensure_eq!(edited.extension("tenant"), Some("t"), "an attribute that was not edited");
    ensure_eq!(edited.extension("oncueedition"), Some("1"), "which edition it is");
    ensure_eq!(beside.lock().len(), 2, "events that another subscription was given");
    let kept = bus.inspect().browse(DEFAULT_TOPIC, 0, 1)?;
    let kept: Vec<_> = kept.iter().map(|(_, event)| (event.data().as_ref(), event.extension("oncueedition"))).collect();
    ensure_eq!(kept, [(&b"wrong"[..], None)], "what was published");
    drop(receipt);
    bench.shutdown(bus).await
}

/// Dead letters that hold nothing, by filter: some are handled again, some discarded, the rest stays.
async fn in_bulk(bench: &Bench) -> Result<(), Failure> {
    let (seen, mended) = (Seen::new(bench), Arc::new(AtomicBool::new(false)));
    let answer = {
        let mended = Arc::clone(&mended);
        move |_: &Step, _| if mended.load(Ordering::SeqCst) { Ok(()) } else { Err(HandlerError::reject("broken")) }
    };
    let app = bench.app_at("-bulk").await?.on(noting("breaks", &seen, answer));
    let bus = app.on(accepting("beside", &seen)).start().await?;
    for key in ["eu-1", "eu-2", "us-1", "us-2"] {
        bench.publish(&bus, key, 0..3).await?;
    }
    bench.idle(&bus).await?;
    let letters = bus.dead_letters("breaks");
    ensure_eq!(letters.list()?.len(), 12, "dead letters");
    mended.store(true, Ordering::SeqCst);
    let eu = Filter::prefix("partitionkey", "eu-");
    ensure_eq!(letters.redrive_matching(&eu).await?, 6, "dead letters that are handled again");
    bench.idle(&bus).await?;
    for (key, calls) in [("eu-1", 6), ("eu-2", 6), ("us-1", 3), ("us-2", 3)] {
        let promised: Vec<u32> = (0..3).cycle().take(calls).collect();
        let numbers: Vec<u32> = seen.of("breaks", key).iter().map(|(number, _)| *number).collect();
        ensure_eq!(numbers, promised, "calls with key {key}");
    }
    seen.alone()?;
    ensure_eq!(letters.discard_matching(&Filter::exact("partitionkey", "us-1")).await?, 3, "dead letters discarded");
    let left = letters.list()?;
    let left: Vec<_> = left.iter().map(|letter| letter.envelope.key()).collect();
    ensure_eq!(left, [Some("us-2"); 3], "dead letters that are left");
    ensure_eq!(letters.redrive_all().await?, 3, "dead letters that are handled again at last");
    bench.idle(&bus).await?;
    ensure_eq!((seen.count("breaks"), seen.count("beside")), (12 + 9, 12), "calls in all, and of another handler");
    bench.shutdown(bus).await
}

/// One that fails again is a dead letter again, with all that it died of; the key goes on meanwhile.
async fn again(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let answer = |step: &Step, _| if step.number == 0 { Err(HandlerError::transient("broken")) } else { Ok(()) };
    let handler = || noting("stubborn", &seen, answer).retry(policy::fixed(Duration::from_millis(1)).max_attempts(2));
    let mut bus = bench.app_at("-again").await?.on(handler()).start().await?;
    bench.publish(&bus, "key", 0..3).await?;
    bench.idle(&bus).await?;
    for round in 1..=2 {
        let letter = only(&bus, "stubborn")?;
        ensure_eq!((letter.holds, letter.history.len()), (false, 2 * round), "holds, and attempts in its history");
        bus.dead_letters("stubborn").redrive(letter.position).await?;
        bench.publish(&bus, "key", 2 + round as u32..3 + round as u32).await?;
        bench.idle(&bus).await?;
        if bench.capabilities().durable {
            bench.crash(bus);
            bus = bench.app_at("-again").await?.on(handler()).start().await?;
        }
    }
    let first: Vec<u32> = seen.of("stubborn", "key").iter().filter(|call| call.0 == 0).map(|call| call.1).collect();
    ensure_eq!(first, [1, 2, 1, 2, 1, 2], "attempts of the event that fails");
    let others = seen.of("stubborn", "key").iter().filter(|call| call.0 > 0).count();
    ensure_eq!(others, 4, "calls with the others of its key");
    seen.alone()?;
    bench.shutdown(bus).await
}
