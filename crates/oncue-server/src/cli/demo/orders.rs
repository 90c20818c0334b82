//! `oncue demo orders`: the order system on a stream of events.

use std::path::PathBuf;

use clap::Args;
use tokio::sync::Notify;

use crate::{
    cli::{CommandError, interrupt::interrupted, print},
    orders::{self, DEFAULT_EVENTS, DEFAULT_SEED, Gateway, Input, OrdersError, Settings},
};

/// Run an order system on a stream of events, and tell what it found
///
/// Five handlers, each in order per order id and in parallel across orders: `track_order` keeps the state of each order,
/// `detect_anomaly` publishes `order.anomaly` where a step breaks the rule, `charge` calls a (simulated) payment gateway
/// with retries and dead letters, `notify_customer` comes after the first two, `daily_sales` sums up.
///
/// With --data everything is durable: run the same command again, after Ctrl-C or kill -9 at any moment, and it goes on
/// where it stopped, with the same report as a run that was never interrupted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue demo orders\n  \
                        oncue demo orders --input orders.ndjson --data ./orders-data\n  \
                        zcat orders.ndjson.gz | oncue demo orders --input - --json\n  \
                        oncue demo orders --gateway-failures 0.2 --seed 7\n  \
                        oncue demo orders --transport http://127.0.0.1:7700\n  \
                        oncue demo orders --transport nats://127.0.0.1:4222 --workers 4\n\n\
                        Exit codes: 0 all is done; 1 something failed, or the run was interrupted; 2 the arguments, the \
                        input or the directory cannot be used, or --strict met a malformed line.")]
pub(super) struct Orders {
    /// File of events, one JSON object a line (`CloudEvents` 1.0); `-` reads stdin. Without it, events are simulated
    #[arg(long, value_name = "FILE|-")]
    input: Option<PathBuf>,

    /// Directory to keep everything in; made if it does not exist. Without it, a temporary one that is removed at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// URL of what carries the events instead of a directory: `http://HOST:PORT` of `oncue serve`
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    transport: Option<String>,

    /// Run the handlers in so many processes of their own, which share the events; this one publishes, and reports. One
    /// that is killed is started again
    #[arg(long, value_name = "N", requires = "transport", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,

    /// Be one of these processes: run the handlers until stdin ends
    #[arg(long, hide = true, requires = "transport", conflicts_with_all = ["workers", "input", "events", "json", "strict"])]
    worker: bool,

    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,

    /// Share of calls to the payment gateway that fail, 0 to 1: most for a moment (retried), some for good (dead letters)
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    gateway_failures: f64,

    /// What all that is random comes from: the same seed gives the same simulation and the same failures
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SEED)]
    seed: u64,

    /// Stop at the first malformed line, with exit code 2, instead of reporting and counting it
    #[arg(long)]
    strict: bool,

    /// How many events to simulate
    #[arg(long, value_name = "N", default_value_t = DEFAULT_EVENTS, conflicts_with = "input")]
    events: u64,
}

fn probability(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is a number from 0 (never) to 1 (always), such as 0.2".to_owned())
}

impl Orders {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (json, is_worker) = (self.json, self.worker);
        let settings = self.settings();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::Runtime)?;
        let report = runtime.block_on(async {
            let first = Notify::new();
            // The first signal, whenever it comes, ends the run in good order; the second ends it now.
            let second = async {
                interrupted().await;
                first.notify_one();
                interrupted().await;
            };
            let running = async {
                if !is_worker {
                    return orders::run(settings, first.notified()).await.map(Some);
                }
                let gateway = Gateway::new(settings.gateway_failures, settings.seed);
                let url = settings.transport.unwrap_or_default();
                orders::work(url, gateway, first.notified()).await.map(|()| None)
            };
            tokio::select! {
                report = running => report,
                () = second => Err(OrdersError::Killed),
            }
        });
        // Not dropped: that would wait for a read of stdin that may never return.
        runtime.shutdown_background();
        match report? {
            Some(report) if json => print(&report.to_json()),
            Some(report) => print(&report.to_string()),
            None => Ok(()),
        }
    }

    fn settings(self) -> Settings {
        let input = match self.input {
            None => Input::Simulated { seed: self.seed, events: self.events },
            Some(path) if path.as_os_str() == "-" => Input::Stdin,
            Some(path) => Input::File(path),
        };
        Settings {
            input,
            data: self.data,
            transport: self.transport,
            workers: self.workers.map_or(0, usize::from),
            gateway_failures: self.gateway_failures,
            seed: self.seed,
            strict: self.strict,
        }
    }
}
