//! The whole suite on the transports that come with Oncue, and proof that it can fail.

mod broken;

use oncue_conformance::{Filter, Report, Reports, Suite, Tier};

fn assert_holds(report: &Report) {
    println!("{report}");
    let failed: Vec<String> =
        report.failures().map(|entry| format!("{} {}: {}", entry.case.number, entry.case.name, entry.reason)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    assert_holds(&Suite::memory().run(&Filter::all(), Tier::Fast).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let report = Suite::file(directory.path()).run(&Filter::all(), Tier::Fast).await;
    assert!(Reports(std::slice::from_ref(&report)).to_json().contains("\"46\""));
    assert_holds(&report);
}

/// As with many subscriptions, where one reader reads for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract_where_one_reader_feeds_all() {
    let suite = Suite::new("memory:?feed_from=1", |_place: String, clock| async move {
        Ok(oncue::transport::open("memory:?feed_from=1", clock)?)
    });
    assert_holds(&suite.run(&Filter::all(), Tier::Fast).await);
}
