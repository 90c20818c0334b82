//! A case as data.

use std::fmt;

use futures_util::future::BoxFuture;
use oncue::transport::Capabilities;

use crate::{Bench, Failure};

/// Why a transport with these capabilities cannot be asked this, if it cannot.
pub type Needs = fn(&Capabilities) -> Option<&'static str>;

/// What a case does.
pub type Run = for<'bench> fn(&'bench Bench) -> BoxFuture<'bench, Result<(), Failure>>;

/// One case of the catalogue.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its number in the catalogue, from 1.
    pub number: u8,
    /// What it is about.
    pub name: &'static str,
    /// The clauses of the delivery contract that it tests.
    pub clauses: &'static [&'static str],
    /// What it needs of a transport.
    pub needs: Needs,
    /// What it does; nothing if it is not in the suite yet.
    pub run: Option<Run>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("number", &self.number).field("name", &self.name).finish_non_exhaustive()
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// Small sizes: for each change.
    #[default]
    Fast,
    /// The sizes of the catalogue.
    Full,
}
