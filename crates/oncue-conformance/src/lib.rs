//! The delivery contract as an executable suite: 46 cases, each of which can fail, for any transport.
//!
//! A transport is given as a [`Factory`]: a closure that opens it by the name of a place. A place seen for the first
//! time is empty; opened again, it holds what was made durable there, which is how restarts are tested.
//!
//! ```
//! use oncue::transport;
//! use oncue_conformance::{Filter, Suite, Tier};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let suite = Suite::new("mine", |_place: String, clock: oncue::Clock| async move {
//!     Ok(transport::open("memory:", clock)?)
//! });
//! let report = suite.run(&Filter::only([1, 2]), Tier::Fast).await;
//! assert_eq!(report.failures().count(), 0, "{report}");
//! # }
//! ```
//!
//! A case that a transport cannot meet is *skipped with the reason*; so is one that needs what does not exist yet, even
//! if all that does exist held. Nothing passes by not being tested. Some cases need to be told how: what may be done to
//! the other end of a transport, and who must not get in ([`Factory::disturb`], [`Factory::open_as`]); whether several
//! instances share a subscription ([`Suite::instances`]); how other processes are started ([`Suite::worker`]), and how one
//! looks at a transport that they have open ([`Factory::observer`]).

mod bench;
mod case;
pub mod cases;
mod catalogue;
mod factory;
mod failure;
mod process;
mod remarks;
mod report;
mod seen;
mod suite;
pub mod tap;
pub mod worker;

pub use bench::Bench;
pub use case::{Case, Needs, Run, Tier};
pub use catalogue::{CATALOGUE, CATALOGUE_LEN};
pub use factory::{Disturbance, Factory, Intruder, Opened, Urls};
pub use failure::Failure;
pub use report::{Entry, Report, Reports, Verdict};
pub use seen::{Running, Seen, Step, noting};
pub use suite::{DEADLINE, Filter, Suite};
