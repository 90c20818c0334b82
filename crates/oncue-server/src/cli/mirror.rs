//! `oncue mirror`: topics move from one transport to another.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use oncue::{
    Clock,
    transport::{BoxFuture, LogUrl, Transport},
};

use crate::{
    cli::{CommandError, interrupt::interrupted, print},
    mirror::{Mirror, MirrorError},
    number::grouped,
};

/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// Move topics from one transport to another, while events flow
///
/// Every event of FROM is published to the same topic of TO, with its id, source, key, time and every byte of its data, in the
/// order of its key; and so is each that comes, until Ctrl-C or, with --once, until there are no more. Then the apps can be
/// moved, one after the other: publishers to TO last.
///
/// How far it is, is kept at FROM as a subscription. Run the same command again, after Ctrl-C or kill -9 at any moment, and it
/// goes on from there: what it repeats is known at TO by its id, within the time for which TO knows ids.
///
/// What TO will never take (too large for a broker, say) is a dead letter at FROM. Delayed events move when they are due.
#[derive(Debug, Args)]
#[command(name = "mirror")]
#[command(after_help = "Examples:\n  \
                        oncue mirror file:./data nats://127.0.0.1:4222\n  \
                        oncue mirror http://127.0.0.1:7700 'amqp://user:password@127.0.0.1' --topic orders --topic payments\n  \
                        oncue mirror nats://127.0.0.1:4222 file:./copy --once --json\n\n\
                        Exit codes: 0 all is moved, or it was stopped; 1 something failed on the way, or TO refused events; 2 \
                        FROM or TO cannot be used.")]
pub(super) struct MirrorTopics {
    /// URL of the transport to read: `file:DIR`, `http://HOST:PORT`, `nats://…`, `amqp://…`
    #[arg(value_name = "FROM")]
    from: String,

    /// URL of the transport to publish to
    #[arg(value_name = "TO")]
    to: String,

    /// A topic to move; may be said more than once. Without it, all that there are at the start
    #[arg(long = "topic", value_name = "NAME")]
    topics: Vec<String>,

    /// What its subscriptions at FROM are called: NAME.TOPIC. Mirrors to different places need different names
    #[arg(long, value_name = "NAME", default_value = "mirror")]
    name: String,

    /// Stop when there is nothing more to move
    #[arg(long)]
    once: bool,

    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl MirrorTopics {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if self.from == self.to {
            return Err(MirrorError::Same(oncue_transports::without_secrets(&self.from)).into());
        }
        let log = self.from.parse::<LogUrl>();
        if log.is_ok_and(|log| log.directory().is_some_and(|directory| !directory.exists())) {
            // Opening it would make it.
            return Err(MirrorError::Empty(self.from).into());
        }
        let clock = Clock::system();
        let open = |which, url: &str| {
            let opened = oncue_transports::open(url, clock.clone());
            opened.map_err(|source| MirrorError::Open { which, source })
        };
        let (from, to) = (open("FROM", &self.from)?, open("TO", &self.to)?);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::Runtime)?;
        let ended = runtime.block_on(self.mirror((from, to), &clock));
        runtime.shutdown_timeout(Duration::ZERO);
        ended
    }

    async fn mirror(
        &self,
        (from, to): (Arc<dyn Transport>, Arc<dyn Transport>),
        clock: &Clock,
    ) -> Result<(), CommandError> {
        let began = clock.monotonic();
        let mirror = Mirror::new(Arc::clone(&from), Arc::clone(&to), clock.clone(), self.name.clone());
        let topics = mirror.topics(&self.topics)?;
        let moving = async {
            tokio::select! {
                ended = mirror.run(&topics, self.once) => ended,
                () = interrupted() => Ok(()),
                () = tell(&mirror, clock) => Ok(()),
            }
        };
        let moved = moving.await;
        let closing: BoxFuture<'_, ()> = Box::pin(async {
            for transport in [from, to] {
                if let Err(error) = transport.close().await {
                    tracing::warn!(%error, "a transport did not close");
                }
            }
        });
        tokio::select! {
            () = closing => {}
            () = interrupted() => return Err(MirrorError::Killed.into()),
        }
        moved?;
        print(&self.report(&mirror, clock.monotonic() - began))?;
        match mirror.moved().values().map(|moved| moved.refused).sum() {
            0 => Ok(()),
            refused => Err(MirrorError::Refused(refused, mirror.subscription("TOPIC")).into()),
        }
    }

    fn report(&self, mirror: &Mirror, took: Duration) -> String {
        let moved = mirror.moved();
        if self.json {
            let urls = [&self.from, &self.to].map(|url| oncue_transports::without_secrets(url));
            let report = serde_json::json!({
                "from": urls[0], "to": urls[1], "topics": moved, "seconds": took.as_secs_f64(),
            });
            return format!("{report}\n");
        }
        let mut report = String::new();
        for (topic, moved) in &moved {
            report += &format!(
                "{topic}: {} events moved ({} bytes), of which {} were there already; {} refused\n",
                grouped(moved.events),
                grouped(moved.bytes),
                grouped(moved.duplicates),
                grouped(moved.refused)
            );
        }
        report + &format!("in {:.1} s\n", took.as_secs_f64())
    }
}

/// Tells how far it is, again and again.
async fn tell(mirror: &Mirror, clock: &Clock) {
    loop {
        clock.sleep(TELL_EVERY).await;
        let moved: u64 = mirror.moved().values().map(|moved| moved.events).sum();
        // Nobody need read it.
        writeln!(io::stderr(), "{} events moved, {} to go", grouped(moved), grouped(mirror.to_go())).ok();
    }
}
