//! What a failure is likely to be, luck or trouble, and when the next attempt would work.

use super::{
    attempts::{Attempts, CLASSES},
    survival::{AGES, Survival, left_by_lindy, split},
};
use crate::policy::ErrorClass;

/// How many failures the prior share of luck weighs as many as.
const PRIOR_WEIGHT: f64 = 2.0;
/// The share of failures that are mere luck, before anything was seen.
const LUCK: f64 = 0.2;
/// The share of trouble that never ends, as that of an event which is wrong. It is not learned: what many events go through
/// at the same time would look like it. That nobody got well at an age is learned of each age alone.
const NEVER: f64 = 0.01;
/// Shares are looked for on a grid of the logistic function, from 0.25 % to 99.3 %: so many steps down and up from a half.
const STEPS: std::ops::RangeInclusive<i32> = -24..=20;
/// However sure the counts are, nothing is certain.
const MOST_CERTAIN: f64 = 0.999;

/// P(trouble reaches an age), if so much is mere luck, which is over before the second, and so much never.
fn left(age: usize, luck: f64, never: f64) -> f64 {
    if age == 0 { 1.0 } else { (1.0 - luck) * ((1.0 - never) * left_by_lindy(age as f64) + never) }
}

/// P(over before the next age) of each age.
fn hazards(luck: f64, never: f64) -> [f64; AGES] {
    std::array::from_fn(|age| 1.0 - left(age + 1, luck, never) / left(age, luck, never))
}

/// P(over before the second age).
fn over_at_once(luck: f64) -> f64 {
    1.0 - left(1, luck, NEVER)
}

/// The share of luck that explains best how much was over before the second age, if before that `prior` was believed.
fn luck_of(seen: &Survival, prior: f64) -> f64 {
    let Some(first) = seen.cells().first() else { return prior };
    let explains = |luck: f64| {
        let over = over_at_once(luck);
        let believed = prior * luck.ln() + (1.0 - prior) * (1.0 - luck).ln();
        PRIOR_WEIGHT * believed + first.over * over.ln() + (first.reached - first.over) * (1.0 - over).ln()
    };
    let shares = STEPS.map(|step| 1.0 / (1.0 + (-0.25 * f64::from(step)).exp()));
    let best = shares.map(|luck| (explains(luck), luck)).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map_or(prior, |best| best.1)
}

/// Of what is over before the second age, the share that is luck.
fn luck_at_once(luck: f64) -> f64 {
    luck / over_at_once(luck)
}

/// When the next attempt works, as far as prior and counts say.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    /// The share of failures that are mere luck.
    pub(super) luck: f64,
    /// How often an attempt fails by luck.
    unlucky: f64,
    /// ln S at each age of the grid: the log of the probability that trouble lasts so long.
    log_survival: [f64; AGES],
}

impl Outlook {
    /// Of trouble that passes, and is no luck.
    pub(super) fn of_passing(seen: &Survival) -> Self {
        Self::passing(seen, &hazards(0.0, 0.0))
    }

    fn passing(seen: &Survival, prior: &[f64; AGES]) -> Self {
        Self { luck: 0.0, unlucky: 0.0, log_survival: log_survival(seen.hazards(prior)) }
    }

    /// Of each class of errors, in the order of the tables. Its prior is what all say together. Who throttles says that it has
    /// too much to do: that passes, and another attempt at once would be more of it.
    pub(super) fn by_class(attempts: &Attempts) -> Vec<Self> {
        let all = attempts.of_all_classes();
        let luck_of_all = luck_of(&all, LUCK);
        let prior = all.without(luck_at_once(luck_of_all)).hazards(&hazards(0.0, NEVER));
        let unlucky = attempts.odds.failing_share() * luck_of_all;
        let of_class = |(own, class): (&Survival, ErrorClass)| {
            if class == ErrorClass::Throttled {
                return Self::passing(own, &all.hazards(&hazards(0.0, 0.0)));
            }
            let luck = luck_of(own, luck_of_all);
            let hazards = own.without(luck_at_once(luck)).hazards(&prior);
            Self { luck, unlucky, log_survival: log_survival(hazards) }
        };
        attempts.troubles.iter().zip(CLASSES).map(of_class).collect()
    }

    /// Whether it matters how many attempts failed.
    pub(super) fn counts_failures(&self) -> bool {
        self.luck > 0.0
    }

    /// P(an attempt works at `to` | so many failed, the last at `from`), for places of the grid: how likely luck is follows
    /// from how likely so many failures are by luck, and that trouble lasts so long.
    pub(super) fn works(&self, failed: u32, from: f64, to: f64) -> f64 {
        let luck = self.luck * self.unlucky.powf(f64::from(failed.saturating_sub(1)));
        let trouble = (1.0 - self.luck) * self.at(from).exp();
        let luck = luck / (luck + trouble);
        luck * (1.0 - self.unlucky) + (1.0 - luck) * self.over_by(from, to)
    }

    /// P(over before the next age) of what reached an age of the grid, luck included.
    pub(super) fn over_at(&self, age: usize) -> f64 {
        let luck = if age == 0 { self.luck } else { 0.0 };
        luck + (1.0 - luck) * self.over_by(age as f64, (age + 1) as f64)
    }

    /// P(trouble is over by the age at `to` | not by the age at `from`), for places of the grid.
    fn over_by(&self, from: f64, to: f64) -> f64 {
        1.0 - (self.at(to) - self.at(from)).min(0.0).exp()
    }

    fn at(&self, place: f64) -> f64 {
        let (below, part) = split(place);
        let above = (below + 1).min(AGES - 1);
        self.log_survival[below] * (1.0 - part) + self.log_survival[above] * part
    }
}

fn log_survival(hazards: [f64; AGES]) -> [f64; AGES] {
    let mut sum = 0.0;
    hazards.map(|hazard| {
        let at = sum;
        sum += (1.0 - hazard.min(MOST_CERTAIN)).ln();
        at
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::survival::{FIRST_S, place},
        *,
    };

    fn by_first_class(events: impl IntoIterator<Item = (f64, f64, bool)>) -> Outlook {
        let mut attempts = Attempts::default();
        for (from, to, over) in events {
            attempts.troubles[0].observe(from, to, over);
        }
        Outlook::by_class(&attempts).swap_remove(0)
    }

    #[test]
    fn what_passes_is_of_paretos_law_before_any_was_seen() {
        let outages = Outlook::of_passing(&Survival::default());
        for (from, delay) in [(0.0, 0.1), (1.0, 2.5), (60.0, 60.0), (0.3, 900.0)] {
            let (began, ended) = (from + FIRST_S, from + FIRST_S + delay);
            for failed in [1, 5] {
                let found = outages.works(failed, place(from), place(from + delay));
                assert!((found - (1.0 - began / ended)).abs() < 1e-9, "{from} {delay}: {found}");
            }
        }
    }

    #[test]
    fn luck_is_told_from_trouble() {
        let luck = |events: Vec<(f64, f64, bool)>| by_first_class(events).luck;
        let (all, none) = (luck(vec![(0.0, 0.03, true); 40]), luck(vec![(0.0, 30.0, false); 40]));
        assert!(all > 0.9 && none < 0.05, "{all} {none}");
        let passes = luck([vec![(0.0, 0.2, false); 40], vec![(0.2, 20.0, true); 40]].concat());
        assert!(passes < 0.1, "{passes}");
        let mixed = luck([vec![(0.0, 30.0, false); 15], vec![(0.0, 0.03, true); 25]].concat());
        assert!((0.4..0.65).contains(&mixed), "{mixed}");
    }

    #[test]
    fn each_failure_makes_luck_less_likely_and_who_throttles_is_no_luck() {
        let mixed = by_first_class([vec![(0.0, 30.0, false); 15], vec![(0.0, 0.03, true); 25]].concat());
        let works: Vec<f64> = (1..6).map(|failed| mixed.works(failed, 0.0, 0.1)).collect();
        assert!(works[0] > 0.4 && works[1] < 0.2 && works.is_sorted_by(|one, next| one > next), "{works:?}");
        let throttled = &Outlook::by_class(&Attempts::default())[1];
        assert!(!throttled.counts_failures() && throttled.works(1, 0.0, 0.1) < 0.1, "{throttled:?}");
    }

    #[test]
    fn one_class_begins_with_what_all_say() {
        let mut attempts = Attempts::default();
        let throttled = |attempts: &Attempts| Outlook::by_class(attempts)[1].works(1, 0.0, place(1.0));
        let before = throttled(&attempts);
        (0..100).for_each(|_| attempts.troubles[2].observe(0.0, 1.0, false));
        assert!(throttled(&attempts) < before, "{before}");
        let outlooks = Outlook::by_class(&attempts);
        let works = |class: usize| outlooks[class].works(1, 0.0, place(1.0));
        assert!((works(0) - works(3)).abs() < 1e-12 && works(0) < 0.3, "{} {}", works(0), works(3));
        assert!(works(2) < works(0));
    }

    proptest! {
        #[test]
        fn whatever_was_seen_probabilities_are_some_and_longer_waits_never_help_less(
            seen in proptest::collection::vec((0.0..1e4_f64, 0.0..1e4_f64, any::<bool>()), 0..60),
            failed in 0_u32..300,
        ) {
            let mut outlooks = vec![by_first_class(seen.clone().into_iter().map(|(from, delay, over)| (from, from + delay, over)))];
            let mut outages = Survival::default();
            seen.into_iter().for_each(|(from, delay, over)| outages.observe(from, from + delay, over));
            outlooks.push(Outlook::of_passing(&outages));
            for outlook in outlooks {
                for from in 0..AGES - 1 {
                    let works: Vec<f64> = (from..AGES).map(|to| outlook.works(failed, from as f64, to as f64)).collect();
                    prop_assert!(works.is_sorted() && works.iter().all(|p| (0.0..=1.0).contains(p)));
                }
            }
        }
    }
}
