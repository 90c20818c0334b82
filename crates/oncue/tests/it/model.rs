//! The dispatcher and its log against a model: random programs of publishing, failing, waiting, pausing, restarting and
//! crashing, on virtual time. The laws are in `model/laws.rs`.

mod handler;
mod laws;
mod program;

use std::{sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock, Envelope, PausedClock, Timestamp,
    config::HandlerConfig,
    transport::{DeadLetter, LogTransport, LogUrl, Settled},
};
use oncue_log::{Options, Writer, storage::FaultyStorage};
use parking_lot::Mutex;
use proptest::prelude::*;

use self::{
    handler::{number_of, registration},
    laws::{Life, Model, Number, echo, id_of},
    program::{New, Operation, Program, Resolve, program},
};

/// Longer than anything that a program waits for.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

struct World {
    program: Program,
    time: PausedClock,
    storage: FaultyStorage,
    model: Arc<Mutex<Model>>,
    bus: Option<Bus>,
    /// Another app that serves the same subscriptions of the same log.
    twin: Option<Bus>,
    next: Number,
    /// A dead letter that was being resolved when the power went.
    in_doubt: Option<(usize, Number)>,
}

impl World {
    fn new(program: Program) -> Self {
        let time = PausedClock::new(Timestamp::from_micros(1_000_000_000_000)).unwrap();
        let storage = FaultyStorage::new(program.seed);
        let model = Arc::new(Mutex::new(Model::new(program.clone(), time.clock(), storage.clone())));
        Self { program, time, storage, model, bus: None, twin: None, next: 0, in_doubt: None }
    }

    fn clock(&self) -> Clock {
        self.time.clock()
    }

    /// Opens the log, however often the power goes meanwhile.
    async fn open(&mut self) {
        loop {
            match self.try_open().await {
                Ok(bus) => {
                    self.bus = Some(bus);
                    self.reconcile();
                    self.rest().await;
                    return;
                }
                Err(error) if self.storage.is_on() => {
                    self.broken(&format!("cannot open: {error}"));
                    return;
                }
                Err(_) => self.storage = self.storage.crash(),
            }
        }
    }

    async fn try_open(&mut self) -> Result<Bus, String> {
        let options =
            Options { segment_bytes: 8 << 10, checkpoint_bytes: 2 << 10, writer: Writer::Inline, ..Options::default() };
        let retention = if self.program.forever { "forever" } else { "settled" };
        let url: LogUrl = format!("memory:?retention={retention}&delayed_held=2").parse().unwrap();
        let transport = LogTransport::on_storage(url, Box::new(self.storage.clone()), options, self.clock());
        let transport = Arc::new(transport.map_err(|error| error.to_string())?);
        let life = {
            let mut model = self.model.lock();
            model.transport = Some(Arc::clone(&transport));
            model.storage = self.storage.clone();
            model.life
        };
        for which in 0..self.program.subscriptions.len() {
            // Until it is known what is remembered, everything may be called.
            let mut model = self.model.lock();
            (model.served[which].paused, model.served[which].attached) = (false, true);
            model.attach(which);
        }
        if self.program.twin {
            self.twin = Some(self.start(Arc::clone(&transport), life).await?);
        }
        self.start(transport, life).await
    }

    async fn start(&self, transport: Arc<LogTransport>, life: Life) -> Result<Bus, String> {
        let mut app = App::with_transport(transport, self.clock());
        for (which, config) in self.program.subscriptions.iter().enumerate() {
            app = app.on(registration(which, config, life, &self.clock(), &self.model));
        }
        app.start().await.map_err(|error| error.to_string())
    }

    /// What was remembered, and what the log says became of the events.
    fn reconcile(&mut self) {
        let Some(bus) = &self.bus else { return };
        let mut model = self.model.lock();
        let handlers = bus.handlers();
        for (which, handler) in handlers.iter().enumerate() {
            // What is joined is paused together.
            model.served[which].paused = self.program.joined(which).any(|joined| handlers[joined].options.paused);
            model.served[which].concurrency = handler.options.concurrency * self.program.instances();
        }
        if self.program.forever {
            for (position, event) in bus.inspect().browse("events", 0, usize::MAX).unwrap_or_default() {
                model.see(number_of(&event), position, &event);
            }
        }
        model.after_crash(self.in_doubt.take());
    }

    fn broken(&self, what: &str) {
        self.model.lock().broken(what);
    }

    /// Lets everything run that can; then, if the power is on, everything that ended is durable.
    async fn rest(&mut self) {
        self.time.settle().await;
        if self.storage.is_on() && self.bus.is_some() {
            let mut model = self.model.lock();
            model.at_rest();
            for (which, served) in model.served.iter().enumerate() {
                let known = served.kept.iter().filter(|(_, kept)| !kept.is_empty());
                let known: Vec<_> = known.map(|(key, kept)| (key.clone(), kept.clone())).collect();
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
        let states = self.bus.as_ref().map(|bus| bus.inspect().states(&id_of(which)).unwrap_or_default());
        let decode = |(key, value): (String, bytes::Bytes)| (key, serde_json::from_slice(&value).unwrap());
        states.unwrap_or_default().into_iter().map(decode).filter(|(_, kept): &(_, Vec<_>)| !kept.is_empty()).collect()
    }

    fn dead(&self, which: usize) -> Vec<DeadLetter> {
        self.bus.as_ref().map(|bus| bus.dead_letters(&id_of(which)).list().unwrap_or_default()).unwrap_or_default()
    }

    /// The app goes, and the power with it.
    async fn crash(&mut self) {
        self.model.lock().note("crash");
        self.gone().await;
        self.storage = self.storage.crash();
        self.open().await;
    }

    async fn gone(&mut self) {
        {
            let mut model = self.model.lock();
            model.life += 1;
            model.transport = None;
        }
        (self.bus, self.twin) = (None, None);
        // Its tasks end.
        self.time.settle().await;
    }

    async fn operate(&mut self, operation: &Operation) {
        {
            let mut model = self.model.lock();
            model.operation += 1;
            let what = format!("{operation:?}");
            model.note(what.split("acts").next().unwrap_or_default());
        }
        let done = tokio::select! {
            done = self.act(operation) => done.map_err(|error| error.to_string()),
            () = tokio::time::sleep(LONG) => Err("it never ends".to_owned()),
        };
        if let Err(error) = done
            && self.storage.is_on()
        {
            self.broken(&format!("{operation:?}: {error}"));
        }
        self.rest().await;
        if !self.storage.is_on() {
            self.crash().await;
        }
    }

    async fn act(&mut self, operation: &Operation) -> oncue::Result<()> {
        let Some(bus) = self.bus.clone() else { return Ok(()) };
        // What two apps say of their handlers must be the same: it is not changed then.
        let exists = |which: &usize| *which < self.program.subscriptions.len() && self.twin.is_none();
        match operation {
            Operation::Publish(events) => self.publish(&bus, events).await?,
            Operation::Advance(seconds) => self.time.advance(Duration::from_secs(*seconds)).await,
            Operation::Pause(which) if exists(which) && self.is_attached(*which) => {
                bus.pause(&id_of(*which)).await?;
                self.pause(*which, true);
            }
            Operation::Resume(which) if exists(which) && self.is_attached(*which) => {
                let others = self.program.joined(*which).filter(|other| other != which);
                let rests = others.clone().any(|other| self.is_paused_itself(&bus, other));
                self.pause(*which, rests);
                self.model.lock().attach(*which);
                bus.resume(&id_of(*which)).await?;
            }
            Operation::Concurrency(which, concurrency) if exists(which) && self.is_attached(*which) => {
                let before = self.model.lock().served[*which].concurrency;
                let options = HandlerConfig { concurrency: Some(*concurrency), ..HandlerConfig::default() };
                self.model.lock().served[*which].concurrency = before.max(*concurrency);
                self.model.lock().attach(*which);
                bus.configure(&id_of(*which), options).await?;
                self.model.lock().served[*which].concurrency = *concurrency;
            }
            Operation::Unsubscribe(which) if exists(which) && self.is_attached(*which) && self.is_alone(*which) => {
                bus.unsubscribe(&id_of(*which)).await?;
                self.model.lock().served[*which].attached = false;
            }
            Operation::Subscribe(which) if exists(which) && !self.is_attached(*which) => {
                self.model.lock().served[*which].attached = true;
                self.model.lock().attach(*which);
                let life = self.model.lock().life;
                let config = &self.program.subscriptions[*which];
                bus.subscribe(registration(*which, config, life, &self.clock(), &self.model)).await?;
            }
            Operation::Resolve(which, letter, resolve) if *which < self.program.subscriptions.len() => {
                self.resolve(&bus, *which, *letter, *resolve).await?;
            }
            Operation::Idle => bus.idle().await?,
            Operation::Restart if self.twin.is_none() => {
                bus.shutdown().await?;
                drop(bus);
                self.gone().await;
                self.open().await;
            }
            Operation::PowerOffAt(nth) => self.storage.power_off_at(*nth),
            Operation::Crash => {
                drop(bus);
                self.crash().await;
            }
            _ => {}
        }
        Ok(())
    }

    fn is_attached(&self, which: usize) -> bool {
        self.model.lock().served[which].attached
    }

    fn is_alone(&self, which: usize) -> bool {
        self.program.joined(which).len() == 1
    }

    fn is_paused_itself(&self, bus: &Bus, which: usize) -> bool {
        bus.handlers().iter().any(|handler| handler.id == id_of(which) && handler.options.paused)
    }

    /// What is joined is paused together.
    fn pause(&self, which: usize, paused: bool) {
        for joined in self.program.joined(which) {
            self.model.lock().served[joined].paused = paused;
        }
    }

    async fn publish(&mut self, bus: &Bus, events: &[New]) -> oncue::Result<()> {
        let mut envelopes = Vec::new();
        let first = self.next;
        for (number, new) in (first..).zip(events) {
            self.model.lock().publish(number, new);
            envelopes.push(envelope(number, new));
            self.next += 1;
        }
        let receipts = bus.publish_all("events", envelopes.clone(), None).await?;
        let mut model = self.model.lock();
        for ((number, receipt), envelope) in (first..).zip(receipts).zip(&envelopes) {
            model.see(number, receipt.position(), envelope);
        }
        Ok(())
    }

    async fn resolve(&mut self, bus: &Bus, which: usize, letter: usize, resolve: Resolve) -> oncue::Result<()> {
        let dead = self.dead(which);
        let Some(letter) = dead.get(letter % dead.len().max(1)) else { return Ok(()) };
        let number = number_of(&letter.envelope);
        let letters = bus.dead_letters(&id_of(which));
        // It may be handled before we are told that it can be.
        let before = self.model.lock().tracks[&(which, number)].clone();
        self.model.lock().resolved(which, number, resolve);
        let done = match resolve {
            Resolve::Redrive => letters.redrive(letter.position).await,
            Resolve::Edit => letters.edit(letter.position, |event| event.extension("edited", "yes")).await,
            Resolve::Discard => letters.discard(letter.position).await,
        };
        if done.is_err() {
            self.model.lock().tracks.insert((which, number), before);
            self.in_doubt = Some((which, number));
        }
        done
    }

    /// All is resumed and redriven: in the end everything is settled.
    async fn finish(&mut self) {
        self.storage.power_off_at(u64::MAX / 2);
        for which in 0..self.program.subscriptions.len() {
            self.operate(&Operation::Subscribe(which)).await;
            self.operate(&Operation::Resume(which)).await;
        }
        for _ in 0..20 {
            self.operate(&Operation::Idle).await;
            let mut dead = false;
            for which in 0..self.program.subscriptions.len() {
                while !self.dead(which).is_empty() {
                    dead = true;
                    self.operate(&Operation::Resolve(which, 0, Resolve::Redrive)).await;
                    self.operate(&Operation::Idle).await;
                    if self.model.lock().verdict().is_err() {
                        return;
                    }
                }
            }
            if !dead {
                self.all_is_settled();
                return;
            }
        }
        self.broken("dead letters without end");
    }

    fn all_is_settled(&self) {
        let mut model = self.model.lock();
        let mut broken = Vec::new();
        for (number, known) in model.events.iter().filter(|(_, known)| known.certain) {
            for which in (0..self.program.subscriptions.len()).filter(|which| model.takes(*which, *number)) {
                let track = model.tracks.get(&(which, *number)).cloned().unwrap_or_default();
                let gave_up = |before: usize| model.tracks.get(&(before, *number)).is_some_and(|track| track.was_dead);
                let ended = match model.settled(which, *number) {
                    Some(Settled::Acked) => track.acked || track.discarded,
                    Some(Settled::Expired) => known.expires.is_some(),
                    Some(Settled::Skipped) => (self.program.joined(which).start..which).any(gave_up),
                    _ => false,
                };
                if !ended {
                    broken.push(format!("s{which} and {number}: {:?} {track:?}", model.settled(which, *number)));
                }
            }
        }
        for what in broken {
            model.broken(&what);
        }
        drop(model);
        self.each_emitted_once();
    }

    fn each_emitted_once(&self) {
        let Some(bus) = self.bus.as_ref().filter(|_| self.program.forever) else { return };
        let events = bus.inspect().browse("events", 0, usize::MAX).unwrap_or_default();
        let mut emitted: Vec<Number> = events.iter().map(|(_, event)| number_of(event)).collect();
        let count = emitted.len();
        emitted.sort_unstable();
        emitted.dedup();
        if emitted.len() != count {
            self.broken("an event was emitted twice");
        }
        for (which, number) in self.model.lock().emitting() {
            if emitted.binary_search(&echo(number, which)).is_err() {
                self.broken(&format!("s{which} has acked {number}, and what it emitted is lost"));
            }
        }
    }
}

fn envelope(number: Number, new: &New) -> Envelope {
    let mut envelope = Envelope::builder("step").data(number.to_string());
    if let Some(key) = new.key {
        envelope = envelope.key(format!("k{key}"));
    }
    if let Some(seconds) = new.delay {
        envelope = envelope.delay(Duration::from_secs(seconds));
    }
    if let Some(seconds) = new.time_to_live {
        envelope = envelope.time_to_live(Duration::from_secs(seconds));
    }
    if let Some(priority) = new.priority {
        envelope = envelope.priority(priority);
    }
    envelope.build().unwrap()
}

/// Runs a program; what went wrong, with all that happened.
fn run(program: &Program) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(program.clone());
        world.open().await;
        for operation in &program.operations {
            world.operate(operation).await;
            world.model.lock().verdict()?;
        }
        world.finish().await;
        world.model.lock().verdict()
    })
}

fn config() -> ProptestConfig {
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 150_000,
        ..ProptestConfig::default()
    };
    // As many as the environment says (PROPTEST_CASES), else a few seconds.
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 200, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_laws_hold_whatever_happens(program in program()) {
        run(&program).map_err(TestCaseError::fail)?;
    }
}
