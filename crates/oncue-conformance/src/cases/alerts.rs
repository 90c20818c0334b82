//! Alerts: what is wrong is told once, and once when it is over.

use std::{sync::Arc, time::Duration};

use oncue::{
    App, Bus,
    alert::{Alert, AlertKind, AlertStatus, Alerts, TOPIC},
    handler::{HandlerError, HandlerExt as _},
    policy,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Bench, Failure, Step, failure::ensure_eq};

/// From when on a subscription is stuck.
const STUCK: Duration = Duration::from_millis(50);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(5);

/// Holds one event only: nothing else can make its reader look stuck, however slow the machine is.
const HANGING: &str = "hanging";

/// What a handler of alerts was given.
type Pages = Arc<Mutex<Vec<Alert>>>;

fn app(app: App, pages: &Pages, opened: &watch::Receiver<bool>) -> App {
    let (pages, opened) = (Arc::clone(pages), opened.clone());
    let doomed =
        |step: Step| async move { if step.key == "bad" { Err(HandlerError::reject("refused")) } else { Ok(()) } };
    let hangs = move |_: Step| {
        let mut opened = opened.clone();
        async move {
            // An error means that the case is over.
            let _ = opened.wait_for(|open| *open).await;
        }
    };
    let page = move |alert: Alert| {
        pages.lock().push(alert);
        async {}
    };
    let settings = Alerts {
        stuck_after: Some(STUCK),
        retry_storm: None,
        every: LOOK,
        recover_after: 2 * LOOK,
        again_after: LOOK,
        renew_after: Duration::from_secs(3_600),
        ..Alerts::default()
    };
    let app = app.on(doomed.named("doomed").retry(policy::never())).on(hangs.named("hangs").topic(HANGING));
    app.on(page.named("page")).alerts(settings)
}

/// What was published of one thing, in order.
fn published(bus: &Bus, about: (AlertKind, &str)) -> Result<Vec<AlertStatus>, Failure> {
    // The topic is there once something was told.
    let events = bus.inspect().browse(TOPIC, 0, usize::MAX).unwrap_or_default();
    let alerts = events.iter().map(|(_, event)| event.decode()).collect::<Result<Vec<Alert>, _>>()?;
    Ok(of(&alerts, about))
}

fn of(alerts: &[Alert], about: (AlertKind, &str)) -> Vec<AlertStatus> {
    let theirs = alerts.iter().filter(|alert| (alert.kind, alert.subject.as_str()) == about);
    theirs.map(|alert| alert.status).collect()
}

/// Waits until an alert is active, or is no more.
async fn until(bench: &Bench, bus: &Bus, about: (AlertKind, &str), active: bool) {
    let (kind, subject) = about;
    let looking = async {
        while of(&bus.check_alerts().await, about).is_empty() == active {
            bench.clock().sleep(LOOK).await;
        }
    };
    let what = if active { "to be told" } else { "to be over" };
    bench.wait(format!("the alert {kind} of `{subject}` {what}"), looking).await;
}

/// Case 42. A dead letter is told once, as an event that handlers take, and a second one is not told at once; a
/// subscription that is stuck is told once, and once more when it goes on; a restart tells none of it again.
///
/// # Errors
/// It does not.
pub async fn alerts(bench: &Bench) -> Result<(), Failure> {
    use AlertStatus::{Raised, Recovered};
    let (dead, stuck) = ((AlertKind::DeadLetter, "doomed"), (AlertKind::Stuck, "hangs"));
    let pages = Pages::default();
    let (gate, opened) = watch::channel(false);
    let bus = app(bench.app().await?, &pages, &opened).start().await?;
    bench.publish(&bus, "good", 0..10).await?;
    bench.idle(&bus).await?;
    bus.check_alerts().await;
    ensure_eq!(published(&bus, dead)?, [], "alerts of dead letters when there is none");
    for number in 0..2 {
        bench.publish(&bus, "bad", number..number + 1).await?;
        bench.idle(&bus).await?;
        let active = bus.check_alerts().await;
        let values: Vec<u64> = active.iter().filter(|alert| alert.kind == dead.0).map(|alert| alert.value).collect();
        ensure_eq!(values, [u64::from(number) + 1], "dead letters, as the active alerts tell");
        ensure_eq!(published(&bus, dead)?, [Raised], "alerts of {} dead letters", number + 1);
    }
    bus.publish_all(HANGING, vec![Step::new("hang", 0).envelope()?], None).await?;
    until(bench, &bus, stuck, true).await;
    ensure_eq!(published(&bus, stuck)?, [Raised], "alerts of a handler that hangs");
    gate.send_replace(true);
    bench.idle(&bus).await?;
    until(bench, &bus, stuck, false).await;
    ensure_eq!(published(&bus, stuck)?, [Raised, Recovered], "alerts of a handler that goes on again");
    bench.idle(&bus).await?;
    let paged = pages.lock().clone();
    let taken = (of(&paged, dead), of(&paged, stuck));
    ensure_eq!(taken, (vec![Raised], vec![Raised, Recovered]), "alerts that a handler was given");
    bench.shutdown(bus).await?;
    if !bench.capabilities().durable {
        return Ok(());
    }
    let bus = app(bench.app().await?, &pages, &opened).start().await?;
    until(bench, &bus, dead, true).await;
    bench.idle(&bus).await?;
    let told = (published(&bus, dead)?, published(&bus, stuck)?);
    ensure_eq!(told, (vec![Raised], vec![Raised, Recovered]), "alerts after a restart");
    let paged = of(&pages.lock(), dead);
    ensure_eq!(paged, [Raised], "alerts of dead letters that a handler was given, after a restart");
    bench.shutdown(bus).await
}
