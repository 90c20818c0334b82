//! Logs as a whole: read in full, dumped, copied, filled; and the logs that earlier versions left.

use std::{
    io::Cursor,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oncue::{
    App, Clock, Envelope, Timestamp,
    handler::{HandlerError, extract::Keyed},
    policy,
    prelude::*,
    transport::{
        LogTransport, LogUrl, OpenError, Publish, SourceMark, Transport,
        maintenance::{self, DumpFilter, Import, ImportError, Imported, InvalidLine, Verified},
    },
};
use oncue_log::{Options, storage::FileStorage};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "entry.made", key = account)]
struct Entry {
    account: String,
    amount: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "entry.booked", key = account)]
struct Booked {
    account: String,
    total: u64,
}

/// Adds up what each account has; gives up on `bad`, and tries `late` again in a year.
#[handler(retry = policy::fixed(Duration::from_secs(365 * 86_400)), emits(Booked))]
async fn ledger(entry: Entry, mut total: Keyed<u64>) -> Result<Booked, HandlerError> {
    match entry.account.as_str() {
        "bad" => Err(HandlerError::reject("no such account")),
        "late" => Err(HandlerError::transient("not yet")),
        _ => {
            *total += entry.amount;
            Ok(Booked { account: entry.account, total: *total })
        }
    }
}

/// Segments that a few events fill.
fn small() -> Options {
    Options { segment_bytes: 16 << 10, checkpoint_bytes: 8 << 10, ..Options::default() }
}

fn transport(directory: &Path) -> Arc<LogTransport> {
    let url = LogUrl::file(directory).dedup_window(Duration::from_secs(3_600), 500);
    let storage = Box::new(FileStorage::open(directory).unwrap());
    Arc::new(LogTransport::on_storage(url, storage, small(), Clock::system()).unwrap())
}

fn entry(account: &str, amount: u64) -> Envelope {
    let time = Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(amount).unwrap());
    let entry = Entry { account: account.to_owned(), amount };
    Envelope::of(&entry)
        .unwrap()
        .into_builder()
        .source("/bank")
        .id(format!("{account}-{amount}"))
        .time(time)
        .build()
        .unwrap()
}

/// Writes a log with something of everything: 60 entries and 57 that follow, states, two dead letters of which one is given up,
/// a retry, a source, a checkpoint with records behind it; and is closed.
async fn write(directory: &Path) {
    let log = transport(directory);
    let bus = App::with_transport(log.clone(), Clock::system()).on(ledger).start().await.unwrap();
    let mut entries: Vec<Envelope> = (0..57).map(|number| entry(&format!("a{}", number % 5), number)).collect();
    entries.extend([entry("bad", 57), entry("bad", 58), entry("late", 59).into_builder().priority(7).build().unwrap()]);
    let source = Some(SourceMark { id: "statements".to_owned(), place: "60".to_owned() });
    let batch = Publish { topic: "events".into(), events: entries, source };
    log.publish(&batch).await.unwrap();
    loop {
        let (topic, known) = (&bus.inspect().topics()[0], &bus.inspect().subscriptions()[0]);
        // What was emitted last is there, is also read, and is found to be for nobody.
        let all_read = (topic.next_offset, known.lag) == (117, 1);
        if all_read && (known.stats.acked, known.dead, known.retrying) == (57, 2, 1) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let first = bus.dead_letters("ledger").list().unwrap()[0].position;
    bus.dead_letters("ledger").discard(first).await.unwrap();
    bus.shutdown().await.unwrap();
    drop((bus, log));
    // Behind the checkpoint of closing, and without another.
    let log = transport(directory);
    let batch = Publish { topic: "notes".into(), events: vec![entry("a0", 60)], source: None };
    log.publish(&batch).await.unwrap();
    log.log().close(1).unwrap();
}

/// Asserts that a log is what [`write`] leaves.
fn expect_all(directory: &Path) {
    let log = LogTransport::snapshot(&LogUrl::file(directory), &Clock::system()).unwrap();
    let topics: Vec<_> =
        log.topics().into_iter().map(|topic| (topic.name, topic.partitions, topic.next_offset)).collect();
    assert_eq!(topics, [("events".to_owned(), 16, 117), ("notes".to_owned(), 16, 1)]);
    let events = log.browse("events", 0, 200).unwrap();
    for (number, (position, event)) in (0..60).zip(&events) {
        assert_eq!((position.offset(), event.source()), (number, "/bank"));
        let made: Entry = serde_json::from_slice(event.data()).unwrap();
        assert_eq!((made.amount, event.id()), (number, format!("{}-{number}", made.account).as_str()));
        assert_eq!(event.key(), Some(made.account.as_str()));
        assert_eq!(event.time().unwrap().as_micros(), 1_700_000_000_000_000 + i64::try_from(number).unwrap());
    }
    assert_eq!(events[59].1.priority(), 7);
    assert!(events[60..].iter().all(|(_, event)| event.event_type() == "entry.booked" && event.hops() == 1));
    let [known] = &log.subscriptions()[..] else { panic!("one subscription") };
    assert_eq!((known.id.as_str(), &known.types[..]), ("ledger", &["entry.made".to_owned()][..]));
    assert_eq!((known.dead, known.retrying, known.lag), (1, 1, 1));
    assert_eq!((known.stats.acked, known.stats.dead, known.stats.retried), (57, 2, 1));
    let [letter] = &log.dead_letters("ledger").unwrap()[..] else { panic!("one dead letter") };
    assert_eq!((letter.envelope.id(), letter.history[0].error.as_str()), ("bad-58", "no such account"));
    let mut states = log.states("ledger").unwrap();
    states.sort();
    let total = |account: u64| (0..57).filter(|number| number % 5 == account).sum::<u64>().to_string();
    let expected: Vec<_> = (0..5).map(|account| (format!("a{account}"), total(account).into_bytes().into())).collect();
    assert_eq!(states, expected);
    let source = log.source("statements");
    assert_eq!((source.place.as_str(), source.accepted), ("60", 60));
}

fn dumped(directory: &Path, filter: &DumpFilter) -> Vec<String> {
    let mut lines = Vec::new();
    let dumped = maintenance::dump(directory, filter, &mut |line| {
        lines.push(line.json.to_owned());
        ControlFlow::Continue(())
    });
    assert_eq!(dumped.unwrap().damaged, 0);
    lines
}

fn verified(directory: &Path) -> Verified {
    maintenance::verify(directory, &mut |_| {}).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1").join(name)
}

/// What the present version writes has what every kept log must have. With `ONCUE_KEEP_LOG=DIR`, it is kept there: a backup, and
/// its dump. That is how `tests/fixtures/log-v1` was made; a new version of the format gets a directory of its own beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_now_has_everything_that_kept_logs_have() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    write(&directory).await;
    expect_all(&directory);
    let verified = verified(&directory);
    assert!(verified.log.is_whole() && verified.log.clean && verified.log.segments.len() > 1, "{verified:?}");
    for kind in ["event", "settle", "retry", "dead_letter", "keyed_state", "event_type", "subscription", "source"] {
        assert!(verified.kinds[kind] > 0, "{kind}");
    }
    assert_eq!((verified.kinds["discard"], verified.kinds["window"], verified.kinds["topic"]), (1, 1, 2));
    let kept = std::env::var_os("ONCUE_KEEP_LOG").map_or_else(|| scratch.path().join("kept"), PathBuf::from);
    let made = maintenance::backup(&directory, &kept.join("backup"), Timestamp::from_micros(0), &mut |_| {}).unwrap();
    assert_eq!(
        (made.verification.records(), made.manifest.next_lsn),
        (verified.log.records(), verified.log.next_lsn())
    );
    let lines = dumped(&directory, &DumpFilter::default());
    std::fs::write(kept.join("dump.ndjson"), lines.join("\n") + "\n").unwrap();
    assert_eq!(dumped(&kept.join("backup"), &DumpFilter::default()), lines, "a copy says the same");
}

#[tokio::test]
async fn a_kept_log_of_version_1_opens_and_has_everything() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    maintenance::restore(&fixture("backup"), &directory, &mut |_| {}).unwrap();
    assert!(verified(&directory).log.is_whole());
    expect_all(&directory);
    let kept = std::fs::read_to_string(fixture("dump.ndjson")).unwrap();
    assert_eq!(dumped(&directory, &DumpFilter::default()), kept.lines().collect::<Vec<_>>());
    // It goes on: what it knows it knows again, and what is new comes behind.
    let log = LogTransport::open(&LogUrl::file(&directory), Clock::system()).unwrap();
    let batch = Publish { topic: "events".into(), events: vec![entry("a0", 99)], source: None };
    assert_eq!(log.publish(&batch).await.unwrap()[0].position.offset(), 117);
    log.close().await.unwrap();
    drop(log);
    assert!(verified(&directory).log.is_whole());
}

#[test]
fn a_newer_format_is_refused_by_name_and_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    maintenance::restore(&fixture("backup"), &directory, &mut |_| {}).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    names.sort();
    let mut bytes = std::fs::read(&names[0]).unwrap();
    bytes[8] = 2;
    std::fs::write(&names[0], &bytes).unwrap();
    let error = LogTransport::open(&LogUrl::file(&directory), Clock::system()).err().unwrap();
    assert!(matches!(error, OpenError::Log(oncue_log::OpenError::Unsupported { offset: 0, .. })), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("format version 2") && told.contains("open it with the version that wrote it"), "{told}");
    assert_eq!(std::fs::read(&names[0]).unwrap(), bytes);
    let verified = verified(&directory);
    assert!(verified.log.damage[0].reason.contains("format version 2"), "{verified:?}");
}

#[test]
fn a_dump_is_cut_down_by_topic_kind_and_number() {
    let all = dumped(&fixture("backup"), &DumpFilter::default());
    let with = |filter: DumpFilter| dumped(&fixture("backup"), &filter);
    let field = |line: &String, name: &str| serde_json::from_str::<Value>(line).unwrap()[name].clone();
    let notes = with(DumpFilter { topic: Some("notes".to_owned()), ..DumpFilter::default() });
    let kinds: Vec<Value> = notes.iter().map(|line| field(line, "kind")).collect();
    assert_eq!(kinds, ["topic", "event"]);
    let letters = with(DumpFilter { kinds: vec!["dead_letter".to_owned()], ..DumpFilter::default() });
    assert_eq!(letters.len(), 2);
    assert_eq!(
        (field(&letters[0], "subscription"), field(&letters[0], "event_type")),
        ("ledger".into(), "entry.made".into())
    );
    assert_eq!(field(&letters[0], "event")["id"], "bad-57");
    let range = with(DumpFilter { from: Some(10), to: Some(13), ..DumpFilter::default() });
    assert_eq!(range.iter().map(|line| field(line, "lsn")).collect::<Vec<_>>(), [10, 11, 12]);
    assert!(range.iter().all(|line| all.contains(line)));
}

#[tokio::test]
async fn a_dump_names_what_was_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let log = transport(directory.path());
    let events = (0..3).map(|amount| entry("a", amount)).collect();
    log.publish(&Publish { topic: "notes".into(), events, source: None }).await.unwrap();
    let topic = log.log().topics()[0].id;
    let dropped = log.log().drop_events(topic, 2, 0).unwrap();
    log.close().await.unwrap();
    drop(log);
    let filter = DumpFilter { kinds: vec!["drop".to_owned()], ..DumpFilter::default() };
    let [line] = &dumped(directory.path(), &filter)[..] else { panic!("one line") };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["lsn"], &line["topic"], &line["first_offset"]),
        (&dropped.lsn.into(), &"notes".into(), &2.into())
    );
    let verified = verified(directory.path());
    assert_eq!((verified.log.damaged, verified.kinds["drop"]), (0, 1));
}

#[test]
fn info_tells_what_holds_the_log() {
    let info = maintenance::info(&fixture("backup"), &Clock::system()).unwrap();
    let verified = verified(&fixture("backup"));
    assert_eq!(info.log_id, verified.log.log_id);
    assert_eq!((info.next_lsn, info.segments.len()), (verified.log.next_lsn(), verified.log.segments.len()));
    assert_eq!(info.checkpoint.map(|known| known.lsn), verified.log.checkpoint);
    let topics: Vec<_> = info.topics.iter().map(|topic| (topic.name.as_str(), topic.subscriptions)).collect();
    assert_eq!(topics, [("events", 1), ("notes", 0)]);
    let [ledger, notes] = &info.holds[..] else { panic!("{:?}", info.holds) };
    // The entry that is to be tried again in a year.
    assert_eq!((ledger.subscription.as_deref(), ledger.offset, ledger.events), (Some("ledger"), 59, 1));
    assert_eq!((notes.subscription.as_deref(), notes.offset, notes.events), (None, 0, 1));
    assert_eq!((info.free_segments, info.free_bytes), (0, 0));
}

/// One entry that cannot be understood: its bytes hold, its meaning does not.
#[tokio::test]
async fn a_record_that_means_nothing_is_damage() {
    let scratch = tempfile::tempdir().unwrap();
    let log = transport(scratch.path());
    let mut batch = oncue_log::Batch::new();
    batch.state(17, &[b"\xff"]);
    log.log().append(&batch, 1).unwrap();
    batch.clear();
    batch.state(25, &[br#"&{"subscription":7,"offset":3,"more":0}"#]);
    log.log().append(&batch, 1).unwrap();
    log.log().close(1).unwrap();
    let verified = verified(scratch.path());
    let reasons: Vec<&str> = verified.log.damage.iter().map(|spot| spot.reason.as_str()).collect();
    assert_eq!(reasons.len(), 2, "{verified:?}");
    assert!(reasons[0].contains("malformed record") && reasons[1].contains("never made"), "{reasons:?}");
}

fn import(topic: &str) -> Import {
    Import { topic: topic.to_owned(), partitions: Some(4), skip_invalid: false, dry_run: false }
}

async fn imported(import: &Import, directory: &Path, lines: &str) -> (Result<Imported, ImportError>, Vec<InvalidLine>) {
    let mut invalid = Vec::new();
    let mut told = |line: &InvalidLine| invalid.push(line.clone());
    let done = import.run(directory, &mut Cursor::new(lines.as_bytes()), Clock::system(), &mut told).await;
    (done, invalid)
}

/// The lines of a topic.
fn exported(directory: &Path, topic: &str) -> String {
    let log = LogTransport::snapshot(&LogUrl::file(directory), &Clock::system()).unwrap();
    let events = log.browse(topic, 0, 10_000).unwrap();
    events.iter().map(|(_, event)| event.to_json_line() + "\n").collect()
}

#[tokio::test]
async fn events_are_imported_once_and_stay_as_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    let lines = exported(&fixture("backup"), "events");
    let dry = Import { dry_run: true, ..import("events") };
    let all = Imported { lines: 117, imported: 117, ..Imported::default() };
    assert_eq!(imported(&dry, &directory, &lines).await.0.unwrap(), all);
    assert!(!directory.exists(), "nothing was made");
    assert_eq!(imported(&import("events"), &directory, &lines).await.0.unwrap(), all);
    let again = Imported { lines: 117, duplicates: 117, ..Imported::default() };
    for import in [import("events"), dry] {
        assert_eq!(imported(&import, &directory, &lines).await.0.unwrap(), again);
    }
    assert_eq!(exported(&directory, "events"), lines);
    let log = LogTransport::snapshot(&LogUrl::file(&directory), &Clock::system()).unwrap();
    assert_eq!(log.topics()[0].partitions, 4);
    // Known by what the topic holds, not only by a window of time.
    let url = LogUrl::file(&directory).dedup_window(Duration::ZERO, 0);
    LogTransport::open(&url, Clock::system()).unwrap().close().await.unwrap();
    assert_eq!(imported(&import("events"), &directory, &lines).await.0.unwrap(), again);
    assert!(verified(&directory).log.is_whole());
}

#[tokio::test]
async fn a_line_that_is_no_event_is_named_and_what_came_before_it_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let good = |id: u32| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#);
    let lines = format!("{}\n\nno event\n{}\n{}\n{{}}", good(1), good(2), good(1));
    let (stopped, _) = imported(&import("events"), scratch.path(), &lines).await;
    let Err(ImportError::Invalid { invalid, imported: 1 }) = stopped else { panic!("{stopped:?}") };
    assert!(invalid.line == 3 && invalid.reason.contains("not a CloudEvents JSON object"), "{invalid}");
    let skipping = Import { skip_invalid: true, ..import("events") };
    let (done, invalid) = imported(&skipping, scratch.path(), &lines).await;
    assert_eq!(done.unwrap(), Imported { lines: 6, imported: 1, duplicates: 2, invalid: 2 });
    assert_eq!(invalid.iter().map(|line| line.line).collect::<Vec<_>>(), [3, 6]);
    assert!(invalid[1].reason.contains("specversion is missing"), "{}", invalid[1]);
    let wrong = imported(&import("no topic"), scratch.path(), "").await.0;
    assert!(matches!(wrong, Err(ImportError::TopicName(_))), "{wrong:?}");
    let long = "x".repeat(maintenance::MAX_LINE_BYTES + 10) + "\n" + &good(3) + "\n";
    let (done, invalid) = imported(&skipping, scratch.path(), &long).await;
    assert_eq!((done.unwrap().imported, invalid[0].line), (1, 1));
    assert!(invalid[0].reason.contains("longer than"), "{}", invalid[0]);
}

fn any_event() -> impl Strategy<Value = Envelope> {
    let data = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..40),
        "[ \t\r\n]{0,2}(\\{\"a\":[ \n]?1\\.50\\}|null|\"ü\"|12e3)[ \t\r\n]{0,2}".prop_map(String::into_bytes),
    ];
    let texts = ("[a-z0-9 ü\"]{1,8}", "/[a-z]{1,4}", "[a-z.]{1,6}", proptest::option::of("[a-zA-Z0-9ß]{1,6}"));
    (texts, data, proptest::option::of(any::<i32>()), proptest::option::of(0_u8..10), any::<bool>()).prop_map(
        |((id, source, event_type, subject), data, time, priority, text)| {
            let mut builder = Envelope::builder(event_type).id(id).source(source).data(data);
            if let Some(subject) = subject {
                builder = builder.subject(subject);
            }
            if let Some(time) = time {
                builder = builder.time(Timestamp::from_micros(i64::from(time) * 1_000_003));
            }
            if text {
                builder = builder.content_type("text/plain").extension("tenant", "x\"y");
            }
            if let Some(priority) = priority {
                builder = builder.priority(priority);
            }
            builder.build().unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn export_import_export_gives_the_same_lines(events in proptest::collection::vec(any_event(), 0..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| scratch.path().join(name));
        runtime.block_on(async {
            let log = LogTransport::open(&LogUrl::file(&one), Clock::system()).unwrap();
            log.publish(&Publish { topic: "events".into(), events, source: None }).await.unwrap();
            log.close().await.unwrap();
            let lines = exported(&one, "events");
            imported(&import("events"), &other, &lines).await.0.unwrap();
            if !lines.is_empty() {
                assert_eq!(exported(&other, "events"), lines);
            }
            let data = |directory: &Path| {
                let log = LogTransport::snapshot(&LogUrl::file(directory), &Clock::system()).unwrap();
                log.browse("events", 0, 100).unwrap_or_default().into_iter().map(|(_, event)| event.data().clone()).collect::<Vec<_>>()
            };
            assert_eq!(data(&one), data(&other));
        });
    }
}
