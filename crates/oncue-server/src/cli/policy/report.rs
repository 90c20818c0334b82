//! `oncue policy report`: whether it is worth learning which events of a subscription are lost, or which come first.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use oncue::{
    Envelope,
    filter::{Features, FeedbackCounts, Learner, Lessons, Loss, Progress, Verdict},
    policy::{self, ErrorClass, LearnedPriority},
    transport::{EventRef, Inspect, InspectError, Position, Settled, SubscriptionInfo},
};
use serde_json::{Value, json};

use super::{queue::Queues, routes::Routes};
use crate::{
    cli::{
        CommandError,
        view::{View, ViewError, each_event, listed},
    },
    columns::{Column, columns},
    number::grouped,
};

/// Compare what is learned of a subscription's events with what is simple, the base rate
///
/// Its events are read from the log in their order. Of each it is estimated first how likely it is lost, from what the event
/// says; then it is learned what became of it. Lost is what is a dead letter; with --feedback, what an event of these types
/// follows that has the same key. The loss is −ln of what was said of what happened, per event; better is less. What a
/// learned filter learned while the handler ran is told beside that.
///
/// Whatever the subscription's filter is: this is what learning would be worth. Feedback is taken as known at once, so it is
/// a little better here than it would be.
///
/// With --priorities: the events that were handled are served again, each at the time at which it came and for as long as it
/// took, first in first out, by the priority that events say, and by what is learned of it on the way. What their waiting
/// costs is compared.
///
/// With --routes: what was learned of the handlers of a route is told, and compared with the best of them alone and with giving
/// events to any. What was not tried is estimated from what was, by how likely each choice was.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue policy report charge --data ./data\n  \
                        oncue policy report charge --data ./data --features bank,total_cents\n  \
                        oncue policy report on-paid --data ./data --feedback order.canceled,order.unavailable --json\n  \
                        oncue policy report render --data ./data --priorities --cost customer.weight\n  \
                        oncue policy report charge --data ./data --routes\n\n\
                        Exit codes: 0 all is done, whatever is found; 1 the log cannot be read; 2 there is no such \
                        subscription or log, or an option is wrong.")]
pub(super) struct Report {
    /// The subscription
    subscription: String,

    /// Directory that an app keeps its log in. The app may be running: nothing is locked and nothing is written
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Parts of the data to look at, such as payments.0.method; without this, all that are short
    #[arg(long, value_name = "PATH,…", value_delimiter = ',')]
    features: Vec<String>,

    /// Types of events that tell of an earlier one of the same key that it was lost
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    feedback: Vec<String>,

    /// Compare orders of handling, instead of what is learned of losses
    #[arg(long, conflicts_with = "feedback")]
    priorities: bool,

    /// The part of the data that says what a second of waiting costs; without this, all cost the same
    #[arg(long, value_name = "PATH", requires = "priorities")]
    cost: Option<String>,

    /// How many events are handled at once
    #[arg(long, value_name = "N", default_value_t = 1, requires = "priorities")]
    places: usize,

    /// Compare the handlers of a learned route, instead of what is learned of losses
    #[arg(long, conflicts_with_all = ["priorities", "feedback", "features"])]
    routes: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was learned: while the handler ran, if it did, and from what is recorded.
struct Found {
    live: Option<Learner>,
    /// Of a learned filter that learns by feedback.
    feedback: Option<FeedbackCounts>,
    replayed: Learner,
}

impl Report {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let view = View { data: self.data.clone(), json: self.json };
        if self.priorities {
            let rules = policy::learned_priority().features(self.features.clone());
            let rules = self.cost.iter().fold(rules, LearnedPriority::cost);
            let queues = view.look(|log| Queues::of(&view, log, &self.about(log)?, (&rules, self.places)))?;
            return view.tell(&queues.json(&self.subscription), || queues.text(&self.subscription));
        }
        if self.routes {
            let routes = view.look(|log| {
                let about = self.about(log)?;
                Ok(Routes::new(log.router(&about.id)))
            })?;
            return view.tell(&routes.json(&self.subscription), || routes.text(&self.subscription));
        }
        let found = view.look(|log| {
            let replayed = self.replay(&view, log, &self.about(log)?)?;
            let (live, feedback) = (log.learned(&self.subscription), log.feedback(&self.subscription));
            Ok(Found { live, feedback, replayed })
        })?;
        view.tell(&self.json(&found), || self.text(&found))
    }

    /// The subscription, as the log knows it.
    fn about(&self, log: &dyn Inspect) -> Result<SubscriptionInfo, ViewError> {
        let mut known = log.subscriptions();
        if let Some(place) = known.iter().position(|about| about.id == self.subscription) {
            return Ok(known.swap_remove(place));
        }
        let known = listed(known.iter().map(|known| known.id.as_str()));
        let (subscription, directory) = (self.subscription.clone(), self.data.clone());
        Err(ViewError::UnknownSubscription { subscription, directory, known })
    }

    /// Learns from all that is recorded, in its order.
    fn replay(&self, view: &View, log: &dyn Inspect, about: &SubscriptionInfo) -> Result<Learner, ViewError> {
        let topics = view.topics(log, Some(&about.topic))?;
        let lessons = Lessons { features: self.features.clone(), ..Lessons::default() };
        let ends = if self.feedback.is_empty() { Some(Ends::of(log, about)?) } else { None };
        let (mut examples, mut told) = (Vec::new(), HashMap::new());
        let mut failed = None;
        each_event(log, &topics, |topic, position, event| {
            if let Some(key) = event.key().filter(|_| self.feedback.iter().any(|known| known == event.event_type())) {
                told.insert(key.to_owned(), position);
            }
            let taken = about.types.is_empty() || about.types.iter().any(|known| known == event.event_type());
            if !taken || about.filter.as_ref().is_some_and(|filter| !filter.matches(event)) {
                return;
            }
            let lost = match &ends {
                None => Ok(Some(false)),
                Some(ends) => ends.lost(log, topic, position, event),
            };
            match lost {
                Ok(Some(lost)) => {
                    let key = event.key().filter(|_| ends.is_none()).map(str::to_owned);
                    examples.push(Example { position, key, lost, features: lessons.features_of(event) });
                }
                Ok(None) => {}
                Err(error) => failed = failed.take().or(Some(error)),
            }
        })?;
        failed.map_or(Ok(()), Err)?;
        let mut learner = Learner::new(Loss::Logistic);
        for Example { position, key, lost, features } in examples {
            let followed = key.and_then(|key| told.get(&key)).is_some_and(|later| later.offset() > position.offset());
            // A label that is 0 or 1 is one.
            let _ = learner.learn(&features, f64::from(u8::from(lost || followed)));
        }
        Ok(learner)
    }

    fn json(&self, found: &Found) -> Value {
        json!({
            "subscription": self.subscription,
            "label": if self.feedback.is_empty() { "dead" } else { "feedback" },
            "live": found.live.as_ref().map(|learner| comparison(learner.progress())),
            "feedback": found.feedback,
            "replayed": comparison(found.replayed.progress()),
        })
    }

    fn text(&self, found: &Found) -> String {
        let mut out = String::new();
        if let Some(live) = &found.live {
            out += &format!("{}, learned while it ran:\n{}\n", self.subscription, told(live.progress()));
        }
        if let Some(FeedbackCounts { waiting, came, stayed_out, unknown }) = found.feedback {
            let counts = [came, stayed_out, waiting, unknown].map(grouped);
            let [came, stayed_out, waiting, unknown] = counts;
            out += &format!(
                "feedback came for {came} events, stayed out for {stayed_out}; {waiting} wait for it, of {unknown} nobody knows\n\n"
            );
        }
        out + &format!("{}, learned from what is recorded:\n{}", self.subscription, told(found.replayed.progress()))
    }
}

/// An event, as far as it matters until all were read.
struct Example {
    position: Position,
    /// What feedback would name it by.
    key: Option<String>,
    lost: bool,
    features: Features,
}

/// How events ended.
struct Ends<'a> {
    subscription: &'a str,
    lost: HashSet<Position>,
    /// Held back by a learned filter: nobody knows.
    held_back: HashSet<Position>,
}

impl<'a> Ends<'a> {
    fn of(log: &dyn Inspect, about: &'a SubscriptionInfo) -> Result<Self, InspectError> {
        let (mut lost, mut held_back) = (HashSet::new(), HashSet::new());
        for letter in log.dead_letters(&about.id)? {
            let filtered = letter.history.last().is_some_and(|last| last.class == ErrorClass::Filtered);
            if filtered {
                held_back.insert(letter.position)
            } else {
                lost.insert(letter.position)
            };
        }
        Ok(Self { subscription: &about.id, lost, held_back })
    }

    /// Nothing if it has not ended, or not by a handler.
    fn lost(
        &self,
        log: &dyn Inspect,
        topic: &str,
        position: Position,
        event: &Envelope,
    ) -> Result<Option<bool>, InspectError> {
        if self.lost.contains(&position) || self.held_back.contains(&position) {
            return Ok(Some(true).filter(|_| self.lost.contains(&position)));
        }
        let event = EventRef { topic: Arc::from(topic), position, envelope: event.clone() };
        Ok(log.settled(&event, self.subscription)?.filter(|end| *end == Settled::Acked).map(|_| false))
    }
}

fn comparison(progress: &Progress) -> Value {
    let (gain, width) = progress.gain();
    let per_event = |sum: f64| if progress.examples > 0.0 { json!(sum / progress.examples) } else { Value::Null };
    json!({
        "events": progress.examples,
        "lost": progress.positives,
        "log_loss": per_event(progress.learned),
        "base_rate_log_loss": per_event(progress.simple),
        "gain": gain,
        "gain_width_95": if width.is_finite() { json!(width) } else { Value::Null },
        "calibration_error": progress.reliability.error(),
        "drifts": progress.drifts,
        "verdict": match progress.verdict() {
            Verdict::TooFew => "too_few",
            Verdict::OneOutcome => "one_outcome",
            Verdict::Better => "better",
            Verdict::NoDifference => "no_difference",
            Verdict::Worse => "worse",
        },
        "says": says(progress),
    })
}

fn says(progress: &Progress) -> &'static str {
    match progress.verdict() {
        Verdict::TooFew if progress.examples == 0.0 => "no event has ended yet: there is nothing to compare",
        Verdict::TooFew => "too little was seen to tell: it takes 100 events, and 10 of the rarer outcome",
        Verdict::OneOutcome => "all events ended alike: there is nothing to learn",
        Verdict::Better => "what is learned is better than the base rate",
        Verdict::NoDifference => "what is learned is NOT better than the base rate: the difference may be chance",
        Verdict::Worse => "what is learned is WORSE than the base rate: do without it",
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole numbers")]
fn told(progress: &Progress) -> String {
    if progress.examples == 0.0 {
        return format!("  {}\n", says(progress));
    }
    let count = |number: f64| grouped(number as u64);
    let heading = [
        Column::Number("EVENTS"),
        Column::Number("LOST"),
        Column::Number("LEARNED"),
        Column::Number("BASE RATE"),
        Column::Number("GAIN"),
        Column::Number("± 95 %"),
        Column::Number("OFF BY"),
        Column::Number("DRIFTS"),
    ];
    let (gain, width) = progress.gain();
    let row = vec![
        count(progress.examples),
        count(progress.positives),
        format!("{:.4}", progress.learned / progress.examples),
        format!("{:.4}", progress.simple / progress.examples),
        format!("{gain:.4}"),
        if width.is_finite() { format!("{width:.4}") } else { "-".to_owned() },
        format!("{:.3}", progress.reliability.error()),
        grouped(progress.drifts),
    ];
    format!("{}{}\n", columns(&heading, &[row]), says(progress))
}
