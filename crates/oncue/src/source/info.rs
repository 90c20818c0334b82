//! The sources of a running app: started together, listed, stopped together.

use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};
use tracing::Instrument as _;

use super::{MAX_ID_BYTES, Source, SourceFailed, run::Outlet, run::Runner};
use crate::clock::Clock;

/// What a source does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Generates, or waits until there is something.
    Running,
    /// Waits after an error, to try again.
    Retrying {
        /// The error.
        error: String,
        /// How many attempts failed in a row.
        failures: u32,
    },
    /// There is nothing more, and everything that it wanted to know has been told.
    Exhausted,
    /// Given up, by an error that another attempt cannot help.
    Failed {
        /// The error.
        error: String,
    },
    /// Stopped with the app.
    Stopped,
}

/// A source as people see it. How far it has come is in [`Inspect::source`](crate::transport::Inspect::source).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its id.
    pub id: String,
    /// What it does.
    pub activity: Activity,
    /// Events that it generated in this run, duplicates included.
    pub published: u64,
    /// Those of them that had been published before.
    pub duplicates: u64,
}

/// What is wrong with the sources of an app, one text each.
pub(crate) fn problems(sources: &[Box<dyn Source>]) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let id = source.id();
        if id.is_empty() || id.len() > MAX_ID_BYTES || id.contains(char::is_control) {
            problems.push(format!(
                "source {id:?}: an id is 1 to {MAX_ID_BYTES} bytes without control characters; give it another one"
            ));
        }
        if sources[..index].iter().any(|earlier| earlier.id() == id) {
            problems.push(format!(
                "two sources have the id `{id}`, and would overwrite each other's place: give one of them another id"
            ));
        }
    }
    problems
}

/// The sources of a running app. Dropped without a stop, it ends them where they are, as a crash would.
pub(crate) struct Sources {
    tasks: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
    infos: Vec<watch::Receiver<SourceInfo>>,
    clock: Clock,
}

impl Sources {
    /// Starts them, a task each.
    pub(crate) fn start(sources: Vec<Box<dyn Source>>, outlet: &Outlet) -> Self {
        let mut tasks = JoinSet::new();
        let stop = watch::Sender::new(false);
        let mut infos = Vec::with_capacity(sources.len());
        for source in sources {
            let id = source.id().to_owned();
            let span = tracing::info_span!("source", %id);
            let info = watch::Sender::new(SourceInfo { id, activity: Activity::Running, published: 0, duplicates: 0 });
            infos.push(info.subscribe());
            tasks.spawn(Runner::new(source, outlet.clone(), info, stop.subscribe()).run().instrument(span));
        }
        Self { tasks: Mutex::new(tasks), stop, infos, clock: outlet.clock.clone() }
    }

    /// What they do, in the order of registration.
    pub(crate) fn list(&self) -> Vec<SourceInfo> {
        self.infos.iter().map(|info| info.borrow().clone()).collect()
    }

    /// Completes when all are exhausted or stopped.
    pub(crate) async fn exhausted(&self) -> Result<(), SourceFailed> {
        for info in &self.infos {
            let mut info = info.clone();
            let over = |info: &SourceInfo| !matches!(info.activity, Activity::Running | Activity::Retrying { .. });
            // Without a sender the task is gone, and what it said last is what it came to.
            let last = match info.wait_for(over).await {
                Ok(info) => info.activity.clone(),
                Err(_) => Activity::Stopped,
            };
            if let Activity::Failed { error } = last {
                return Err(SourceFailed { id: info.borrow().id.clone(), error });
            }
        }
        Ok(())
    }

    /// Lets them finish what they publish, at most `grace` long, and generate nothing more. Idempotent.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.stop.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        let ended = async { while tasks.join_next().await.is_some() {} };
        if let Either::Right(_) = select(std::pin::pin!(ended), self.clock.sleep(grace)).await {
            tracing::warn!("the grace time is over: sources that still publish are cancelled");
        }
        tasks.abort_all();
    }
}
