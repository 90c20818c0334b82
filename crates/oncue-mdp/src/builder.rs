//! Building a model: every row is checked when it is given, and an error names its state and action.

use std::cmp::Ordering;

use thiserror::Error;

use crate::model::{Discount, Model, Timed};

/// How far the probabilities of a choice may be from 1 in sum.
const SUM_TOLERANCE: f64 = 1e-9;

/// How long the process stays before a transition, in the unit of time of the discount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sojourn {
    /// Always so long.
    Fixed(f64),
    /// So long on average, with an exponential distribution.
    Exponential(f64),
}

impl Sojourn {
    fn mean(self) -> f64 {
        match self {
            Self::Fixed(time) | Self::Exponential(time) => time,
        }
    }

    /// E[e^(−βτ)].
    fn discount(self, rate: f64) -> f64 {
        match self {
            Self::Fixed(time) => (-rate * time).exp(),
            Self::Exponential(mean) => 1.0 / (1.0 + rate * mean),
        }
    }
}

/// One line of a model: from a state, by an action, to a next state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Where it begins.
    pub state: usize,
    /// By which action.
    pub action: usize,
    /// Where it leads.
    pub next: usize,
    /// P(s′|s, a).
    pub probability: f64,
    /// The reward, if it happens.
    pub reward: f64,
    /// How long the process stays in the state before it.
    pub sojourn: Sojourn,
}

/// Why there is no model. States and actions are told by their names, as far as they have some.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ModelError {
    /// A model has a state at least.
    #[error("the model has no states: give it one at least")]
    NoStates,
    /// More than 2³² − 1 of something.
    #[error("the model has more than 4,294,967,295 {0}, which is the most")]
    TooLarge(&'static str),
    /// The discount is not one.
    #[error("a discount of {0} is none: per step it lies from 0 to 1, per unit of time it is above 0")]
    Discount(f64),
    /// Names and states, or names and actions, do not match.
    #[error("there are {names} names for {count} {what}: give one each")]
    Names {
        /// States or actions.
        what: &'static str,
        /// How many names.
        names: usize,
        /// How many it should be.
        count: usize,
    },
    /// A state's number is too large.
    #[error("there is no state {number}, as {whose}: the model has {states}, from 0 on")]
    UnknownState {
        /// Its number.
        number: usize,
        /// Who speaks of it.
        whose: String,
        /// How many there are.
        states: usize,
    },
    /// A state in which nothing can be done.
    #[error("state {state} has no action: a state that ends all needs one that leads back to it with reward 0")]
    NoAction {
        /// Which.
        state: String,
    },
    /// A choice was given twice.
    #[error("action {action} of state {state} is given twice: give each choice once, with all of its next states")]
    Twice {
        /// Of which state.
        state: String,
        /// Which action.
        action: String,
    },
    /// Choices did not come by ascending state.
    #[error("choices of state {state} come after those of state {after}: give them by ascending state")]
    Order {
        /// What came late.
        state: String,
        /// What it should have come before.
        after: String,
    },
    /// A probability is not one.
    #[error("action {action} of state {state} leads to {next} with probability {probability}: it must lie from 0 to 1")]
    Probability {
        /// In which state.
        state: String,
        /// By which action.
        action: String,
        /// Where it leads.
        next: String,
        /// What was given.
        probability: f64,
    },
    /// Probabilities do not make a whole.
    #[error("the probabilities of action {action} of state {state} are {sum} in sum: they must be 1")]
    Sum {
        /// In which state.
        state: String,
        /// By which action.
        action: String,
        /// What they are in sum.
        sum: f64,
    },
    /// A reward is no finite number.
    #[error("action {action} of state {state} has the reward {reward}: it must be finite")]
    Reward {
        /// In which state.
        state: String,
        /// By which action.
        action: String,
        /// What was given.
        reward: f64,
    },
    /// A sojourn is no time.
    #[error("action {action} of state {state} takes {time}: a time is finite and not below 0")]
    Time {
        /// In which state.
        state: String,
        /// By which action.
        action: String,
        /// What was given.
        time: f64,
    },
    /// A choice that takes no time, in a model that discounts by time.
    #[error("action {action} of state {state} takes no time, so that it is not discounted: give it some")]
    NoTime {
        /// In which state.
        state: String,
        /// By which action.
        action: String,
    },
}

/// Takes the choices of a model, state by state.
#[derive(Clone, Debug)]
pub struct ModelBuilder {
    model: Model,
    states: usize,
}

impl ModelBuilder {
    /// A model of so many states, none of which has a choice yet.
    pub fn new(states: usize, discount: Discount) -> Self {
        let timed = matches!(discount, Discount::PerTime(_)).then(Timed::default);
        let model = Model {
            state_names: Vec::new(),
            action_names: Vec::new(),
            discount,
            start: None,
            choices_of: vec![0],
            actions: Vec::new(),
            rewards: Vec::new(),
            first: vec![0],
            next: Vec::new(),
            probabilities: Vec::new(),
            timed,
            kept: (f64::INFINITY, 0.0),
        };
        Self { model, states }
    }

    /// Names the states, in order of their numbers.
    #[must_use]
    pub fn state_names(mut self, names: Vec<String>) -> Self {
        self.model.state_names = names;
        self
    }

    /// Names the actions, in order of their numbers.
    #[must_use]
    pub fn action_names(mut self, names: Vec<String>) -> Self {
        self.model.action_names = names;
        self
    }

    /// Where executing begins.
    #[must_use]
    pub fn start(mut self, state: usize) -> Self {
        self.model.start = Some(state);
        self
    }

    /// An action of a state: the expected reward, and each next state with its probability. Choices come by ascending
    /// state; where the model keeps times, it takes the time 1.
    ///
    /// # Errors
    ///
    /// If it is none; nothing of it is taken then.
    pub fn choice(
        &mut self,
        state: usize,
        action: usize,
        reward: f64,
        next: &[(usize, f64)],
    ) -> Result<&mut Self, ModelError> {
        self.add(state, action, reward, next.iter().map(|(next, probability)| (*next, *probability, None)))
    }

    /// A choice whose transitions take time.
    ///
    /// # Errors
    ///
    /// If it is none; nothing of it is taken then.
    pub fn timed_choice(
        &mut self,
        state: usize,
        action: usize,
        reward: f64,
        next: &[(usize, f64, Sojourn)],
    ) -> Result<&mut Self, ModelError> {
        self.add(state, action, reward, next.iter().map(|(next, p, sojourn)| (*next, *p, Some(*sojourn))))
    }

    /// Transitions in any order, each with a reward of its own; those of one state and action are one choice.
    ///
    /// # Errors
    ///
    /// As [`timed_choice`](Self::timed_choice).
    pub fn transitions(&mut self, mut all: Vec<Transition>) -> Result<&mut Self, ModelError> {
        all.sort_by_key(|transition| (transition.state, transition.action));
        let timed = all.iter().any(|transition| transition.sojourn != Sojourn::Fixed(1.0));
        for group in all.chunk_by(|one, other| (one.state, one.action) == (other.state, other.action)) {
            let Transition { state, action, .. } = group[0];
            let reward = group.iter().map(|transition| transition.probability * transition.reward).sum();
            let next = group
                .iter()
                .map(|one| (one.next, one.probability, (timed || self.keeps_time()).then_some(one.sojourn)));
            self.add(state, action, reward, next.collect::<Vec<_>>().into_iter())?;
        }
        Ok(self)
    }

    /// The model.
    ///
    /// # Errors
    ///
    /// What only the whole shows: a state without an action, a discount that is none, names that do not match.
    pub fn build(mut self) -> Result<Model, ModelError> {
        match self.model.discount {
            Discount::PerStep(factor) if !(0.0..=1.0).contains(&factor) => return Err(ModelError::Discount(factor)),
            Discount::PerTime(rate) if !(rate.is_finite() && rate > 0.0) => return Err(ModelError::Discount(rate)),
            Discount::PerStep(_) | Discount::PerTime(_) => {}
        }
        if self.states == 0 {
            return Err(ModelError::NoStates);
        }
        self.pass_to(self.states)?;
        let actions = self.model.actions.iter().max().map_or(0, |most| *most as usize + 1);
        let named = [("states", &self.model.state_names, self.states), ("actions", &self.model.action_names, actions)];
        for (what, names, count) in named {
            // There may be names for actions that nobody chooses.
            let fits = if what == "states" { names.len() == count } else { names.len() >= count };
            if !names.is_empty() && !fits {
                return Err(ModelError::Names { what, names: names.len(), count });
            }
        }
        if let Some(number) = self.model.start.filter(|start| *start >= self.states) {
            let whose = "where the model starts".to_owned();
            return Err(ModelError::UnknownState { number, whose, states: self.states });
        }
        for choice in 0..self.model.choices() {
            let kept = self.model.kept_by(choice);
            self.model.kept = (self.model.kept.0.min(kept), self.model.kept.1.max(kept));
        }
        Ok(self.model)
    }

    fn keeps_time(&self) -> bool {
        self.model.timed.is_some()
    }

    /// The state whose choices are being given.
    fn current(&self) -> usize {
        self.model.choices_of.len() - 1
    }

    /// Ends the states before this one.
    fn pass_to(&mut self, state: usize) -> Result<(), ModelError> {
        let choices = narrow(self.model.choices(), "choices")?;
        while self.current() < state {
            if self.model.choices_of.last() == Some(&choices) {
                return Err(ModelError::NoAction { state: self.label(self.current()) });
            }
            self.model.choices_of.push(choices);
        }
        Ok(())
    }

    fn add(
        &mut self,
        state: usize,
        action: usize,
        reward: f64,
        next: impl Iterator<Item = (usize, f64, Option<Sojourn>)> + Clone,
    ) -> Result<&mut Self, ModelError> {
        self.check(state, action, reward, next.clone())?;
        match state.cmp(&self.current()) {
            Ordering::Less => {
                return Err(ModelError::Order { state: self.label(state), after: self.label(self.current()) });
            }
            Ordering::Equal => {}
            Ordering::Greater => self.pass_to(state)?,
        }
        let action_number = narrow(action, "actions")?;
        let given = self.model.choices_of.last().map_or(0, |first| *first as usize);
        if self.model.actions[given..].contains(&action_number) {
            return Err(ModelError::Twice { state: self.label(state), action: self.action_label(action) });
        }
        let model = &mut self.model;
        // The first choice that takes its time makes all take some: those before took 1.
        if model.timed.is_none() && next.clone().any(|(.., sojourn)| sojourn.is_some()) {
            model.timed = Some(Timed { mean: vec![1.0; model.actions.len()], ..Timed::default() });
        }
        let mut mean = 0.0;
        for (next, probability, sojourn) in next {
            let sojourn = sojourn.unwrap_or(Sojourn::Fixed(1.0));
            model.next.push(narrow(next, "states")?);
            model.probabilities.push(probability);
            mean += probability * sojourn.mean();
            if let (Discount::PerTime(rate), Some(timed)) = (model.discount, &mut model.timed) {
                timed.discounted.push(probability * sojourn.discount(rate));
            }
        }
        if let Some(timed) = &mut model.timed {
            timed.mean.push(mean);
        }
        model.actions.push(action_number);
        model.rewards.push(reward);
        model.first.push(narrow(model.next.len(), "transitions")?);
        Ok(self)
    }

    /// Whether a row is right by itself.
    fn check(
        &self,
        state: usize,
        action: usize,
        reward: f64,
        next: impl Iterator<Item = (usize, f64, Option<Sojourn>)>,
    ) -> Result<(), ModelError> {
        let states = self.states;
        let (name, action) = (|| self.label(state), || self.action_label(action));
        if state >= states {
            return Err(ModelError::UnknownState { number: state, whose: "one that has an action".to_owned(), states });
        }
        if !reward.is_finite() {
            return Err(ModelError::Reward { state: name(), action: action(), reward });
        }
        let (mut sum, mut moves) = (0.0, false);
        for (next, probability, sojourn) in next {
            if next >= states {
                let whose = format!("next of action {} of state {}", action(), name());
                return Err(ModelError::UnknownState { number: next, whose, states });
            }
            if !(0.0..=1.0).contains(&probability) {
                let next = self.label(next);
                return Err(ModelError::Probability { state: name(), action: action(), next, probability });
            }
            let time = sojourn.map_or(1.0, Sojourn::mean);
            if !(time.is_finite() && time >= 0.0) {
                return Err(ModelError::Time { state: name(), action: action(), time });
            }
            sum += probability;
            moves |= probability > 0.0 && time > 0.0;
        }
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(ModelError::Sum { state: name(), action: action(), sum });
        }
        if !moves {
            return Err(ModelError::NoTime { state: name(), action: action() });
        }
        Ok(())
    }

    fn label(&self, state: usize) -> String {
        label(&self.model.state_names, state)
    }

    fn action_label(&self, action: usize) -> String {
        label(&self.model.action_names, action)
    }
}

/// A name in quotes, or a number.
fn label(names: &[String], index: usize) -> String {
    names.get(index).map_or_else(|| index.to_string(), |name| format!("`{name}`"))
}

fn narrow(number: usize, what: &'static str) -> Result<u32, ModelError> {
    u32::try_from(number).map_err(|_| ModelError::TooLarge(what))
}
