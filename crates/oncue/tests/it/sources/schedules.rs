//! Events on a schedule.

use std::time::Duration;

use oncue::{
    Bus, Envelope, ManualClock, Timestamp,
    event::IntoEvent as _,
    source::{self, Activity, CronError, Missed, Schedule, Tick},
};

use super::{advance_until, asleep, at, events, in_memory, info, new_year, on, payloads, until};

fn ticked(tick: Tick) -> Envelope {
    let data = format!("{} after {}", tick.due, tick.previous);
    Envelope::builder("ticked").data(data).build().unwrap()
}

fn each_minute() -> Schedule {
    source::interval("minutes", Duration::from_secs(60), ticked)
}

/// The due times that were fired, as `HH:MM:SS`.
fn fired(bus: &Bus) -> Vec<String> {
    events(bus, "events").iter().map(|event| event.time().unwrap().to_rfc3339()[11..19].to_owned()).collect()
}

#[tokio::test]
async fn an_interval_fires_each_multiple_once() {
    let manual = ManualClock::new(at("2026-01-01T00:00:30Z"));
    let bus = in_memory(&manual.clock()).source(each_minute()).start().await.unwrap();
    asleep(&manual).await;
    assert_eq!(fired(&bus), [""; 0], "nothing is due before the first start");
    let waited = advance_until(&manual, "the first tick", || fired(&bus).len() == 1).await;
    assert_eq!(waited, Duration::from_secs(30));
    advance_until(&manual, "two more", || fired(&bus).len() == 3).await;
    assert_eq!(fired(&bus), ["00:01:00", "00:02:00", "00:03:00"]);
    assert_eq!(
        payloads(&bus, "events")[..2],
        ["2026-01-01T00:01:00Z after 2026-01-01T00:00:30Z", "2026-01-01T00:02:00Z after 2026-01-01T00:01:00Z"]
    );
    assert_eq!(bus.inspect().source("minutes").place, "2026-01-01T00:03:00Z");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn missed_ticks_are_left_out_or_fired_once_or_all() {
    for (missed, after_restart) in [
        (Missed::Skip, &[][..]),
        (Missed::Latest, &["00:05:00"][..]),
        (Missed::All, &["00:02:00", "00:03:00", "00:04:00", "00:05:00"][..]),
    ] {
        let data = tempfile::tempdir().unwrap();
        let manual = ManualClock::new(new_year());
        let start =
            async || on(&data, &manual.clock()).await.source(each_minute().missed(missed)).start().await.unwrap();
        let bus = start().await;
        asleep(&manual).await;
        advance_until(&manual, "a tick", || fired(&bus).len() == 1).await;
        // As if the process were gone, for four and a half minutes.
        drop(bus);
        manual.advance(Duration::from_secs(270));
        let bus = start().await;
        until("what was missed", || fired(&bus)[1..] == *after_restart).await;
        asleep(&manual).await;
        advance_until(&manual, "the next tick", || fired(&bus).last().unwrap() == "00:06:00").await;
        assert_eq!(fired(&bus)[1..].len(), after_restart.len() + 1, "{missed:?}: {:?}", fired(&bus));
        bus.shutdown().await.unwrap();
        drop(bus);
        // At once, and within the tolerance: nothing is fired again, nothing is left out.
        let bus = start().await;
        asleep(&manual).await;
        manual.advance(Duration::from_secs(65));
        until("the tick after", || fired(&bus).last().unwrap() == "00:07:00").await;
        assert_eq!(fired(&bus)[1..].len(), after_restart.len() + 2, "{missed:?}: {:?}", fired(&bus));
        assert_eq!(bus.inspect().source("minutes").duplicates, 0);
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_step_of_the_wall_clock_fires_nothing_twice() {
    let manual = ManualClock::new(new_year());
    let bus = in_memory(&manual.clock()).source(each_minute()).start().await.unwrap();
    asleep(&manual).await;
    advance_until(&manual, "a tick", || fired(&bus).len() == 1).await;
    manual.set_wall(at("2026-01-01T00:10:20Z"));
    let noticed = advance_until(&manual, "the latest one missed", || fired(&bus).len() == 2).await;
    assert!(noticed <= Duration::from_secs(1), "{noticed:?}");
    assert_eq!(fired(&bus), ["00:01:00", "00:10:00"]);
    manual.set_wall(at("2026-01-01T00:05:30Z"));
    let waited = advance_until(&manual, "the time has caught up", || fired(&bus).len() == 3).await;
    assert_eq!(fired(&bus)[2], "00:11:00");
    assert!(waited > Duration::from_secs(300), "{waited:?}");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn cron_goes_by_its_time_zone_over_a_weekend_and_a_change_of_the_clocks() {
    let manual = ManualClock::new(at("2026-03-27T07:59:50Z"));
    let nine = || {
        let schedule = source::cron("nine", "0 9 * * MON-FRI", ticked).unwrap();
        schedule.time_zone("Europe/Berlin").unwrap().topic("mornings")
    };
    let bus = in_memory(&manual.clock()).source(nine()).start().await.unwrap();
    asleep(&manual).await;
    advance_until(&manual, "Friday", || events(&bus, "mornings").len() == 1).await;
    manual.set_wall(at("2026-03-30T06:59:58Z"));
    advance_until(&manual, "Monday, in summer time", || events(&bus, "mornings").len() == 2).await;
    let due: Vec<_> = events(&bus, "mornings").iter().map(|event| event.time().unwrap().to_rfc3339()).collect();
    assert_eq!(due, ["2026-03-27T08:00:00Z", "2026-03-30T07:00:00Z"]);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_instances_make_the_same_event_of_a_tick() {
    let mut ids = Vec::new();
    for start in ["2026-01-01T00:00:10Z", "2026-01-01T00:00:50Z"] {
        let manual = ManualClock::new(at(start));
        let bus = in_memory(&manual.clock()).source(each_minute()).start().await.unwrap();
        asleep(&manual).await;
        advance_until(&manual, "a tick", || fired(&bus).len() == 1).await;
        let event = events(&bus, "events").remove(0);
        ids.push((event.source().to_owned(), event.id().to_owned()));
        bus.shutdown().await.unwrap();
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn many_missed_ticks_go_in_batches_with_their_own_times() {
    let data = tempfile::tempdir().unwrap();
    let manual = ManualClock::new(new_year());
    let start = async || {
        let seconds = source::interval("seconds", Duration::from_secs(1), ticked).missed(Missed::All);
        on(&data, &manual.clock()).await.source(seconds).start().await.unwrap()
    };
    let bus = start().await;
    asleep(&manual).await;
    bus.shutdown().await.unwrap();
    drop(bus);
    manual.advance(Duration::from_secs(2_000));
    let bus = start().await;
    until("all of them", || events(&bus, "events").len() == 2_000).await;
    let due: Vec<Timestamp> = events(&bus, "events").iter().filter_map(Envelope::time).collect();
    assert!(due.windows(2).all(|two| two[1].since(two[0]) == Duration::from_secs(1)));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_place_of_another_source_stops_it_with_a_reason() {
    let manual = ManualClock::new(new_year());
    let mark = |place: &str| oncue::transport::SourceMark { id: "minutes".into(), place: place.into() };
    let data = tempfile::tempdir().unwrap();
    let bus = on(&data, &manual.clock()).await.start().await.unwrap();
    let (_, event) = Envelope::builder("x").build().unwrap().into_event().unwrap();
    bus.publish_all("events", vec![event], Some(mark("line 7"))).await.unwrap();
    bus.shutdown().await.unwrap();
    drop(bus);
    let bus = on(&data, &manual.clock()).await.source(each_minute()).start().await.unwrap();
    let error = bus.exhausted().await.unwrap_err().to_string();
    assert!(error.contains("`line 7`") && error.contains("`minutes`"), "{error}");
    assert!(matches!(info(&bus).activity, Activity::Failed { .. }));
    bus.shutdown().await.unwrap();
}

#[test]
fn a_bad_schedule_is_refused_before_there_is_an_app() {
    let error = source::cron("x", "0 9 * * FUNDAY", ticked).unwrap_err();
    assert!(matches!(&error, CronError::Expression { expression, .. } if expression == "0 9 * * FUNDAY"));
    assert!(error.to_string().contains("day of week `FUNDAY`"), "{error}");
    assert!(matches!(each_minute().time_zone("Mars/Olympus").unwrap_err(), CronError::TimeZone { .. }));
}
