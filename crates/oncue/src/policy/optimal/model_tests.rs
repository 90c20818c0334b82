//! The laws of the policy that is computed.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    super::{
        Attempts, Costs, Optimal, Tried, Trouble, optimal,
        outlook::Outlook,
        survival::{FIRST_S, Survival},
    },
    Move, Terms, World, solve,
};
use crate::{
    clock::Timestamp,
    policy::{Decision, ErrorClass, Failure, Policy},
};

fn failure(attempt: u32, class: ErrorClass, failing_for: f64) -> Failure<'static> {
    let age = Duration::from_secs_f64(failing_for);
    Failure { attempt, class, error: "no", age, failing_for: age, random: 0.0 }
}

/// Attempts as they would be recorded of events one after another, each of which fails until its trouble is over.
pub(super) struct Recorded {
    pub(super) attempts: Attempts,
    now: Timestamp,
}

impl Recorded {
    pub(super) fn new() -> Self {
        Self { attempts: Attempts::default(), now: Timestamp::from_micros(1_767_225_600_000_000) }
    }

    fn tried(&self, number: u32) -> Tried {
        Tried { number, read: self.now, ended: self.now }
    }

    /// An event whose trouble lasts so long, retried after these delays.
    pub(super) fn event(&mut self, class: ErrorClass, lasts: f64, delays: impl IntoIterator<Item = f64>) {
        self.now = self.now.after(Duration::from_secs(1));
        let began = self.now;
        let mut trouble: Option<Trouble> = self.attempts.failed(self.tried(1), class, None);
        for (number, delay) in (2..).zip(delays) {
            self.now = self.now.after(Duration::from_secs_f64(delay));
            let tried = self.tried(number);
            if self.now.since(began).as_secs_f64() >= lasts {
                self.attempts.worked(tried, trouble.as_ref());
                break;
            }
            trouble = self.attempts.failed(tried, class, trouble.as_ref());
        }
        // Others work meanwhile: nothing is down.
        self.works();
    }

    /// A first attempt that works.
    pub(super) fn works(&mut self) {
        self.attempts.worked(self.tried(1), None);
    }
}

/// The first delay that is chosen, in seconds; none if the event is given up.
fn first_delay(rules: &Optimal, attempts: &Attempts, class: ErrorClass) -> Option<f64> {
    let moves = rules.solve_events(attempts).unwrap().moves;
    match rules.follow(Some(&moves), &failure(1, class, 0.0)) {
        Decision::Retry(delay) => Some(delay.as_secs_f64()),
        Decision::DeadLetter => None,
    }
}

#[test]
fn of_what_passes_by_paretos_law_delays_grow_as_exponential_ones() {
    // With α = 1 the cost of N retries is δt₀Σ(rₙ − 1) + L/(t₀Πrₙ) where attempts are cheap: least where all rₙ are
    // (L/(δt₀))^(1/(N + 1)). Attempts are not quite free, and the grid is one of √2: within a factor of 1.5 each.
    let costs = Costs::default();
    for retries in [4, 7, 9] {
        let world = World { outlooks: vec![Outlook::of_passing(&Survival::default())], follows: vec![vec![1.0]] };
        let terms = Terms {
            success: 0.0,
            attempt: costs.attempt,
            delay_per_s: costs.delay_per_s,
            loss: costs.loss,
            attempts: retries + 1,
            steps: retries,
            max_delay_s: 86_400.0,
            deadline_s: f64::INFINITY,
            gives_up: true,
        };
        let moves = solve(world, terms).unwrap().moves;
        let growth = (costs.loss / (costs.delay_per_s * FIRST_S)).powf(1.0 / f64::from(retries + 1));
        let mut age = 0.0;
        for left in (1..=retries).rev() {
            let Some(Move::Retry(delay)) = moves.at(left, 0, age) else { panic!("given up with {left} left") };
            let ratio = (age + delay + FIRST_S) / (age + FIRST_S);
            assert!((growth / 1.5..growth * 1.5).contains(&ratio), "{retries} retries: {ratio}, not {growth}");
            age += delay;
        }
    }
}

/// How long an event is retried that keeps failing, in seconds, and the delays.
fn plan_of(rules: &Optimal, attempts: &Attempts, class: ErrorClass) -> (f64, Vec<f64>) {
    let moves = rules.solve_events(attempts).unwrap().moves;
    let (mut age, mut delays) = (0.0, Vec::new());
    while let Decision::Retry(delay) = rules.follow(Some(&moves), &failure(delays.len() as u32 + 1, class, age)) {
        delays.push(delay.as_secs_f64());
        age += delay.as_secs_f64();
    }
    (age, delays)
}

#[test]
fn where_failures_are_luck_or_never_end_nobody_waits_long() {
    let rules = optimal().jitter(0.0);
    let (before, delays) = plan_of(&rules, &Attempts::default(), ErrorClass::Transient);
    assert!(delays.len() == 9 && (60.0..300.0).contains(&before), "trouble may pass, or never end: {delays:?}");
    let mut recorded = Recorded::new();
    for _ in 0..60 {
        recorded.event(ErrorClass::Transient, 0.01, [0.03]);
        (0..8).for_each(|_| recorded.works());
    }
    let (_, delays) = plan_of(&rules, &recorded.attempts, ErrorClass::Transient);
    assert!(delays[0] < 0.03 && delays[1] < 0.06, "a tenth of all calls fails, by luck: {delays:?}");
    for _ in 0..40 {
        recorded.event(ErrorClass::Transient, f64::INFINITY, [0.03, 0.1, 0.5, 2.0, 8.0]);
        recorded.event(ErrorClass::Transient, 0.01, [0.03]);
        (0..8).for_each(|_| recorded.works());
    }
    let (lasts, delays) = plan_of(&rules, &recorded.attempts, ErrorClass::Transient);
    assert!(delays[0] < 0.1 && delays.iter().all(|delay| *delay < 60.0) && lasts < 300.0, "{delays:?}");
}

#[test]
fn who_is_throttled_waits_until_that_passes() {
    let mut recorded = Recorded::new();
    (0..40).for_each(|_| recorded.event(ErrorClass::Throttled, f64::INFINITY, [0.1, 0.5, 2.0, 8.0, 32.0]));
    let (lasts, delays) = plan_of(&optimal().jitter(0.0), &recorded.attempts, ErrorClass::Throttled);
    assert!(
        delays.len() == 9 && delays[0] > 1.0 && lasts > 120.0,
        "what many see at once is not their fault: {delays:?}"
    );
}

#[test]
fn trouble_that_is_soon_over_is_retried_soon_and_a_change_of_that_is_followed() {
    let rules = optimal().jitter(0.0).costs(Costs { attempt: 1.0, ..Costs::default() });
    let mut recorded = Recorded::new();
    let before = first_delay(&rules, &recorded.attempts, ErrorClass::Transient).unwrap();
    for _ in 0..100 {
        recorded.event(ErrorClass::Transient, 0.02, [0.05, 0.1, 0.2]);
    }
    let soon = first_delay(&rules, &recorded.attempts, ErrorClass::Transient).unwrap();
    assert!(soon < before && soon <= 0.08, "{soon}, before anything was known {before}");
    for _ in 0..200 {
        recorded.event(ErrorClass::Transient, 20.0, [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8]);
    }
    let later = first_delay(&rules, &recorded.attempts, ErrorClass::Transient).unwrap();
    assert!(later > 10.0, "the world changed: {later}");
    for _ in 0..200 {
        recorded.event(ErrorClass::Transient, 0.02, [later, later]);
    }
    // Only late retries are seen, which tell little of early ones: that they are tried again shows.
    let back = first_delay(&rules, &recorded.attempts, ErrorClass::Transient).unwrap();
    assert!(back < later / 4.0, "and changed back: {back}");
}

#[test]
fn what_never_works_is_given_up_early_and_classes_are_told_apart() {
    let rules = optimal().costs(Costs { attempt: 10.0, loss: 30.0, ..Costs::default() });
    let mut recorded = Recorded::new();
    for _ in 0..60 {
        recorded.event(ErrorClass::Panic, f64::INFINITY, [0.1, 0.5, 1.0, 5.0, 25.0]);
        recorded.event(ErrorClass::Throttled, 1.0, [0.5, 1.0]);
    }
    let first = |class| first_delay(&rules, &recorded.attempts, class);
    assert_eq!(first(ErrorClass::Panic), None, "an attempt costs 10, and never brings anything");
    assert!(first(ErrorClass::Throttled).is_some_and(|delay| (0.4..3.0).contains(&delay)));
    assert!(first_delay(&rules, &Attempts::default(), ErrorClass::Panic).is_some(), "that was not known before");
}

#[test]
fn with_more_attempts_or_a_worse_loss_no_state_is_worth_more_trouble() {
    let solved = optimal().solve_events(&Attempts::default()).unwrap();
    for values in solved.values.windows(2) {
        assert!(values[0].iter().zip(&values[1]).all(|(fewer, more)| more >= fewer), "an attempt more never hurts");
    }
    let dear = optimal().costs(Costs { loss: 7_200.0, ..Costs::default() }).solve_events(&Attempts::default()).unwrap();
    let pairs = solved.values.iter().flatten().zip(dear.values.iter().flatten());
    assert!(pairs.into_iter().all(|(cheap, dear)| dear <= cheap));
}

#[test]
fn costs_too_large_to_compare_leave_exponential_delays() {
    let rules =
        optimal().costs(Costs { success: 1e308, loss: 1.7e308, delay_per_s: 1e308, attempt: 1e308 }).jitter(0.0);
    assert!(rules.solve_events(&Attempts::default()).is_err());
    let exponential = rules.fallback();
    for attempt in 1..=10 {
        let failure = failure(attempt, ErrorClass::Timeout, 1.0);
        assert_eq!(rules.decide(&failure), exponential.decide(&failure));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_was_counted_the_bounds_hold(
        events in proptest::collection::vec((0_usize..6, 0.0..500.0_f64, proptest::collection::vec(0.0..300.0_f64, 0..6)), 0..40),
        (max_attempts, max_delay, deadline) in (0_u32..90, 0_u64..100_000_000, proptest::option::of(0_u64..500_000_000)),
        costs in (0.0..10.0_f64, 0.001..100.0_f64, 0.0001..10.0_f64, 0.0..1e5_f64),
        jitter in 0.0..=1.0_f64,
        failures in proptest::collection::vec((any::<u32>(), 0_usize..6, 0.0..1e6_f64, 0.0..1e6_f64, 0.0..1.0_f64), 1..30),
    ) {
        let mut recorded = Recorded::new();
        for (class, lasts, delays) in events {
            recorded.event(ErrorClass::ALL[class], lasts, delays);
        }
        let max_delay = Duration::from_micros(max_delay);
        let (success, attempt, delay_per_s, loss) = costs;
        let mut rules = optimal().costs(Costs { success, attempt, delay_per_s, loss }).max_attempts(max_attempts)
            .max_delay(max_delay).jitter(jitter);
        let deadline = deadline.map(Duration::from_micros);
        if let Some(deadline) = deadline { rules = rules.deadline(deadline); }
        let moves = rules.solve_events(&recorded.attempts).unwrap().moves;
        for (attempt, class, age, failing_for, random) in failures {
            let (class, attempt) = (ErrorClass::ALL[class], attempt % 100);
            let (age, failing_for) = (Duration::from_secs_f64(age), Duration::from_secs_f64(failing_for));
            let failure = Failure { attempt, class, error: "", age, failing_for, random };
            if let Decision::Retry(delay) = rules.follow(Some(&moves), &failure) {
                prop_assert!(delay <= max_delay && attempt < max_attempts && class.is_retryable());
                prop_assert!(deadline.is_none_or(|deadline| age + delay <= deadline));
            }
        }
    }
}
