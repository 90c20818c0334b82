//! The judgement, look by look, and its laws.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    metrics::HandlerStats,
    transport::{StorageInfo, SubscriptionInfo},
};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn subscription(id: &str) -> SubscriptionInfo {
    SubscriptionInfo {
        id: id.to_owned(),
        topic: "events".to_owned(),
        types: Vec::new(),
        filter: None,
        emits: Vec::new(),
        after: Vec::new(),
        attached: true,
        lag: 0,
        retrying: 0,
        dead: 0,
        holding: 0,
        parked_keys: 0,
        full: false,
        oldest: None,
        missed: 0,
        in_flight: 0,
        stats: HandlerStats::default(),
        by_type: Vec::new(),
    }
}

/// Dead letters now, and so far.
fn dying(id: &str, dead: u64, ever: u64) -> SubscriptionInfo {
    let mut info = SubscriptionInfo { dead, ..subscription(id) };
    info.stats.dead = ever;
    info
}

fn seeing(info: SubscriptionInfo) -> Observation {
    Observation { subscriptions: vec![(info, Served::Running)], ..Observation::default() }
}

/// An app that looks, with the state that it keeps.
struct Looking {
    settings: Alerts,
    state: State,
    next: Option<Timestamp>,
}

impl Looking {
    fn with(settings: Alerts) -> Self {
        Self { settings, state: State::default(), next: None }
    }

    fn notices(&mut self, now: i64, seen: &Observation) -> Vec<Notice> {
        let evaluated = evaluate(std::mem::take(&mut self.state), seen, at(now), &self.settings);
        self.state = evaluated.state;
        self.next = evaluated.next;
        evaluated.notices
    }

    fn look(&mut self, now: i64, seen: &Observation) -> Vec<(AlertKind, AlertStatus, u64)> {
        let notices = self.notices(now, seen);
        notices.into_iter().map(|notice| (notice.alert.kind, notice.alert.status, notice.alert.value)).collect()
    }
}

use AlertKind::{
    Blocked, BreakerOpen, DeadLetter, Detached, Disk, HandlerStopped, Lag, Parked, RetryStorm as Storm, Stuck,
};
use AlertStatus::{Raised, Recovered, Renewed};

#[test]
fn a_dead_letter_is_raised_renewed_seldom_and_recovers_when_all_are_resolved() {
    let mut app = Looking::with(Alerts::default());
    assert_eq!(app.look(0, &seeing(dying("charge", 0, 0))), []);
    assert_eq!(app.next, None, "all is quiet: nothing is looked at until something happens");
    assert_eq!(app.look(SECOND, &seeing(dying("charge", 1, 1))), [(DeadLetter, Raised, 1)]);
    assert_eq!(app.look(2 * SECOND, &seeing(dying("charge", 3, 3))), [], "further ones wait");
    assert_eq!(app.next, Some(at(SECOND + 15 * MINUTE)));
    assert_eq!(app.look(SECOND + 15 * MINUTE, &seeing(dying("charge", 3, 3))), [(DeadLetter, Renewed, 3)]);
    assert_eq!((app.look(60 * MINUTE, &seeing(dying("charge", 3, 3))), app.next), (vec![], None), "no more, no word");
    // One is resolved while another comes: that is news too.
    assert_eq!(app.look(61 * MINUTE, &seeing(dying("charge", 3, 4))), [(DeadLetter, Renewed, 3)]);
    assert_eq!(app.look(62 * MINUTE, &seeing(dying("charge", 0, 4))), []);
    assert_eq!(app.next, Some(at(62 * MINUTE + 30 * SECOND)));
    assert_eq!(app.look(62 * MINUTE + 30 * SECOND, &seeing(dying("charge", 0, 4))), [(DeadLetter, Recovered, 3)]);
    assert_eq!((app.state.active(), app.next), (vec![], None));
}

#[test]
fn flapping_is_damped() {
    let mut app = Looking::with(Alerts { lag: Some(10), ..Alerts::default() });
    let lagging = |lag| seeing(SubscriptionInfo { lag, ..subscription("slow") });
    assert_eq!(app.look(0, &lagging(10)), [(Lag, Raised, 10)]);
    for second in 1..20 {
        assert_eq!(app.look(second * SECOND, &lagging(if second % 2 == 0 { 12 } else { 9 })), [], "{second}");
    }
    assert_eq!(app.look(49 * SECOND, &lagging(0)), [(Lag, Recovered, 12)], "gone since 19 s");
    let first = app.notices(50 * SECOND, &lagging(50));
    assert_eq!((first, app.next), (vec![], Some(at(MINUTE))), "raised a minute ago at the earliest");
    let again = app.notices(MINUTE, &lagging(51));
    assert_eq!((again[0].alert.status, again[0].alert.since), (Raised, at(50 * SECOND)), "and since when is known");
}

#[test]
fn the_oldest_event_of_a_subscription_may_wait_for_so_long() {
    let mut app = Looking::with(Alerts::default());
    let oldest = |oldest| SubscriptionInfo { lag: 1, oldest: Some(at(oldest)), ..subscription("charge") };
    assert_eq!(app.look(0, &seeing(oldest(-MINUTE * 600))), [], "it waited while the app did not run");
    assert_eq!(app.next, Some(at(5 * MINUTE)));
    assert_eq!((app.look(4 * MINUTE, &seeing(oldest(MINUTE))), app.next), (vec![], Some(at(6 * MINUTE))));
    let notices = app.notices(6 * MINUTE, &seeing(oldest(MINUTE)));
    assert_eq!((notices[0].alert.kind, notices[0].alert.value, notices[0].alert.threshold), (Stuck, 300, 300));
    assert_eq!(notices[0].alert.since, at(MINUTE));
    assert_eq!(app.next, None, "only an event that is handled can end it");
    // The subscription begins anew: what is old is to be handled again, and that is no fault.
    assert_eq!(app.look(7 * MINUTE, &seeing(oldest(0))), []);
    assert_eq!(app.look(8 * MINUTE, &seeing(oldest(1))), [(Stuck, Recovered, 300)]);
}

#[test]
fn what_is_paused_is_not_stuck_and_what_nobody_serves_is_detached() {
    let mut app = Looking::with(Alerts::default());
    let info = SubscriptionInfo { lag: 7, oldest: Some(at(0)), ..subscription("old") };
    let seen = |served| Observation { subscriptions: vec![(info.clone(), served)], ..Observation::default() };
    assert_eq!((app.look(0, &seen(Served::Paused)), app.next), (vec![], None));
    assert_eq!(app.look(10 * MINUTE, &seen(Served::Paused)), []);
    assert_eq!(app.look(11 * MINUTE, &seen(Served::Running)), [], "it has been resumed just now");
    assert_eq!(app.look(12 * MINUTE, &seen(Served::Detached)), []);
    assert_eq!(app.next, Some(at(17 * MINUTE)));
    assert_eq!(app.look(17 * MINUTE, &seen(Served::Detached)), [(Detached, Raised, 7)]);
    assert_eq!(app.look(18 * MINUTE, &Observation::default()), [], "removed");
    assert_eq!(app.look(19 * MINUTE, &Observation::default()), [(Detached, Recovered, 7)]);
}

#[test]
fn many_failed_attempts_are_a_storm_which_ends_with_its_window() {
    let mut app = Looking::with(Alerts::default());
    let tried = |acked, retried| {
        let mut info = subscription("charge");
        (info.stats.acked, info.stats.retried, info.stats.deferred) = (acked, retried, 1_000);
        seeing(info)
    };
    assert_eq!(app.look(0, &tried(0, 5_000)), [], "before this app");
    assert_eq!(app.look(5 * SECOND, &tried(0, 5_099)), [], "99 are too few");
    assert_eq!(app.look(10 * SECOND, &tried(102, 5_101)), [], "101 of 203");
    let notices = app.notices(15 * SECOND, &tried(102, 5_102));
    assert_eq!((notices[0].alert.kind, notices[0].alert.value), (Storm, 50));
    assert_eq!(notices[0].alert.text, "`charge`: 102 of 204 attempts of the last 60 s failed");
    let mut now = 15 * SECOND;
    let mut told = Vec::new();
    while let Some(next) = app.next {
        now = next.as_micros();
        told.extend(app.look(now, &tried(102, 5_102)));
    }
    assert_eq!(told, [(Storm, Recovered, 50)]);
    assert!(now <= 120 * SECOND, "over at {now}");
}

#[test]
fn storage_breakers_parked_keys_and_handlers_that_stop() {
    let settings = Alerts { disk_free_below: Some(1_000), ..Alerts::default() };
    let mut app = Looking::with(settings);
    let storage = |free, limit| StorageInfo { bytes: 400, free, limit, ..StorageInfo::default() };
    let mut seen = Observation { storage: storage(Some(1_000), Some(5_000)), ..Observation::default() };
    assert_eq!((app.look(0, &seen), app.next), (vec![], Some(at(5 * SECOND))), "a disk is looked at again and again");
    seen.storage = storage(Some(999), None);
    assert_eq!(app.look(SECOND, &seen), [(Disk, Raised, 999)]);
    seen.storage = storage(None, Some(1_300));
    assert_eq!(app.look(2 * SECOND, &seen), [], "900 more are allowed: still too few");
    assert_eq!(app.state.active()[0].value, 900);
    let (subject, text) = ("bank".to_owned(), "5 calls failed".to_owned());
    seen.watched = vec![Condition { kind: BreakerOpen, subject, value: 5, threshold: 5, text }];
    seen.subscriptions =
        vec![(SubscriptionInfo { full: true, parked_keys: 100_000, ..subscription("charge") }, Served::Running)];
    seen.stopped = Some(("a+b".to_owned(), "the disk is gone".to_owned()));
    let told = [(BreakerOpen, Raised, 5), (Parked, Raised, 100_000), (HandlerStopped, Raised, 1)];
    assert_eq!(app.look(3 * SECOND, &seen), told);
    assert_eq!(app.look(4 * SECOND, &seen), []);
}

#[test]
fn what_is_refused_is_told_at_once_and_what_is_out_of_reach_when_that_lasts() {
    let mut app = Looking::with(Alerts::default());
    let waiting = |refused| {
        let (subscription, topic, text) = ("there".to_owned(), "orders".to_owned(), "it waits".to_owned());
        Observation {
            blocked: vec![Waiting { subscription, topic, since: at(0), refused, text }],
            ..Observation::default()
        }
    };
    assert_eq!((app.look(SECOND, &waiting(false)), app.next), (vec![], Some(at(30 * SECOND))));
    assert_eq!(app.look(30 * SECOND, &waiting(false)), [(Blocked, Raised, 30)]);
    assert_eq!(app.state.active()[0].since, at(0));
    assert_eq!(app.look(40 * SECOND, &Observation::default()), []);
    assert_eq!(app.look(70 * SECOND, &Observation::default()), [(Blocked, Recovered, 30)]);
    let mut app = Looking::with(Alerts::default());
    assert_eq!(app.look(SECOND, &waiting(true)), [(Blocked, Raised, 1)]);
}

#[test]
fn about_readers_of_the_alerts_is_not_to_be_published() {
    let mut app = Looking::with(Alerts::default());
    let page = SubscriptionInfo { topic: TOPIC.to_owned(), ..dying("page", 1, 1) };
    let mut seen = seeing(page);
    seen.subscriptions.push((dying("charge", 1, 1), Served::Running));
    let quiet = |notice: &Notice| (notice.alert.subject.clone(), notice.quiet);
    let told: Vec<_> = app.notices(0, &seen).iter().map(quiet).collect();
    assert_eq!(told, [("charge".to_owned(), false), ("page".to_owned(), true)]);
    seen.stopped = Some(("page+copy".to_owned(), "gone".to_owned()));
    assert_eq!(app.notices(1, &seen).iter().map(quiet).collect::<Vec<_>>(), [("page+copy".to_owned(), true)]);
}

#[test]
fn a_restart_tells_nothing_twice_and_recovers_what_ended_meanwhile() {
    let mut before = Looking::with(Alerts { lag: Some(5), ..Alerts::default() });
    let slow = SubscriptionInfo { lag: 5, oldest: Some(at(0)), ..subscription("slow") };
    let seen = Observation {
        subscriptions: vec![(slow, Served::Running), (dying("charge", 2, 2), Served::Running)],
        ..Observation::default()
    };
    let mut told = before.notices(0, &seen);
    told.extend(before.notices(5 * MINUTE, &seen));
    let kinds: Vec<_> = told.iter().map(|notice| notice.alert.kind).collect();
    assert_eq!(kinds, [DeadLetter, Lag, Stuck]);

    let earlier = told.iter().map(|notice| (at(5 * MINUTE), notice.alert.clone()));
    let mut after = Looking { state: State::restored(earlier), ..Looking::with(Alerts::default()) };
    assert_eq!(after.state.active(), before.state.active());
    let again = after.notices(6 * MINUTE, &seen);
    assert_eq!(again, [], "still stuck, still two dead letters; lag is not watched any more");
    let gone = after.notices(7 * MINUTE, &seen);
    assert_eq!(
        gone.iter().map(|notice| (notice.alert.kind, notice.alert.status)).collect::<Vec<_>>(),
        [(Lag, Recovered)]
    );

    // More dead letters than were told: that is news, when its time has come.
    let mut more = seen.clone();
    more.subscriptions[1].0.dead = 3;
    let earlier = told.iter().map(|notice| (at(5 * MINUTE), notice.alert.clone()));
    let mut after = Looking { state: State::restored(earlier), ..Looking::with(Alerts::default()) };
    assert_eq!(after.look(20 * MINUTE, &more), [(DeadLetter, Renewed, 3)]);
}

#[test]
fn two_instances_say_the_same_with_the_same_id() {
    let ids = |offset: i64| {
        let mut app = Looking::with(Alerts::default());
        let mut ids: Vec<String> = Vec::new();
        for (now, dead) in [(0, 1), (16 * MINUTE, 2), (17 * MINUTE, 0), (18 * MINUTE, 0), (19 * MINUTE, 3)] {
            let notices = app.notices(now + offset, &seeing(dying("charge", dead, dead)));
            ids.extend(notices.into_iter().map(|notice| notice.id));
        }
        ids
    };
    assert_eq!(ids(0), ids(20 * SECOND));
    let distinct: BTreeSet<_> = ids(0).into_iter().collect();
    assert_eq!(distinct.len(), 4, "{distinct:?}");
}

#[test]
fn an_alert_is_an_event_of_its_kind_and_its_subject_is_its_key() {
    let alert = Alert {
        kind: Stuck,
        status: Raised,
        subject: "charge".to_owned(),
        value: 301,
        threshold: 300,
        text: "it is".to_owned(),
        since: at(7),
    };
    let event = alert.envelope("id", at(9)).unwrap();
    assert_eq!((event.event_type(), event.key(), event.id()), ("oncue.alert.stuck", Some("charge"), "id"));
    assert_eq!((event.time(), event.content_type()), (Some(at(9)), Some("application/json")));
    let json: serde_json::Value = serde_json::from_slice(event.data()).unwrap();
    assert_eq!((&json["kind"], &json["status"], &json["since"]), (&"stuck".into(), &"raised".into(), &7.into()));
    assert_eq!(Alert::told(&event).as_ref(), Some(&alert));
    assert_eq!(Alert::told(&Envelope::of(&alert).unwrap()), None, "somebody else's is not taken for ours");
    let types: Vec<_> = AlertKind::ALL.iter().map(|kind| format!("oncue.alert.{kind}")).collect();
    assert_eq!(Alert::TYPES, types);
    for kind in AlertKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
    }
}

/// What a subscription may look like, drawn at random.
fn any_subscription(id: &'static str) -> impl Strategy<Value = (SubscriptionInfo, Served)> {
    let served = proptest::sample::select(vec![Served::Running, Served::Paused, Served::Detached]);
    let numbers = (0_u64..3, 0_u64..4, 0_u64..30, proptest::option::of(-900_i64..900), 0_u64..300, 0_u64..300);
    let topic = proptest::sample::select(vec!["events", TOPIC]);
    (topic, served, numbers, any::<bool>()).prop_map(
        move |(topic, served, (dead, ever, lag, oldest, acked, retried), full)| {
            let mut info = dying(id, dead, dead + ever);
            (info.topic, info.lag, info.full) = (topic.to_owned(), lag, full);
            info.oldest = oldest.map(|seconds| at(seconds * SECOND));
            (info.stats.acked, info.stats.retried) = (acked, retried);
            (info, served)
        },
    )
}

fn any_look() -> impl Strategy<Value = (i64, Observation)> {
    let storage = proptest::option::of(0_u64..20).prop_map(|free| StorageInfo { free, ..StorageInfo::default() });
    let stopped = proptest::option::weighted(0.1, Just(("a".to_owned(), "gone".to_owned())));
    let subscriptions = (proptest::option::of(any_subscription("a")), proptest::option::of(any_subscription("b")));
    // Now and then the clock is stepped back.
    let passed = prop_oneof![9 => 0_i64..90, 1 => -600_i64..0];
    (passed, subscriptions, storage, stopped).prop_map(|(passed, (one, other), storage, stopped)| {
        let subscriptions = one.into_iter().chain(other).collect();
        (passed, Observation { subscriptions, storage, stopped, ..Observation::default() })
    })
}

proptest! {
    /// Per condition: raised, renewed any number of times, recovered, raised, …
    #[test]
    fn every_raise_is_followed_by_one_recovery_at_most_before_the_next(
        looks in proptest::collection::vec(any_look(), 1..60),
    ) {
        let mut app = Looking::with(Alerts { lag: Some(20), disk_free_below: Some(10), ..Alerts::default() });
        let mut now = 0;
        let mut last: BTreeMap<(AlertKind, String), (AlertStatus, i64)> = BTreeMap::new();
        let mut steady = true;
        for (passed, seen) in looks {
            steady &= passed >= 0;
            now += passed * SECOND;
            for Notice { alert, .. } in app.notices(now, &seen) {
                let before = last.insert((alert.kind, alert.subject.clone()), (alert.status, now));
                match (before, alert.status) {
                    (None | Some((Recovered, _)), Raised) => {}
                    (Some((Raised | Renewed, since)), Recovered) => {
                        prop_assert!(!steady || now - since >= 30 * SECOND, "recovered after {} µs", now - since);
                    }
                    (Some((Raised | Renewed, since)), Renewed) => {
                        prop_assert!(!steady || now - since >= 15 * MINUTE, "renewed after {} µs", now - since);
                    }
                    (before, status) => prop_assert!(false, "{status} after {before:?} of {alert:?}"),
                }
            }
            let active: BTreeSet<_> = app.state.active().into_iter().map(|alert| (alert.kind, alert.subject)).collect();
            let told = last.iter().filter(|(_, (status, _))| *status != Recovered).map(|(key, _)| key.clone());
            prop_assert_eq!(active, told.collect::<BTreeSet<_>>(), "what was told and not recovered is active");
            prop_assert!(app.next.is_none_or(|next| next > at(now)), "the next look is later");
        }
    }

    /// No raise follows another one of the same within the interval, and no two notices have one id.
    #[test]
    fn raises_keep_their_distance_and_ids_differ(looks in proptest::collection::vec(any_look(), 1..60)) {
        let mut app = Looking::with(Alerts { recover_after: Duration::from_secs(1), ..Alerts::default() });
        let (mut now, mut raised, mut ids) = (0, BTreeMap::new(), BTreeSet::new());
        for (passed, seen) in looks {
            now += passed.abs() * SECOND;
            for Notice { alert, id, .. } in app.notices(now, &seen) {
                prop_assert!(ids.insert(id.clone()), "{} twice", id);
                if alert.status == Raised
                    && let Some(before) = raised.insert((alert.kind, alert.subject), now)
                {
                    prop_assert!(now - before >= MINUTE);
                }
            }
        }
    }

    /// Where nothing changes, the looks that time alone asks for come to an end.
    #[test]
    fn an_app_in_which_nothing_happens_comes_to_rest(looks in proptest::collection::vec(any_look(), 1..10)) {
        let mut app = Looking::with(Alerts::default());
        let mut now = 0;
        let mut seen = Observation::default();
        for (passed, look) in looks {
            now += passed * SECOND;
            app.notices(now, &look);
            seen = look;
        }
        app.notices(now, &seen);
        for _ in 0..100 {
            let Some(next) = app.next else { return Ok(()) };
            app.notices(next.as_micros(), &seen);
        }
        prop_assert!(false, "it still looks after 100 times");
    }
}
