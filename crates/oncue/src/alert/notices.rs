//! From conditions to alerts: each is raised once, renewed seldom, and recovers once it has been gone for a while.

use std::{collections::BTreeMap, time::Duration};

use super::{Alert, AlertKind, AlertStatus, Alerts, conditions::Holding};
use crate::clock::Timestamp;

/// An alert to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) alert: Alert,
    /// The event's id. Whoever tells the same of the same raise gives it the same one, and raises within one interval of
    /// [`Alerts::again_after`] are the same.
    pub(crate) id: String,
    /// Not to be published: whom it is about reads the alerts.
    pub(crate) quiet: bool,
}

/// What was told of each condition.
#[derive(Clone, Debug, Default)]
pub(super) struct Notices(BTreeMap<(AlertKind, String), Told>);

#[derive(Clone, Debug, Default)]
struct Told {
    active: Option<Active>,
    /// When it was raised last.
    raised: Option<Timestamp>,
    /// Since when it holds, if it may not be raised again yet.
    held_back: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Active {
    /// As it was told last, with what is known since.
    alert: Alert,
    quiet: bool,
    raised: Timestamp,
    /// Since when its condition is gone.
    gone: Option<Timestamp>,
    /// When it was told last, and how much of it there was; not known of what was told before the app started.
    told: Timestamp,
    count: Option<u64>,
}

/// What is left to tell at one look, and when to look again.
pub(super) struct Telling<'a> {
    settings: &'a Alerts,
    now: Timestamp,
    pub(super) notices: Vec<Notice>,
    pub(super) next: Option<Timestamp>,
}

impl Notices {
    /// Takes over an alert that was told at `at`, before the app started.
    pub(super) fn restore(&mut self, at: Timestamp, alert: Alert) {
        let told = self.0.entry((alert.kind, alert.subject.clone())).or_default();
        if alert.status == AlertStatus::Raised {
            told.raised = Some(at);
        }
        let raised = told.raised.unwrap_or(at);
        told.active = (alert.status != AlertStatus::Recovered).then_some(Active {
            alert,
            quiet: false,
            raised,
            gone: None,
            told: at,
            count: None,
        });
    }

    /// The alerts that are active, as they were told last.
    pub(super) fn active(&self) -> impl Iterator<Item = &Alert> {
        self.0.values().filter_map(|told| told.active.as_ref()).map(|active| &active.alert)
    }

    pub(super) fn tell<'a>(&mut self, holding: Vec<Holding>, now: Timestamp, settings: &'a Alerts) -> Telling<'a> {
        let mut telling = Telling { settings, now, notices: Vec::new(), next: None };
        let key = |holding: &Holding| (holding.condition.kind, holding.condition.subject.clone());
        let mut holding: BTreeMap<_, _> = holding.into_iter().map(|holding| (key(&holding), holding)).collect();
        for (key, told) in &mut self.0 {
            match holding.remove(key) {
                Some(holding) => telling.holds(told, holding),
                None => telling.gone(told),
            }
        }
        for (key, holding) in holding {
            telling.holds(self.0.entry(key).or_default(), holding);
        }
        let is_recent = |at: Timestamp| now.since(at) < settings.again_after;
        self.0.retain(|_, told| told.active.is_some() || told.raised.is_some_and(is_recent));
        telling
    }
}

impl Telling<'_> {
    fn wake_at(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |known| known.min(at)));
    }

    fn holds(&mut self, told: &mut Told, holding: Holding) {
        let Some(active) = &mut told.active else {
            self.raise(told, holding);
            return;
        };
        let condition = holding.condition;
        let more = condition.kind == AlertKind::DeadLetter && condition.value > active.alert.value;
        let grew = active.count.map_or(more, |count| holding.count > count);
        (active.gone, active.quiet) = (None, holding.quiet);
        (active.alert.value, active.alert.threshold) = (condition.value, condition.threshold);
        active.alert.text = condition.text;
        active.told = active.told.min(self.now);
        if !grew {
            active.count = Some(holding.count);
            return;
        }
        let at = active.told.after(self.settings.renew_after);
        if at > self.now {
            self.wake_at(at);
            return;
        }
        (active.told, active.count) = (self.now, Some(holding.count));
        active.alert.status = AlertStatus::Renewed;
        self.notices.push(active.notice(self.now, self.settings));
    }

    fn raise(&mut self, told: &mut Told, holding: Holding) {
        let since = told.held_back.unwrap_or(holding.since).min(holding.since);
        // A clock that was stepped back must not hold it back until its time comes again.
        if let Some(again) = told.raised.map(|raised| raised.min(self.now).after(self.settings.again_after))
            && again > self.now
        {
            told.held_back = Some(since);
            self.wake_at(again);
            return;
        }
        let condition = holding.condition;
        let alert = Alert {
            kind: condition.kind,
            status: AlertStatus::Raised,
            subject: condition.subject,
            value: condition.value,
            threshold: condition.threshold,
            text: condition.text,
            since,
        };
        let (quiet, raised) = (holding.quiet, self.now);
        let active = Active { alert, quiet, raised, gone: None, told: raised, count: Some(holding.count) };
        self.notices.push(active.notice(self.now, self.settings));
        *told = Told { active: Some(active), raised: Some(raised), held_back: None };
    }

    fn gone(&mut self, told: &mut Told) {
        told.held_back = None;
        let Some(active) = &mut told.active else { return };
        let gone = active.gone.map_or(self.now, |gone| gone.min(self.now));
        let at = gone.after(self.settings.recover_after);
        active.gone = Some(gone);
        if at > self.now {
            self.wake_at(at);
            return;
        }
        if let Some(mut active) = told.active.take() {
            active.alert.status = AlertStatus::Recovered;
            active.alert.text = format!("over: {}", active.alert.text);
            self.notices.push(active.notice(self.now, self.settings));
        }
    }
}

impl Active {
    fn notice(&self, now: Timestamp, settings: &Alerts) -> Notice {
        let Alert { kind, status, subject, .. } = &self.alert;
        let raised = bucket(self.raised, settings.again_after);
        let id = match status {
            AlertStatus::Renewed => format!("{kind}:{subject}:{raised}:{status}:{}", bucket(now, settings.renew_after)),
            AlertStatus::Raised | AlertStatus::Recovered => format!("{kind}:{subject}:{raised}:{status}"),
        };
        Notice { alert: self.alert.clone(), id, quiet: self.quiet }
    }
}

/// In which interval of this length a time lies.
fn bucket(time: Timestamp, length: Duration) -> i64 {
    time.as_micros().div_euclid(i64::try_from(length.as_micros()).unwrap_or(i64::MAX).max(1))
}
