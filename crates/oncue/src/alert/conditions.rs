//! What is wrong now, judged by what is seen now and what was seen before.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{AlertKind, Alerts, Condition, RetryStorm};
use crate::{
    clock::Timestamp,
    transport::{StorageInfo, SubscriptionInfo},
};

/// What a handler writes to may be out of reach for so long before somebody has to know.
const OUTAGE: Duration = Duration::from_secs(30);

/// Into how many steps the window of a retry storm is parted: what a subscription remembers of it.
const STEPS: u32 = 12;

/// What an app sees when it looks at itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) subscriptions: Vec<(SubscriptionInfo, Served)>,
    pub(crate) storage: StorageInfo,
    /// The transport's URL: whom the storage is of.
    pub(crate) url: String,
    /// The handler that stopped first, and why.
    pub(crate) stopped: Option<(String, String)>,
    /// Handlers that wait for what they write to.
    pub(crate) blocked: Vec<Waiting>,
    /// What other things say of themselves.
    pub(crate) watched: Vec<Condition>,
}

/// A handler that waits for what it writes to.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) subscription: String,
    pub(crate) topic: String,
    pub(crate) since: Timestamp,
    /// Waiting alone does not help.
    pub(crate) refused: bool,
    pub(crate) text: String,
}

/// Who serves a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// A handler of this process.
    Running,
    /// A handler of the app, which is paused or stopped.
    Paused,
    /// Nobody.
    Detached,
}

/// A condition that holds.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) condition: Condition,
    pub(super) since: Timestamp,
    /// Grows when there is more of it to tell.
    pub(super) count: u64,
    /// It is about a reader of the alerts topic: to be logged, not published.
    pub(super) quiet: bool,
}

/// What is remembered from look to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    subscriptions: BTreeMap<String, Measured>,
    /// How many missed events of a subscription were told of before the app started.
    missed: BTreeMap<String, u64>,
}

/// What is remembered of one subscription.
#[derive(Clone, Debug)]
struct Measured {
    served: Option<Served>,
    /// Since when its waiting counts.
    watched: Timestamp,
    oldest: Option<Timestamp>,
    /// Events that it had missed, and when they became more last.
    missed: u64,
    overtaken: Option<Timestamp>,
    attempts: Attempts,
}

impl Measured {
    fn since(watched: Timestamp) -> Self {
        let attempts = Attempts::default();
        Self { served: None, watched, oldest: None, missed: 0, overtaken: None, attempts }
    }
}

impl Memory {
    /// The waiting of a subscription counts from `since` on: it was stuck before the app started again.
    pub(super) fn was_stuck(&mut self, subscription: &str, since: Timestamp) {
        self.subscriptions.insert(subscription.to_owned(), Measured::since(since));
    }

    /// So many missed events of a subscription were told of before the app started again.
    pub(super) fn had_missed(&mut self, subscription: &str, missed: u64) {
        self.missed.insert(subscription.to_owned(), missed);
    }

    /// The conditions that hold, and when time alone may make one hold or end.
    pub(super) fn conditions(
        &mut self,
        seen: &Observation,
        now: Timestamp,
        settings: &Alerts,
    ) -> (Vec<Holding>, Option<Timestamp>) {
        let mut found = Found { settings, now, holding: Vec::new(), next: None };
        self.subscriptions.retain(|id, _| seen.subscriptions.iter().any(|(info, _)| info.id == *id));
        for (info, served) in &seen.subscriptions {
            let measured = self.subscriptions.entry(info.id.clone()).or_insert_with(|| Measured::since(now));
            measured.missed = self.missed.remove(&info.id).unwrap_or(measured.missed);
            found.of_subscription(info, *served, measured);
        }
        found.of_storage(&seen.storage, &seen.url);
        if let Some((handler, reason)) = &seen.stopped {
            // Handlers that are joined stop together, under their joined name.
            let reads_alerts =
                |part: &str| seen.subscriptions.iter().any(|(info, _)| info.id == part && info.topic == settings.topic);
            let quiet = handler.split('+').any(reads_alerts);
            found.add(quiet, 0, (AlertKind::HandlerStopped, handler), (1, 1), reason.clone());
        }
        seen.blocked.iter().for_each(|waiting| found.of_waiting(waiting));
        for condition in &seen.watched {
            found.holding.push(Holding { condition: condition.clone(), since: now, count: 0, quiet: false });
        }
        (found.holding, found.next)
    }
}

/// What is found at one look.
struct Found<'a> {
    settings: &'a Alerts,
    now: Timestamp,
    holding: Vec<Holding>,
    next: Option<Timestamp>,
}

impl Found<'_> {
    fn add(
        &mut self,
        quiet: bool,
        count: u64,
        (kind, subject): (AlertKind, &str),
        (value, threshold): (u64, u64),
        text: String,
    ) {
        let condition = Condition { kind, subject: subject.to_owned(), value, threshold, text };
        self.holding.push(Holding { condition, since: self.now, count, quiet });
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |known| known.min(at)));
    }

    fn of_subscription(&mut self, info: &SubscriptionInfo, served: Served, measured: &mut Measured) {
        let (id, settings) = (&info.id, self.settings);
        let quiet = info.topic == settings.topic;
        self.waiting(info, served, measured);
        self.missed(info, quiet, measured);
        if settings.dead_letters && info.dead > 0 {
            let held =
                if info.holding > 0 { format!(", {} of them hold their keys", info.holding) } else { String::new() };
            let text = format!("`{id}` has {}{held}: redrive or discard them", counted(info.dead, "dead letter"));
            self.add(quiet, info.stats.dead, (AlertKind::DeadLetter, id), (info.dead, 1), text);
        }
        if let Some(most) = settings.lag {
            if info.lag >= most {
                let text = format!("{} wait for `{id}`; {most} are too many", counted(info.lag, "event"));
                self.add(quiet, 0, (AlertKind::Lag, id), (info.lag, most), text);
            }
            if served != Served::Running {
                // Nobody reads, so nothing tells when more has come.
                self.wake_at(self.now.after(settings.every));
            }
        }
        if info.full {
            let keys = counted(info.parked_keys, "key");
            let text =
                format!("`{id}` reads nothing new: {keys} wait for a retry or a dead letter, with all behind them");
            self.add(quiet, 0, (AlertKind::Parked, id), (info.parked_keys, info.parked_keys), text);
        }
        if let Some(storm) = settings.retry_storm {
            let failed = info.stats.retried.saturating_add(info.stats.dead);
            let all = info.stats.acked.saturating_add(failed);
            let (all, failed) = measured.attempts.within(storm.window, Looked { at: self.now, all, failed });
            self.storm(info, quiet, storm, (all, failed));
        }
    }

    /// Whether its oldest event waits for too long.
    fn waiting(&mut self, info: &SubscriptionInfo, served: Served, measured: &mut Measured) {
        let went_back = measured.oldest.zip(info.oldest).is_some_and(|(before, oldest)| oldest < before);
        if went_back || measured.served.is_some_and(|before| before != served) {
            // It began anew, or is served again: what is old is not its fault.
            measured.watched = self.now;
        }
        measured.served = Some(served);
        measured.oldest = info.oldest;
        measured.watched = measured.watched.min(self.now);
        let Some((longest, oldest)) = self.settings.stuck_after.zip(info.oldest) else { return };
        if served == Served::Paused {
            return;
        }
        let since = oldest.max(measured.watched);
        if since.after(longest) > self.now {
            self.wake_at(since.after(longest));
            return;
        }
        let (id, quiet) = (&info.id, info.topic == self.settings.topic);
        if served == Served::Detached {
            let waiting = counted(info.lag, "event");
            let text = format!("no handler serves `{id}`, and {waiting} wait for it: serve it, or remove it");
            self.add(quiet, 0, (AlertKind::Detached, id), (info.lag, 1), text);
        } else {
            let waits = self.now.since(oldest).as_secs();
            let text = format!("`{id}` is stuck: its oldest event has waited since {oldest}");
            self.add(quiet, 0, (AlertKind::Stuck, id), (waits, longest.as_secs()), text);
        }
        if let Some(added) = self.holding.last_mut() {
            added.since = since;
        }
    }

    /// What is refused is told at once, what cannot be reached when that has lasted.
    fn of_waiting(&mut self, waiting: &Waiting) {
        let longest = if waiting.refused { Duration::ZERO } else { OUTAGE };
        if waiting.since.after(longest) > self.now {
            self.wake_at(waiting.since.after(longest));
            return;
        }
        let waits = self.now.since(waiting.since).as_secs();
        let (quiet, about) = (waiting.topic == self.settings.topic, (AlertKind::Blocked, &*waiting.subscription));
        self.add(quiet, 0, about, (waits, longest.as_secs()), waiting.text.clone());
        if let Some(added) = self.holding.last_mut() {
            added.since = waiting.since;
        }
    }

    /// Whether it has missed events lately that were not told of.
    fn missed(&mut self, info: &SubscriptionInfo, quiet: bool, measured: &mut Measured) {
        if info.missed > measured.missed {
            measured.overtaken = Some(self.now);
        }
        measured.missed = info.missed;
        let until = measured.overtaken.map(|at| at.min(self.now).after(self.settings.every));
        let Some(until) = until.filter(|until| *until > self.now) else {
            measured.overtaken = None;
            return;
        };
        // It ends by itself, when no more are missed.
        self.wake_at(until);
        let (id, events) = (&info.id, counted(info.missed, "event"));
        let text = format!(
            "`{id}` has missed {events} so far: the retention of `{}` dropped them before it was through",
            info.topic
        );
        self.add(quiet, info.missed, (AlertKind::Missed, id), (info.missed, 1), text);
    }

    fn storm(&mut self, info: &SubscriptionInfo, quiet: bool, storm: RetryStorm, (all, failed): (u64, u64)) {
        let percent = failed.saturating_mul(100).checked_div(all).unwrap_or(0);
        if all < storm.attempts.max(1) || percent < storm.percent {
            return;
        }
        let (id, window) = (&info.id, storm.window.as_secs());
        let text = format!("`{id}`: {failed} of {all} attempts of the last {window} s failed");
        self.add(quiet, 0, (AlertKind::RetryStorm, id), (percent, storm.percent), text);
        // It ends by itself, when the window has passed.
        self.wake_at(self.now.after(self.settings.every));
    }

    fn of_storage(&mut self, storage: &StorageInfo, url: &str) {
        let Some(least) = self.settings.disk_free_below else { return };
        let below_limit = storage.limit.map(|limit| limit.saturating_sub(storage.bytes));
        let Some(free) = storage.free.into_iter().chain(below_limit).min() else { return };
        // Others fill a disk too, so nothing tells.
        self.wake_at(self.now.after(self.settings.every));
        if free < least {
            let text = format!("{url}: room for {free} bytes is left, {least} is the least that should be");
            self.add(false, 0, (AlertKind::Disk, url), (free, least), text);
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The attempts of a subscription at looks of the past: the newest one, and others at least a step apart.
#[derive(Clone, Debug, Default)]
struct Attempts(VecDeque<Looked>);

/// Attempts so far, at one look.
#[derive(Clone, Copy, Debug)]
struct Looked {
    at: Timestamp,
    all: u64,
    failed: u64,
}

impl Attempts {
    /// All and failed attempts within the window (and up to a step before it) at a new look.
    fn within(&mut self, window: Duration, new: Looked) -> (u64, u64) {
        let looks = &mut self.0;
        if looks.back().is_some_and(|newest| newest.all > new.all || newest.failed > new.failed || newest.at > new.at) {
            // It was made anew, or the clock stepped back.
            looks.clear();
        }
        if let [.., before, newest] = looks.make_contiguous()
            && newest.at.since(before.at) < window / STEPS
        {
            looks.pop_back();
        }
        looks.push_back(new);
        while looks.get(1).is_some_and(|second| second.at.after(window) <= new.at) {
            looks.pop_front();
        }
        looks.front().map_or((0, 0), |first| (new.all - first.all, new.failed - first.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_within_the_window_and_memory_is_bounded() {
        let window = Duration::from_secs(60);
        let mut attempts = Attempts::default();
        let mut within = |second: i64, all, failed| {
            let at = Timestamp::from_micros(second * 1_000_000);
            let counted = attempts.within(window, Looked { at, all, failed });
            assert!(attempts.0.len() <= STEPS as usize + 3, "{}", attempts.0.len());
            counted
        };
        assert_eq!(within(0, 1_000, 900), (0, 0), "what was before the first look does not count");
        for second in 1..=60 {
            assert_eq!(within(second, 1_000 + second as u64, 900), (second as u64, 0));
        }
        let (all, _) = within(120, 1_120, 900);
        assert!((60..=65).contains(&all), "{all} in 60 s and a step");
        assert_eq!(within(4_000, 1_120, 900), (0, 0), "long ago");
        assert_eq!(within(4_001, 1_130, 910), (10, 10));
        assert_eq!(within(4_002, 5, 5), (0, 0), "removed and made anew");
    }
}
