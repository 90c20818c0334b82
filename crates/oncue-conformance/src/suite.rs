//! Running the cases on a transport.

use std::{collections::BTreeSet, error::Error, path::PathBuf, process::Command, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use oncue::{Clock, transport::Capabilities};

use crate::{
    Bench, CATALOGUE, Case, Entry, Factory, Report, Tier, Urls, Verdict,
    bench::{Setup, Worker},
};

/// How long a case may take before it counts as stuck.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How many times as long a case may take with the sizes of the full tier.
const FULL_DEADLINES: u32 = 12;

/// Which cases to run.
#[derive(Clone, Debug, Default)]
pub struct Filter(Option<BTreeSet<u8>>);

impl Filter {
    /// Every case.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The cases with these numbers.
    #[must_use]
    pub fn only(numbers: impl IntoIterator<Item = u8>) -> Self {
        Self(Some(numbers.into_iter().collect()))
    }

    /// Whether a case is to be run.
    #[must_use]
    pub fn takes(&self, case: &Case) -> bool {
        self.0.as_ref().is_none_or(|numbers| numbers.contains(&case.number))
    }
}

/// Is told of each case when it ends.
type Observer = dyn Fn(&Entry) + Send + Sync;

/// The suite for one transport.
pub struct Suite {
    transport: String,
    factory: Arc<dyn Factory>,
    clock: Clock,
    deadline: Duration,
    instances: bool,
    observer: Option<Box<Observer>>,
    worker: Option<Worker>,
    seed: Option<u64>,
}

impl Suite {
    /// For a transport that the report calls so: `kafka:`.
    pub fn new(transport: impl Into<String>, factory: impl Factory) -> Self {
        let factory = Arc::new(factory);
        let (transport, clock) = (transport.into(), Clock::system());
        Self {
            transport,
            factory,
            clock,
            deadline: DEADLINE,
            instances: false,
            observer: None,
            worker: None,
            seed: None,
        }
    }

    /// For `memory:`.
    #[must_use]
    pub fn memory() -> Self {
        Self::new("memory:", Urls::memory()).instances(true)
    }

    /// For `file:`, in subdirectories of this one.
    #[must_use]
    pub fn file(directory: impl Into<PathBuf>) -> Self {
        Self::new("file:", Urls::file(directory)).instances(true)
    }

    /// The clock that transports, apps and deadlines go by; the system's without this.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How long a case may take in the fast tier (the full one gives 12 times as long); [`DEADLINE`] without this.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether several instances on one transport can share a subscription; not without this.
    #[must_use]
    pub fn instances(mut self, several: bool) -> Self {
        self.instances = several;
        self
    }

    /// Tells `observer` of each case when it ends, asked for or not. It is called between two cases: what it does takes no
    /// time of theirs.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Entry) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// What starts another process on the transport at a place: a program that calls [`worker::main`](crate::worker::main)
    /// or [`run`](crate::worker::run). The suite adds a [`Task`](crate::worker::Task) as the last argument.
    #[must_use]
    pub fn worker(mut self, command: impl Fn(&str) -> Command + Send + Sync + 'static) -> Self {
        self.worker = Some(Arc::new(command));
        self
    }

    /// What random choices follow from, to repeat a run that failed: its report names it. A new one each time without this.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Runs the cases one after the other, and reports every case of the catalogue.
    pub async fn run(&self, filter: &Filter, tier: Tier) -> Report {
        let capabilities = self.capabilities().await;
        let mut entries = Vec::with_capacity(CATALOGUE.len());
        for case in &CATALOGUE {
            let begun = self.clock.monotonic();
            let (verdict, reason) = match &capabilities {
                _ if !filter.takes(case) => (Verdict::Skipped, "not asked for".to_owned()),
                Ok(capabilities) => self.run_case(case, *capabilities, tier).await,
                Err(error) => (Verdict::Failed, format!("the transport does not open: {error}")),
            };
            let entry = Entry { case, verdict, reason, took: self.clock.monotonic().saturating_sub(begun) };
            if let Some(observer) = &self.observer {
                observer(&entry);
            }
            entries.push(entry);
        }
        Report { transport: self.transport.clone(), entries }
    }

    async fn capabilities(&self) -> Result<Capabilities, Box<dyn Error + Send + Sync>> {
        let transport = self.factory.open("capabilities", self.clock.clone()).await?;
        let capabilities = transport.capabilities();
        transport.close().await?;
        Ok(capabilities)
    }

    async fn run_case(&self, case: &'static Case, capabilities: Capabilities, tier: Tier) -> (Verdict, String) {
        if let Some(reason) = (case.needs)(&capabilities) {
            return (Verdict::Skipped, reason.to_owned());
        }
        let Some(run) = case.run else { return (Verdict::Skipped, "not in the suite yet".to_owned()) };
        let setup = Setup {
            factory: Arc::clone(&self.factory),
            clock: self.clock.clone(),
            capabilities,
            tier,
            instances: self.instances,
            worker: self.worker.clone(),
            seed: self.seed.unwrap_or_else(|| self.clock.now().as_micros().unsigned_abs()),
        };
        let bench = Arc::new(Bench::new(setup, format!("case-{}", case.number)));
        let running = Arc::clone(&bench);
        // A task of its own: a panic is the failure of this case alone.
        let task = tokio::spawn(async move { run(&running).await });
        let abort = task.abort_handle();
        let deadline = if tier == Tier::Full { FULL_DEADLINES * self.deadline } else { self.deadline };
        let ended = match select(task, self.clock.sleep(deadline)).await {
            Either::Left((ended, _)) => ended,
            Either::Right(((), _)) => {
                let reason = format!("stuck after {deadline:?}, waiting for: {}", bench.stuck());
                abort.abort();
                return (Verdict::Failed, reason);
            }
        };
        match ended {
            Ok(Ok(())) => bench.remarks().verdict(),
            Ok(Err(failure)) => (Verdict::Failed, bench.remarks().with_notes(&failure)),
            Err(panic) => (Verdict::Failed, format!("the case itself broke: {panic}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn an_observer_is_told_of_every_case_in_turn() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        let suite = Suite::memory().observe(move |entry| seen.lock().push((entry.case.number, entry.verdict)));
        let report = suite.run(&Filter::only([2]), Tier::Fast).await;
        let reported: Vec<_> = report.entries.iter().map(|entry| (entry.case.number, entry.verdict)).collect();
        assert_eq!(*told.lock(), reported);
        assert_eq!((reported.len(), reported[1]), (CATALOGUE.len(), (2, Verdict::Passed)));
    }
}
