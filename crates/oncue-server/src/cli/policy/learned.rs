//! What is known of a subscription's attempts, and what the policy that is computed of them does.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use oncue::{
    config::PolicyConfig,
    policy::{AgeSeen, ClassExplained, Explanation, Step},
};
use serde_json::{Value, json};

use super::{explain::ExplainError, plot};
use crate::{
    cli::{
        CommandError,
        view::{View, ViewError, listed},
    },
    columns::{Column, columns},
    number::{grouped, time},
};

/// Where to look, and how to tell.
pub(super) struct Learned<'a> {
    pub(super) data: PathBuf,
    pub(super) subscription: &'a str,
    pub(super) json: bool,
    pub(super) svg: Option<&'a Path>,
}

impl Learned<'_> {
    pub(super) fn tell(&self, policy: &PolicyConfig) -> Result<(), CommandError> {
        let view = View { data: self.data.clone(), json: self.json };
        let attempts = view.look(|log| {
            log.attempts(self.subscription).ok_or_else(|| {
                let known = log.subscriptions();
                let known = listed(known.iter().map(|known| known.id.as_str()));
                let (subscription, directory) = (self.subscription.to_owned(), self.data.clone());
                ViewError::UnknownSubscription { subscription, directory, known }
            })
        })?;
        let policy = policy.policy();
        let Some(rules) = policy.computed() else { return Ok(()) };
        let explanation = rules.explain(&attempts);
        if let Some(file) = self.svg {
            let plotted = plot::svg(self.subscription, &explanation);
            fs::write(file, plotted).map_err(|error| ExplainError::Plot { file: file.to_owned(), error })?;
        }
        view.tell(&self.json(&explanation), || self.text(&explanation))
    }

    fn json(&self, explanation: &Explanation) -> Value {
        let mut json = json!(explanation);
        json["subscription"] = json!(self.subscription);
        json
    }

    fn text(&self, known: &Explanation) -> String {
        let costs = known.costs;
        let mut out = format!(
            "{}: {} retries counted; {:.1} % of first attempts fail while all is well\n",
            self.subscription,
            grouped(known.counted),
            known.failing_share * 100.0
        );
        out += &format!(
            "costs: an attempt {}, a second of delay {}, a dead letter {}; a success brings {}; {} attempts at most\n",
            costs.attempt, costs.delay_per_s, costs.loss, costs.success, known.max_attempts
        );
        if let Some(since) = known.down_since {
            out +=
                &format!("what it calls seems to be down since {since}: its events are parked, one at a time tries\n");
        }
        if let Some(error) = &known.fallback {
            out += &format!("EXPONENTIAL DELAYS COUNT INSTEAD, as nothing could be computed: {error}\n");
        }
        let seen = known.classes.iter().filter(|class| !class.ages.is_empty()).count();
        if seen == 0 {
            out += "no retry was seen: what follows is what the prior says, and the same for each class of errors\n";
        }
        for class in known.classes.iter().take(seen.max(1)) {
            out += &self::class(class);
        }
        if !known.outages.is_empty() {
            out += &format!("\noutages, as far as they were seen:\n\n{}", ages(&known.outages));
        }
        out
    }
}

fn class(class: &ClassExplained) -> String {
    let mut out = format!("\n== {} ==\n", class.class);
    if !class.ages.is_empty() {
        out +=
            &format!("\nhow long trouble lasts (counts fade, so they are no whole numbers):\n\n{}", ages(&class.ages));
        let followed: Vec<_> = class.followed.iter().map(|(next, p)| format!("{next} {:.0} %", p * 100.0)).collect();
        out += &format!("\nif the next attempt fails too, it is: {}\n", followed.join(", "));
    }
    out += &format!("\n{:.1} % of its failures are taken for mere luck\n", class.luck * 100.0);
    let heading = [
        Column::Number("FAILED"),
        Column::Number("AFTER"),
        Column::Text("ACTION"),
        Column::Number("WORKS"),
        Column::Number("VALUE"),
        Column::Text("RUNNER-UP"),
        Column::Number("ITS VALUE"),
        Column::Text("EXPONENTIAL"),
    ];
    let rows: Vec<_> = class.plan.iter().map(step).collect();
    out + &format!("\na new event that keeps failing:\n\n{}", columns(&heading, &rows))
}

fn ages(ages: &[AgeSeen]) -> String {
    let heading = [
        Column::Number("AGE"),
        Column::Number("TO"),
        Column::Number("REACHED"),
        Column::Number("OVER"),
        Column::Number("P(OVER)"),
    ];
    let row = |age: &AgeSeen| {
        let counts = [age.reached, age.over].map(|count| format!("{count:.2}"));
        let p = format!("{:.1} %", age.p * 100.0);
        [vec![seconds(age.from_s), seconds(age.to_s)], counts.to_vec(), vec![p]].concat()
    };
    columns(&heading, &ages.iter().map(row).collect::<Vec<_>>())
}

fn step(step: &Step) -> Vec<String> {
    let runner_up = step.runner_up.map(|(delay, value)| (action(delay), format!("{value:.3}")));
    let (other, value) = runner_up.unwrap_or_else(|| ("–".to_owned(), "–".to_owned()));
    vec![
        step.attempt.to_string(),
        seconds(step.age_s),
        action(step.delay_s),
        if step.delay_s.is_some() { format!("{:.1} %", step.works * 100.0) } else { "–".to_owned() },
        format!("{:.3}", step.value),
        other,
        value,
        action(step.exponential_s),
    ]
}

fn action(delay: Option<f64>) -> String {
    delay.map_or_else(|| "dead letter".to_owned(), |delay| format!("retry after {}", seconds(delay)))
}

/// A time given in seconds, from zero on.
pub(super) fn seconds(seconds: f64) -> String {
    time(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}
