//! The whole suite on the transports that come with Oncue, and proof that it can fail.

mod broken;
mod broker;
mod division;
mod table;

use std::{process::Command, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::Clock;
use oncue_conformance::{Factory, Filter, Intruder, Opened, Report, Reports, Suite, Tier, Urls, Verdict};

/// When a case counts as stuck: a machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

fn assert_holds(report: &Report) {
    println!("{report}");
    let failed: Vec<String> =
        report.failures().map(|entry| format!("{} {}: {}", entry.case.number, entry.case.name, entry.reason)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A second process.
fn worker(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance-worker"));
    command.arg(url);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let report = Suite::memory().deadline(DEADLINE).run(&Filter::all(), Tier::Fast).await;
    assert_holds(&report);
    table::assert_tells(&report, table::MEMORY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let places = directory.path().to_owned();
    let suite = Suite::file(directory.path()).deadline(DEADLINE);
    let suite = suite.worker(move |place| worker(&format!("file:{}", places.join(place).display())));
    let report = suite.run(&Filter::all(), Tier::Fast).await;
    assert!(Reports(std::slice::from_ref(&report)).to_json().contains("\"46\""));
    assert_holds(&report);
    table::assert_tells(&report, table::FILE);
}

/// As with many subscriptions, where one reader reads for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract_where_one_reader_feeds_all() {
    let suite = Suite::new("memory:?feed_from=1", Urls::memory().options("?feed_from=1")).instances(true);
    assert_holds(&suite.deadline(DEADLINE).run(&Filter::all(), Tier::Fast).await);
}

/// A transport that lets in nobody without the right credentials.
struct Guarded;

impl Factory for Guarded {
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened> {
        Urls::memory().open(place, clock)
    }

    fn open_as(&self, intruder: Intruder, _: &str, _: Clock) -> Result<BoxFuture<'static, Opened>, &'static str> {
        if intruder == Intruder::NoTls {
            return Err("it asks for no TLS");
        }
        Ok(std::future::ready(Err("access denied".into())).boxed())
    }
}

#[tokio::test]
async fn a_transport_that_refuses_intruders_is_secured() {
    let report = Suite::new("guarded:", Guarded).run(&Filter::only([30]), Tier::Fast).await;
    let entry = &report.entries[29];
    assert_eq!(entry.verdict, Verdict::Passed, "{}", entry.reason);
    assert!(entry.reason.contains("NoTls was not tried"), "{}", entry.reason);
}
