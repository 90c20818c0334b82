//! A program's log, the apps that serve it, and what happens to them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Bus, Clock, PausedClock, Timestamp,
    handler::Registration,
    transport::{DeadLetter, LogTransport, LogUrl},
};
use oncue_log::{Options, Writer, storage::FaultyStorage};
use parking_lot::Mutex;

use super::{
    flaws::Flaw,
    handler::{number_of, registration},
    known::{AppNumber, Model, Number, id_of},
    program::{Operation, Program},
    watched::Watched,
};

/// Longer than anything that a program waits for.
pub(super) const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// An app that serves the subscriptions.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) bus: Bus,
    pub(super) number: AppNumber,
}

pub(super) struct World {
    pub(super) program: Program,
    pub(super) flaw: Option<Flaw>,
    pub(super) time: PausedClock,
    pub(super) storage: FaultyStorage,
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) app: Option<Running>,
    /// Another app that serves the same subscriptions of the same log.
    pub(super) twin: Option<Running>,
    /// A paused handler's subscription was removed: the handler keeps orders that another app would not come with.
    pub(super) estranged: bool,
    next_app: AppNumber,
    /// How many apps have the log open.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) next: Number,
    /// A dead letter that was being resolved when the power went.
    pub(super) in_doubt: Option<(usize, Number)>,
    /// After how many turns the next thing is done, if it is not to wait until all rests.
    pub(super) hurry: Option<usize>,
}

impl World {
    pub(super) fn new(program: Program, flaw: Option<Flaw>, told: bool) -> Self {
        let time = PausedClock::new(Timestamp::from_micros(1_000_000_000_000)).unwrap();
        let storage = FaultyStorage::new(program.seed);
        let model = Arc::new(Mutex::new(Model::new(program.clone(), (flaw, told), time.clock(), storage.clone())));
        Self {
            program,
            flaw,
            time,
            storage,
            model,
            app: None,
            twin: None,
            estranged: false,
            next_app: 0,
            open: Arc::default(),
            next: 0,
            in_doubt: None,
            hurry: None,
        }
    }

    /// A subscription's handler in an app.
    pub(super) fn registration(&self, which: usize, app: AppNumber) -> Registration {
        registration(which, &self.program.subscriptions[which], app, &self.clock(), &self.model)
    }

    pub(super) fn clock(&self) -> Clock {
        self.time.clock()
    }

    /// Opens the log, however often the power goes meanwhile.
    pub(super) async fn open(&mut self) {
        loop {
            match self.try_open().await {
                Ok(()) if self.storage.is_on() => {
                    self.reconcile();
                    self.rest().await;
                    return;
                }
                Err(error) if self.storage.is_on() => {
                    self.broken(&format!("cannot open: {error}"));
                    return;
                }
                _ => {
                    self.gone().await;
                    self.storage = self.storage.crash();
                }
            }
        }
    }

    async fn try_open(&mut self) -> Result<(), String> {
        let options =
            Options { segment_bytes: 8 << 10, checkpoint_bytes: 2 << 10, writer: Writer::Inline, ..Options::default() };
        let retention = if self.program.forever { "forever" } else { "settled" };
        let feed_from = if self.program.fed { 1 } else { 8 };
        let url: LogUrl =
            format!("memory:?retention={retention}&delayed_held=2&feed_from={feed_from}").parse().unwrap();
        let transport = LogTransport::on_storage(url, Box::new(self.storage.clone()), options, self.clock());
        {
            let mut model = self.model.lock();
            model.transport = Some(Arc::new(transport.map_err(|error| error.to_string())?));
            model.storage = self.storage.clone();
            model.had_two = self.program.twin;
        }
        self.open.store(0, Ordering::SeqCst);
        self.estranged = false;
        self.app = Some(self.start().await?);
        if self.program.twin {
            self.twin = Some(self.start().await?);
        }
        Ok(())
    }

    /// Another app on the log.
    pub(super) async fn start(&mut self) -> Result<Running, String> {
        self.next_app += 1;
        let number = self.next_app;
        if self.flaw == Some(Flaw::Closed) && number > 1 {
            return Err("it is flawed".to_owned());
        }
        let log = {
            let mut model = self.model.lock();
            model.apps.insert(number);
            for served in &mut model.served {
                // Until it is known what is remembered, everything may be called.
                served.apps.entry(number).or_default().serves = true;
                served.apps.entry(number).or_default().concurrency = usize::MAX;
            }
            model.transport.clone().ok_or("the log is gone")?
        };
        self.open.fetch_add(1, Ordering::SeqCst);
        let (model, open) = (Arc::clone(&self.model), Arc::clone(&self.open));
        let transport = Watched { log, model, open, slow_states: self.program.slow_states, flaw: self.flaw };
        let mut app = App::with_transport(Arc::new(transport), self.clock());
        for which in 0..self.program.subscriptions.len() {
            app = app.on(self.registration(which, number));
        }
        let bus = app.start().await.map_err(|error| error.to_string())?;
        let running = Running { bus, number };
        self.notice(&running);
        Ok(running)
    }

    /// Tells the model what an app serves.
    pub(super) fn notice(&self, app: &Running) {
        let handlers: BTreeMap<String, _> =
            app.bus.handlers().into_iter().map(|handler| (handler.id.clone(), handler.options)).collect();
        let mut model = self.model.lock();
        for which in 0..self.program.subscriptions.len() {
            // What is joined is paused together.
            let is_paused = |joined| handlers.get(&id_of(joined)).is_some_and(|options| options.paused);
            let options = handlers.get(&id_of(which));
            let in_app = model.served[which].apps.entry(app.number).or_default();
            in_app.stops_since = None;
            in_app.serves = options.is_some() && !self.program.joined(which).any(is_paused);
            in_app.concurrency = options.map_or(0, |options| options.concurrency);
            if self.flaw == Some(Flaw::Crowded) {
                in_app.concurrency = in_app.concurrency.saturating_sub(1);
            }
        }
    }

    /// What the log says became of the events.
    fn reconcile(&mut self) {
        let Some(app) = &self.app else { return };
        let mut model = self.model.lock();
        if self.program.forever {
            for (position, event) in app.bus.inspect().browse("events", 0, usize::MAX).unwrap_or_default() {
                model.see(number_of(&event), position, &event);
            }
        }
        model.after_crash(self.in_doubt.take());
    }

    pub(super) fn broken(&self, what: &str) {
        self.model.lock().broken(what);
    }

    /// Lets everything run that can; then, if the power is on, everything that ended is durable.
    async fn rest(&mut self) {
        self.time.settle().await;
        if self.storage.is_on() && self.app.is_some() {
            let mut model = self.model.lock();
            model.at_rest();
            for (which, served) in model.served.iter().enumerate() {
                let numbers = |kept: &[(Number, u32)]| kept.iter().map(|(number, _)| *number).collect::<Vec<_>>();
                let known = served.kept.iter().filter(|(_, kept)| !kept.is_empty());
                let known: Vec<_> = known.map(|(key, kept)| (key.clone(), numbers(kept))).collect();
                let mut states: Vec<(String, Vec<Number>)> = self.states(which);
                states.sort();
                if states != known {
                    let what = format!("s{which} keeps {states:?}, and has acked {known:?}");
                    model.broken(&what);
                    break;
                }
            }
        }
    }

    fn states(&self, which: usize) -> Vec<(String, Vec<Number>)> {
        let states = self.app.as_ref().map(|app| app.bus.inspect().states(&id_of(which)).unwrap_or_default());
        let decode = |(key, value): (String, bytes::Bytes)| (key, serde_json::from_slice(&value).unwrap());
        states.unwrap_or_default().into_iter().map(decode).filter(|(_, kept): &(_, Vec<_>)| !kept.is_empty()).collect()
    }

    pub(super) fn dead(&self, which: usize) -> Vec<DeadLetter> {
        let letters = |app: &Running| app.bus.dead_letters(&id_of(which)).list().unwrap_or_default();
        self.app.as_ref().map(letters).unwrap_or_default()
    }

    /// The apps go, and the power with them.
    pub(super) async fn crash(&mut self) {
        self.model.lock().note("crash");
        self.gone().await;
        self.storage = self.storage.crash();
        self.open().await;
    }

    pub(super) async fn gone(&mut self) {
        {
            let mut model = self.model.lock();
            model.apps.clear();
            model.transport = None;
            model.served.iter_mut().for_each(|served| served.apps.clear());
        }
        (self.app, self.twin) = (None, None);
        // Their tasks end.
        self.time.settle().await;
    }

    pub(super) async fn operate(&mut self, operation: &Operation) {
        {
            let mut model = self.model.lock();
            let what = format!("{operation:?}");
            model.note(what.split("acts").next().unwrap_or_default());
        }
        if let Operation::Hurry(turns) = operation {
            self.hurry = Some(*turns);
            return;
        }
        let hurry = self.hurry.take();
        let done = tokio::select! {
            done = self.act(operation) => done.map_err(|error| error.to_string()),
            () = tokio::time::sleep(LONG) => Err("it never ends".to_owned()),
        };
        if let Err(error) = done
            && self.storage.is_on()
        {
            self.broken(&format!("{operation:?}: {error}"));
        }
        match hurry {
            Some(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            None => self.rest().await,
        }
        if !self.storage.is_on() {
            self.crash().await;
        }
    }
}
