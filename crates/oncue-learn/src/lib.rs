//! Small models that learn online: one example at a time, in memory that is bounded, and the same from the same examples
//! in the same order. No event, no clock, no thread, no random numbers.
//!
//! A [`Learner`] is a logistic or a linear model ([`Ftrl`], FTRL-proximal, over hashed [`Features`]) that forgets when the
//! world changes ([`Adwin`]), whose probabilities are [calibrated](Calibration), and that compares itself all the while
//! with what needs no learning: the base rate, or the mean. [`Bandit`] chooses among arms by context (`LinUCB`).
//!
//! ```
//! use oncue_learn::{Features, Learner, Loss, Verdict};
//!
//! let mut learner = Learner::new(Loss::Logistic);
//! for number in 0..400_u32 {
//!     let mut features = Features::default();
//!     features.category("bank", if number % 2 == 0 { "slow" } else { "fast" });
//!     features.number("cents", f64::from(number % 7));
//!     learner.learn(&features, f64::from(u8::from(number % 2 == 0)))?;
//! }
//! let mut slow = Features::default();
//! slow.category("bank", "slow");
//! assert!(learner.estimate(&slow) > 0.8);
//! assert_eq!(learner.progress().verdict(), Verdict::Better);
//! let state = learner.encode();
//! assert_eq!(Learner::decode(&state)?, learner);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adwin;
mod bandit;
mod calibration;
mod comparison;
mod features;
mod ftrl;
mod learner;
mod linucb;
mod moments;
mod progress;
mod ranks;
mod state;
pub mod synthetic;

pub use adwin::{Adwin, Change, DEFAULT_DELTA};
pub use bandit::{Arm, Bandit, BanditError, Choice, MAX_ARMS};
pub use calibration::{BINS, Bin, Calibration, Reliability};
pub use comparison::Comparison;
pub use features::{BITS, Feature, Features, MAX_FEATURES, hash};
pub use ftrl::{Ftrl, FtrlSettings};
pub use learner::{DRIFT_SHARE, LearnError, Learner, Loss};
pub use moments::Moments;
pub use progress::{Progress, Verdict};
pub use ranks::{RANKS_KEPT, Ranks};
pub use state::{STATE_VERSION, StateError};
