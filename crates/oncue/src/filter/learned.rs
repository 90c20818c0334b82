//! A filter that is learned: of each event it estimates whether its handler will give it up, from what became of those before.

use serde::{Deserialize, Serialize};

use super::{Feedback, features};
use crate::event::Envelope;

/// Of the events that would be held back, so many are handled all the same, unless said otherwise: without them nothing
/// would be learned any more.
pub const DEFAULT_EXPLORE: f64 = 0.05;

/// What is learned: see [`LearnedFilter::label`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Whether the event becomes a dead letter.
    #[default]
    Dead,
    /// Whether an attempt at it fails.
    Failed,
    /// What a later event tells of it, however its handler ended.
    Feedback(Feedback),
}

/// What a subscription learns of its events' ends: a part of what a transport is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lessons {
    /// The parts of the data that are looked at, `total_cents` or `payments.0.method`; empty: all that are short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What is learned.
    #[serde(default)]
    pub label: Label,
}

impl Lessons {
    /// The feedback that tells what is learned, if that is the label.
    #[must_use]
    pub fn feedback(&self) -> Option<&Feedback> {
        match &self.label {
            Label::Feedback(feedback) => Some(feedback),
            Label::Dead | Label::Failed => None,
        }
    }

    /// What is looked at of an event.
    #[must_use]
    pub fn features_of(&self, event: &Envelope) -> oncue_learn::Features {
        features::of(event, &self.features)
    }
}

/// A filter that is learned. Without a [`threshold`](Self::threshold) it holds nothing back: `oncue policy report` tells
/// what it would be worth.
///
/// ```
/// use oncue::{filter::{self, Label}, prelude::*};
///
/// async fn charge(_event: Envelope) {}
///
/// let likely_lost = filter::learned().features(["bank", "total_cents"]).label(Label::Dead).threshold(0.95);
/// let charge = charge.named("charge").types(["order.created"]).filter(likely_lost);
/// assert!(charge.problems().is_empty());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedFilter {
    lessons: Lessons,
    threshold: Option<f64>,
    explore: f64,
}

/// A filter that learns which events its handler gives up. See [`LearnedFilter`].
#[must_use]
pub fn learned() -> LearnedFilter {
    LearnedFilter { lessons: Lessons::default(), threshold: None, explore: DEFAULT_EXPLORE }
}

impl LearnedFilter {
    /// The parts of the data to look at, as paths: `total_cents`, `payments.0.method`. Without this, all numbers, truth values
    /// and short texts of JSON data. Type, source, hour and weekday are looked at anyhow.
    #[must_use]
    pub fn features<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.lessons.features = paths.into_iter().map(Into::into).collect();
        self
    }

    /// What is to be learned: a [`Label`], or a [`feedback`](super::feedback()).
    #[must_use]
    pub fn label(mut self, label: impl Into<Label>) -> Self {
        self.lessons.label = label.into();
        self
    }

    /// Holds back an event whose probability is at least that, between 0 and 1: it becomes a dead letter of the class
    /// [`Filtered`](crate::policy::ErrorClass::Filtered) without being handled; redriven, it is handled. Nothing is held back
    /// before what was learned is better than the base rate, beyond chance.
    #[must_use]
    pub fn threshold(mut self, probability: f64) -> Self {
        self.threshold = Some(probability);
        self
    }

    /// So many of the events that would be held back are handled all the same, chosen by their ids; above 0, below 1.
    #[must_use]
    pub fn explore(mut self, share: f64) -> Self {
        self.explore = share;
        self
    }

    /// What it learns.
    #[must_use]
    pub fn lessons(&self) -> &Lessons {
        &self.lessons
    }

    /// Whether it may hold anything back.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.threshold.is_some()
    }

    /// The probability from which on it holds back, if it may.
    pub(crate) fn holds_back_from(&self) -> Option<f64> {
        self.threshold
    }

    /// The share that is handled all the same.
    pub(crate) fn explored(&self) -> f64 {
        self.explore
    }

    /// What is wrong with its settings, each with the fix.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let inside = |value: f64| value > 0.0 && value < 1.0;
        if let Some(threshold) = self.threshold.filter(|threshold| !inside(*threshold)) {
            problems.push(format!("threshold = {threshold} is no probability between 0 and 1: give one such as 0.95"));
        }
        if !inside(self.explore) {
            let explore = self.explore;
            problems
                .push(format!("explore = {explore} is no share between 0 and 1: give one such as {DEFAULT_EXPLORE}"));
        }
        if self.lessons.features.iter().any(|path| path.split('.').any(str::is_empty)) {
            problems.push("a feature is the path of a part of the data, such as \"payments.0.method\"".to_owned());
        }
        problems.extend(self.lessons.feedback().map(Feedback::problems).unwrap_or_default());
        problems
    }

    /// Why an event is not to be handled; nothing if it is.
    pub(crate) fn verdict(&self, event: &Envelope, estimate: Estimate) -> Option<String> {
        let threshold = self.threshold?;
        if !estimate.proven || estimate.probability < threshold || self.explores(event) {
            return None;
        }
        let what = match &self.lessons.label {
            Label::Dead => "a dead letter",
            Label::Failed => "a failed attempt",
            Label::Feedback(feedback) if feedback.is_expected() => "no feedback in time",
            Label::Feedback(_) => "the feedback that it was lost",
        };
        Some(format!(
            "held back by a learned filter: the probability of {what} is {:.3}, and the threshold {threshold}; if it is \
             redriven it is handled",
            estimate.probability
        ))
    }

    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    fn explores(&self, event: &Envelope) -> bool {
        let drawn = oncue_learn::hash(&[b"explore", event.source().as_bytes(), event.id().as_bytes()]);
        (drawn as f64) < self.explore * u64::MAX as f64
    }
}

/// What was learned says of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The probability that its handler gives it up, that an attempt fails, or of what feedback tells: what the
    /// [label](Label) says.
    pub probability: f64,
    /// What was learned is better than the base rate, beyond chance.
    pub proven: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u32) -> Envelope {
        Envelope::builder("order.created").id(format!("e-{number}")).build().unwrap()
    }

    #[test]
    fn without_a_threshold_or_a_proof_nothing_is_held_back() {
        let sure = Estimate { probability: 0.999, proven: true };
        let held = |filter: LearnedFilter, estimate| {
            (0..200).filter(|n| filter.verdict(&event(*n), estimate).is_some()).count()
        };
        assert_eq!(held(learned(), sure), 0);
        assert_eq!(held(learned().threshold(0.9), Estimate { proven: false, ..sure }), 0);
        assert_eq!(held(learned().threshold(0.9), Estimate { probability: 0.89, ..sure }), 0);
        let most = held(learned().threshold(0.9).explore(0.1), sure);
        assert!((160..200).contains(&most), "{most}: a tenth is handled all the same");
        assert_eq!(most, held(learned().threshold(0.9).explore(0.1), sure), "always the same ones");
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        assert!(learned().threshold(0.5).problems().is_empty());
        for threshold in [0.0, 1.0, -0.5, 7.0, f64::NAN] {
            let problems = learned().threshold(threshold).problems();
            assert_eq!(
                problems,
                [format!("threshold = {threshold} is no probability between 0 and 1: give one such as 0.95")]
            );
        }
        assert!(learned().explore(0.0).problems()[0].starts_with("explore = 0 is no share"));
        let silent = learned().label(crate::filter::feedback([""], std::time::Duration::ZERO));
        assert!(silent.problems()[0].contains("names no type") && silent.problems()[1].contains("the time that"));
        assert!(learned().features(["a..b"]).problems()[0].contains("payments.0.method"));
    }
}
