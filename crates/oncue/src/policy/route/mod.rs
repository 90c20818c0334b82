//! Which of several handlers that do the same is given an event: by context, as their successes and their times teach.

mod router;

use serde::{Deserialize, Serialize};

pub use oncue_learn::{Arm as RouteArm, Comparison as RouteComparison, MAX_ARMS as MAX_ROUTE_ARMS};

pub(crate) use self::router::{Choice, Routed};
pub use self::router::{RouteAsked, Router};
use crate::{
    event::Envelope,
    filter::{Features, Feedback, kind_of},
};

/// So many of the choices try any handler, unless said otherwise.
pub const DEFAULT_ROUTE_EXPLORE: f64 = 0.05;
/// What a second costs, unless said otherwise; a success brings 1.
pub const DEFAULT_ROUTE_DELAY_PER_S: f64 = 0.1;

/// How a route learns: what it looks at, what is a success, and what time costs. Made by [`route::learned`](crate::route::learned).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearnedRoute {
    /// The names of the handlers, in order.
    #[serde(default)]
    arms: Vec<String>,
    /// The parts of the data that are looked at, as paths; empty: all that are short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    features: Vec<String>,
    explore: f64,
    delay_per_s: f64,
    /// What tells whether an event that was handled was a success; nothing: that it was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feedback: Option<Feedback>,
    /// All go to this one, and nothing is learned. No part of what a log is told, so that what was learned stays.
    #[serde(skip)]
    fixed: Option<String>,
}

impl Default for LearnedRoute {
    fn default() -> Self {
        Self {
            arms: Vec::new(),
            features: Vec::new(),
            explore: DEFAULT_ROUTE_EXPLORE,
            delay_per_s: DEFAULT_ROUTE_DELAY_PER_S,
            feedback: None,
            fixed: None,
        }
    }
}

impl LearnedRoute {
    /// The parts of the data to look at, as paths: `bank`, `payments.0.method`. Without this, all numbers, truth values and
    /// short texts of JSON data. The type is looked at anyhow.
    #[must_use]
    pub fn features<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.features = paths.into_iter().map(Into::into).collect();
        self
    }

    /// The share of events that go to any of the handlers, each as likely; above 0, 1 at most. Without them nothing would be
    /// learned of the others any more.
    #[must_use]
    pub fn explore(mut self, share: f64) -> Self {
        self.explore = share;
        self
    }

    /// What a second of an attempt costs; a success brings 1, and no attempt costs more than that.
    #[must_use]
    pub fn delay_per_s(mut self, cost: f64) -> Self {
        self.delay_per_s = cost;
        self
    }

    /// A later event tells whether an event that was handled was a success, instead of that it was handled.
    #[must_use]
    pub fn feedback(mut self, feedback: Feedback) -> Self {
        self.feedback = Some(feedback);
        self
    }

    /// All events go to this handler, and nothing is learned meanwhile. What was learned stays.
    #[must_use]
    pub fn fixed(mut self, arm: impl Into<String>) -> Self {
        self.fixed = Some(arm.into());
        self
    }

    /// With these handlers.
    #[must_use]
    pub(crate) fn with_arms(self, arms: Vec<String>) -> Self {
        Self { arms, ..self }
    }

    /// As a log is told.
    pub(crate) fn as_learned(&self) -> Self {
        Self { fixed: None, ..self.clone() }
    }

    /// The names of the handlers, in order.
    #[must_use]
    pub fn arms(&self) -> &[String] {
        &self.arms
    }

    /// The paths that are looked at.
    pub(crate) fn paths(&self) -> &[String] {
        &self.features
    }

    /// The share that explores.
    #[must_use]
    pub fn explored(&self) -> f64 {
        self.explore
    }

    /// What a second costs.
    #[must_use]
    pub fn cost_per_s(&self) -> f64 {
        self.delay_per_s
    }

    /// What tells of successes, if it is not that events are handled.
    #[must_use]
    pub fn told_by(&self) -> Option<&Feedback> {
        self.feedback.as_ref()
    }

    /// The handler that all go to, if one is said.
    #[must_use]
    pub fn is_fixed(&self) -> Option<&str> {
        self.fixed.as_deref()
    }

    /// Whether what was learned by one is of use to the other.
    pub(crate) fn learns_the_same(&self, other: &Self) -> bool {
        (&self.features, self.delay_per_s, &self.feedback) == (&other.features, other.delay_per_s, &other.feedback)
    }

    /// What is looked at of an event.
    #[must_use]
    pub fn features_of(&self, event: &Envelope) -> Features {
        kind_of(event, &self.features)
    }

    /// What a first attempt brought that took so long.
    #[must_use]
    pub fn reward(&self, worked: bool, seconds: f64) -> f64 {
        f64::from(u8::from(worked)) - (self.delay_per_s * seconds).clamp(0.0, 1.0)
    }

    /// What is wrong with its settings, each with the fix.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(self.explore > 0.0 && self.explore <= 1.0) {
            let explore = self.explore;
            problems.push(format!("explore = {explore} is no share: give one such as {DEFAULT_ROUTE_EXPLORE}"));
        }
        if !(self.delay_per_s >= 0.0 && self.delay_per_s.is_finite()) {
            let cost = self.delay_per_s;
            problems.push(format!("delay_per_s = {cost} is no cost: give a number of 0 or more"));
        }
        if self.features.iter().any(|path| path.split('.').any(str::is_empty)) {
            problems.push("a feature is the path of a part of the data, such as \"payments.0.method\"".to_owned());
        }
        problems.extend(self.feedback.iter().flat_map(Feedback::problems));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_brings_one_and_time_costs_no_more_than_that() {
        let rules = LearnedRoute::default().delay_per_s(0.5);
        let rewards = [(true, 0.0), (true, 1.0), (true, 60.0), (false, 0.0), (false, 60.0)];
        assert_eq!(rewards.map(|(worked, seconds)| rules.reward(worked, seconds)), [1.0, 0.5, 0.0, 0.0, -1.0]);
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        assert!(LearnedRoute::default().problems().is_empty());
        for share in [0.0, -0.1, 1.5, f64::NAN] {
            let problems = LearnedRoute::default().explore(share).problems();
            assert_eq!(problems, [format!("explore = {share} is no share: give one such as 0.05")]);
        }
        let problems = LearnedRoute::default().delay_per_s(-1.0).features(["a..b"]).problems();
        assert!(problems[0].starts_with("delay_per_s = -1 is no cost") && problems[1].contains("payments.0.method"));
        let silent = crate::filter::feedback([""], std::time::Duration::ZERO);
        assert_eq!(LearnedRoute::default().feedback(silent).problems().len(), 2);
    }

    #[test]
    fn what_a_log_is_told_goes_there_and_back_and_says_nothing_of_a_fixed_one() {
        let rules = LearnedRoute::default().with_arms(vec!["north".into(), "south".into()]).features(["bank"]);
        let told = serde_json::to_string(&rules.clone().fixed("north")).unwrap();
        assert_eq!(serde_json::from_str::<LearnedRoute>(&told).unwrap(), rules);
        assert_eq!(rules.clone().fixed("north").as_learned(), rules);
    }
}
