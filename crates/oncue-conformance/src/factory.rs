//! How the suite gets at the transport under test.

use std::{error::Error, path::PathBuf, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::{
    Clock, Observer,
    transport::{self, Transport},
};

/// A transport, or why there is none.
pub type Opened = Result<Arc<dyn Transport>, Box<dyn Error + Send + Sync>>;

/// Somebody who must not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intruder {
    /// With credentials that are wrong.
    WrongCredentials,
    /// Without credentials.
    NoCredentials,
    /// Without encryption, where it is asked for.
    NoTls,
}

/// What happens to the other end of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// The broker is stopped, and started again with what it kept.
    Restart,
    /// Every connection is cut.
    Cut,
}

/// Opens the transport under test.
///
/// A place is a name of letters, digits and `-`. One that is new is empty, and isolated from every other; opened again,
/// it holds what had been made durable. It may be opened again while the last holder is still going: then it answers
/// with an error, and is asked again.
pub trait Factory: Send + Sync + 'static {
    /// Opens the transport at a place.
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened>;

    /// Opens the transport at a place as somebody who must not get in.
    ///
    /// # Errors
    /// Why that cannot be tried.
    fn open_as(
        &self,
        intruder: Intruder,
        place: &str,
        clock: Clock,
    ) -> Result<BoxFuture<'static, Opened>, &'static str> {
        let _ = (intruder, place, clock);
        Err("nobody said how to get in where one must not: implement `Factory::open_as`")
    }

    /// An observer of the transport at a place, which others have open.
    ///
    /// # Errors
    /// Why there is none.
    fn observer(&self, place: &str, clock: Clock) -> Result<Observer, &'static str> {
        let _ = (place, clock);
        Err("nobody said how to look at it from outside: implement `Factory::observer`")
    }

    /// Does something to what is behind a transport that is open; completes when that is there again.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn disturb(&self, disturbance: Disturbance, place: &str) -> Result<BoxFuture<'static, ()>, &'static str> {
        let _ = (disturbance, place);
        Err("nobody said how: implement `Factory::disturb`")
    }
}

impl<F, Opening> Factory for F
where
    F: Fn(String, Clock) -> Opening + Send + Sync + 'static,
    Opening: Future<Output = Opened> + Send + 'static,
{
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened> {
        self(place.to_owned(), clock).boxed()
    }
}

/// Opens the transports that come with Oncue, by URLs.
#[derive(Clone, Debug)]
pub struct Urls {
    directory: Option<PathBuf>,
    options: String,
}

impl Urls {
    /// `memory:`: every opening is empty.
    #[must_use]
    pub fn memory() -> Self {
        Self { directory: None, options: String::new() }
    }

    /// `file:`: a directory per place, in this one.
    #[must_use]
    pub fn file(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), options: String::new() }
    }

    /// With the options of a URL, such as `?durability=os`.
    #[must_use]
    pub fn options(mut self, options: impl Into<String>) -> Self {
        self.options = options.into();
        self
    }

    /// The URL of a place.
    #[must_use]
    pub fn of(&self, place: &str) -> String {
        match &self.directory {
            Some(directory) => format!("file:{}{}", directory.join(place).display(), self.options),
            None => format!("memory:{}", self.options),
        }
    }
}

impl Factory for Urls {
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened> {
        let url = self.of(place);
        // Opening reads what the log says: off the runtime's threads.
        async move { Ok(tokio::task::spawn_blocking(move || transport::open(&url, clock)).await??) }.boxed()
    }

    fn open_as(&self, _: Intruder, _: &str, _: Clock) -> Result<BoxFuture<'static, Opened>, &'static str> {
        Err(
            "it has no connection to secure: it is in the process, and who may open a directory the operating system says",
        )
    }

    fn observer(&self, place: &str, clock: Clock) -> Result<Observer, &'static str> {
        if self.directory.is_none() {
            return Err("what is in memory has one process, and nobody else sees it");
        }
        let (url, looking) = (self.of(place), clock.clone());
        Ok(Observer::with(clock, move || transport::inspect(&url, &looking)))
    }

    fn disturb(&self, _: Disturbance, _: &str) -> Result<BoxFuture<'static, ()>, &'static str> {
        Err("it is in this process: there is nothing behind it")
    }
}
