//! What a learned route brought, compared with each of its handlers alone, and with giving events to any of them.
//!
//! The comparison is a part of what is learned: each first attempt was taken in when it ended, with what was believed by then
//! and how likely its handler was. It is as old as the route, and outlives the events.

use oncue::{
    filter::Verdict,
    policy::{RouteComparison, Router},
};
use serde_json::{Value, json};

use crate::{
    columns::{Column, columns},
    number::grouped,
};

/// What is known of a route; nothing: there is none, or none of its handlers was tried yet.
pub(super) struct Routes {
    router: Option<Router>,
}

impl Routes {
    pub(super) fn new(router: Option<Router>) -> Self {
        Self { router }
    }

    /// The names of the handlers, in order.
    fn names(&self) -> Vec<&str> {
        self.router.iter().flat_map(Router::arms).map(|(name, _)| name).collect()
    }

    fn verdict(&self, compared: &RouteComparison) -> (&'static str, String) {
        let best = self.names().get(compared.best).copied().unwrap_or_default();
        match compared.verdict {
            Verdict::TooFew | Verdict::OneOutcome => {
                ("too_few", "too little was seen to tell: it takes 100 choices, and 10 of each handler".to_owned())
            }
            Verdict::Better => {
                ("better", format!("the learned route is better than `{best}` alone, the best of its handlers"))
            }
            Verdict::Worse => {
                ("worse", format!("the learned route is WORSE than `{best}` alone: say route = \"{best}\""))
            }
            Verdict::NoDifference => (
                "no_difference",
                format!(
                    "the learned route is NOT better than `{best}` alone: the difference may be chance; route = \"{best}\" is \
                     simpler"
                ),
            ),
        }
    }

    pub(super) fn json(&self, subscription: &str) -> Value {
        let Some(router) = &self.router else {
            return json!({"subscription": subscription, "handlers": null, "says": NOTHING});
        };
        let compared = router.comparison();
        let arm = |((name, arm), alone): ((&str, &oncue::policy::RouteArm), &(f64, f64))| {
            json!({
                "handler": name,
                "tried": arm.rewards.count(),
                "explored": arm.explored,
                "mean_reward": arm.rewards.mean(),
                "changes": arm.drifts,
                "alone": interval(*alone),
            })
        };
        let (verdict, says) = self.verdict(&compared);
        json!({
            "subscription": subscription,
            "handlers": router.arms().zip(&compared.alone).map(arm).collect::<Vec<_>>(),
            "explore": router.explored(),
            "compared": compared.choices,
            "learned": interval(compared.reward),
            "any": interval(compared.any),
            "best_alone": self.names().get(compared.best),
            "gain": interval(compared.gain),
            "gain_over_any": interval(compared.gain_over_any),
            "verdict": verdict,
            "says": says,
        })
    }

    pub(super) fn text(&self, subscription: &str) -> String {
        let Some(router) = &self.router else { return format!("{subscription}: {NOTHING}\n") };
        let tried: f64 = router.arms().map(|(_, arm)| arm.rewards.count()).sum();
        let heading = [
            Column::Text("HANDLER"),
            Column::Number("TRIED"),
            Column::Number("SHARE"),
            Column::Number("EXPLORED"),
            Column::Number("MEAN REWARD"),
            Column::Number("CHANGES"),
        ];
        let row = |(name, arm): (&str, &oncue::policy::RouteArm)| {
            vec![
                name.to_owned(),
                count(arm.rewards.count()),
                format!("{:.1} %", 100.0 * arm.rewards.count() / tried.max(1.0)),
                grouped(arm.explored),
                format!("{:.4}", arm.rewards.mean()),
                grouped(arm.drifts),
            ]
        };
        let explored: u64 = router.arms().map(|(_, arm)| arm.explored).sum();
        let mut out = format!(
            "{subscription}, {} first attempts, of which {} went to any handler ({:.1} % are to):\n",
            count(tried),
            grouped(explored),
            100.0 * router.explored()
        );
        out += &columns(&heading, &router.arms().map(row).collect::<Vec<_>>());
        out + "\n" + &self.comparison(&router.comparison())
    }

    fn comparison(&self, compared: &RouteComparison) -> String {
        let heading = [Column::Text("EVENTS GO TO"), Column::Number("REWARD"), Column::Number("± 95 %")];
        let row = |name: String, (mean, width): (f64, f64)| {
            let width = if width.is_finite() { format!("{width:.4}") } else { "–".to_owned() };
            vec![name, format!("{mean:.4}"), width]
        };
        let mut rows = vec![row("what was learned".to_owned(), compared.reward)];
        let alone = self.names().into_iter().zip(&compared.alone);
        rows.extend(alone.map(|(name, alone)| row(format!("{name} alone"), *alone)));
        rows.push(row("any, each as likely".to_owned(), compared.any));
        let mut out = format!("compared over {} choices for which all were there:\n", count(compared.choices));
        out += &columns(&heading, &rows);
        let (gain, width) = compared.gain;
        if width.is_finite() {
            let best = self.names().get(compared.best).copied().unwrap_or_default();
            out += &format!("what was learned brings {gain:.4} ± {width:.4} (95 %) more per event than {best} alone\n");
        }
        out + &self.verdict(compared).1 + "\n"
    }
}

const NOTHING: &str = "it has no learned route, or none of its handlers was tried yet";

/// A mean and its half width; null: nobody knows.
fn interval((mean, width): (f64, f64)) -> Value {
    json!({"mean": mean, "width_95": Some(width).filter(|width| width.is_finite())})
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it counts")]
fn count(number: f64) -> String {
    grouped(number as u64)
}
