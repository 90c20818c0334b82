//! A file of events, one a line.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oncue::{
    App, Bus, Clock, Envelope, ManualClock,
    source::{self, Activity, FileSource},
    transport::{LogTransport, LogUrl},
};
use oncue_log::{Options, storage::FaultyStorage};

use super::{advance_until, asleep, events, in_memory, info, new_year, on, payloads, until};

fn line(number: usize) -> String {
    format!(r#"{{"specversion":"1.0","id":"{number}","source":"/shop","type":"sold","data":{number}}}"#) + "\n"
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

fn numbers(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

struct Input(tempfile::TempDir);

impl Input {
    fn new(text: &str) -> Self {
        let input = Self(tempfile::tempdir().unwrap());
        fs::write(input.path(), text).unwrap();
        input
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("input.ndjson")
    }

    fn append(&self, text: &str) {
        OpenOptions::new().append(true).open(self.path()).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

async fn read_to_the_end(app: App, source: FileSource) -> Bus {
    let bus = app.source(source).start().await.unwrap();
    bus.exhausted().await.unwrap();
    bus
}

#[tokio::test]
async fn a_file_is_read_once_however_often_the_app_is_dropped_in_the_middle() {
    let (input, data) = (Input::new(&lines(0..3_000)), tempfile::tempdir().unwrap());
    let clock = Clock::system();
    for _ in 0..3 {
        let bus = on(&data, &clock).await.source(source::file(input.path())).start().await.unwrap();
        until("a batch is published", || info(&bus).published > 0 || info(&bus).activity == Activity::Exhausted).await;
        // No shutdown: as if the process were gone.
        drop(bus);
    }
    input.append(&lines(3_000..3_010));
    let bus = read_to_the_end(on(&data, &clock).await, source::file(input.path())).await;
    assert_eq!(payloads(&bus, "events"), numbers(0..3_010));
    let id = format!("file:{}", input.path().display());
    let state = bus.inspect().source(&id);
    assert_eq!((state.accepted, state.duplicates), (3_010, 0), "nothing was even tried twice");
    bus.shutdown().await.unwrap();
}

/// Power lost at random writes: the place and the events are in one frame, so one is never without the other.
#[tokio::test]
async fn after_crashes_at_random_writes_each_line_is_one_event() {
    let text: String = (0..4_000).map(|number| format!("{number}\n")).collect();
    let input = Input::new(&text);
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut storage = FaultyStorage::new(seed);
        for _ in 0..4 {
            storage.power_off_at(random.u64(1..20));
            if let Some(bus) = start_on(&storage, &input.path()).await {
                let _ = bus.exhausted().await;
            }
            storage = storage.crash();
        }
        let bus = start_on(&storage, &input.path()).await.expect("without faults the log opens");
        bus.exhausted().await.unwrap();
        assert_eq!(payloads(&bus, "events"), numbers(0..4_000), "seed {seed}");
        assert_eq!(bus.inspect().source("numbers").duplicates, 0, "seed {seed}");
        bus.shutdown().await.unwrap();
    }
}

async fn start_on(storage: &FaultyStorage, input: &Path) -> Option<Bus> {
    let url: LogUrl = "memory:?retention=forever".parse().unwrap();
    let options = Options { segment_bytes: 64 << 10, checkpoint_bytes: 16 << 10, ..Options::default() };
    let transport = LogTransport::on_storage(url, Box::new(storage.clone()), options, Clock::system()).ok()?;
    let source = source::file(input).id("numbers").map(number);
    App::with_transport(Arc::new(transport), Clock::system()).source(source).start().await.ok()
}

fn number(line: &str) -> Result<Envelope, Box<dyn std::error::Error + Send + Sync>> {
    let number: u64 = line.parse()?;
    Ok(Envelope::builder("number").data(number.to_string()).build()?)
}

#[tokio::test]
async fn what_is_added_is_followed_and_a_torn_line_waits_for_its_end() {
    let input = Input::new("1\n2");
    let manual = ManualClock::new(new_year());
    let source = source::file(input.path()).map(number).follow(true).poll(Duration::from_secs(5));
    let bus = in_memory(&manual.clock()).source(source).start().await.unwrap();
    until("the first line", || payloads(&bus, "events") == ["1"]).await;
    asleep(&manual).await;
    input.append("3\n4\n5");
    let waited = advance_until(&manual, "the added lines", || payloads(&bus, "events") == ["1", "23", "4"]).await;
    assert!(waited >= Duration::from_secs(4), "{waited:?}");
    input.append("\n");
    advance_until(&manual, "the end of the last line", || payloads(&bus, "events") == ["1", "23", "4", "5"]).await;
    assert_eq!(info(&bus).activity, Activity::Running);
    bus.shutdown().await.unwrap();
    assert_eq!(info(&bus).activity, Activity::Stopped);
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_is_waited_for_and_a_rotated_one_read_to_its_end() {
    let input = Input::new("");
    fs::remove_file(input.path()).unwrap();
    let manual = ManualClock::new(new_year());
    let follow = || source::file(input.path()).map(number).follow(true);
    let data = tempfile::tempdir().unwrap();
    let bus = on(&data, &manual.clock()).await.source(follow()).start().await.unwrap();
    advance_until(&manual, "the source waits", || manual.clock().monotonic() > Duration::from_secs(3)).await;
    fs::write(input.path(), "1\n").unwrap();
    advance_until(&manual, "the first line", || payloads(&bus, "events") == ["1"]).await;
    // The last line of the old file has no end, and the new one begins as the old one did.
    input.append("2\n3");
    fs::rename(input.path(), input.0.path().join("old")).unwrap();
    fs::write(input.path(), "1\n").unwrap();
    advance_until(&manual, "the rest, and the new file", || payloads(&bus, "events") == ["1", "2", "3", "1"]).await;
    bus.shutdown().await.unwrap();
    drop(bus);
    // Replaced while nobody looked.
    fs::write(input.path(), "7\n8\n").unwrap();
    let bus = on(&data, &manual.clock()).await.source(follow()).start().await.unwrap();
    advance_until(&manual, "the next file", || payloads(&bus, "events")[4..] == ["7", "8"]).await;
    let ids: std::collections::HashSet<String> =
        events(&bus, "events").iter().map(|event| event.id().to_owned()).collect();
    assert_eq!(ids.len(), 6, "the same line in another file is another event");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn malformed_lines_are_counted_and_passed_by() {
    let mut text = line(0) + "\n" + "{\"id\": \n" + &line(1) + "  \r\n" + "true\n" + line(2).trim_end() + "\r\n";
    text.push_str(line(3).trim_end());
    let input = Input::new(&text);
    let source = source::file(input.path()).id("shop").topic("sales");
    let bus = read_to_the_end(in_memory(&Clock::system()), source).await;
    assert_eq!(payloads(&bus, "sales"), numbers(0..4), "a last line needs no end");
    let place: serde_json::Value = serde_json::from_str(&bus.inspect().source("shop").place).unwrap();
    assert_eq!((&place["malformed"], &place["lines"], &place["bytes"]), (&2.into(), &8.into(), &text.len().into()));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_strict_reading_stops_at_the_first_malformed_line_and_goes_on_when_it_is_mended() {
    let (input, data) = (Input::new(&(lines(0..700) + "oops\n" + &line(701))), tempfile::tempdir().unwrap());
    for _ in 0..2 {
        let app = on(&data, &Clock::system()).await;
        let bus = app.source(source::file(input.path()).strict()).start().await.unwrap();
        let error = bus.exhausted().await.unwrap_err().to_string();
        let place = format!("{}, line 701: not a CloudEvents JSON object", input.path().display());
        assert!(error.contains(&place) && error.contains(".strict()"), "{error}");
        assert_eq!(payloads(&bus, "events"), numbers(0..700));
        assert!(bus.check().is_ok(), "the app goes on");
        bus.shutdown().await.unwrap();
    }
    fs::write(input.path(), lines(0..702)).unwrap();
    let bus = read_to_the_end(on(&data, &Clock::system()).await, source::file(input.path()).strict()).await;
    assert_eq!(payloads(&bus, "events"), numbers(0..702));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn another_file_a_missing_one_and_a_directory_are_refused() {
    let (input, data) = (Input::new(&lines(0..10)), tempfile::tempdir().unwrap());
    let bus = read_to_the_end(on(&data, &Clock::system()).await, source::file(input.path())).await;
    bus.shutdown().await.unwrap();
    drop(bus);
    for (change, reason) in [(lines(1..10), "its first 10 lines are not those"), (String::new(), "has changed")] {
        fs::write(input.path(), change).unwrap();
        let app = on(&data, &Clock::system()).await;
        let bus = app.source(source::file(input.path())).start().await.unwrap();
        let error = bus.exhausted().await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        bus.shutdown().await.unwrap();
    }
    for (path, reason) in [(input.0.path().join("none"), "there is no file"), (input.0.path().into(), "is not a file")]
    {
        let bus = in_memory(&Clock::system()).source(source::file(&path)).start().await.unwrap();
        let error = bus.exhausted().await.unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(path.to_str().unwrap()), "{error}");
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_line_without_an_id_makes_the_same_event_each_time_and_a_panic_is_that_lines_own() {
    let input = Input::new("1\npanic\n1\n");
    let parse = |line: &str| {
        assert_ne!(line, "panic", "no number");
        number(line)
    };
    let mut ids = Vec::new();
    for _ in 0..2 {
        let source = source::file(input.path()).id("numbers").map(parse);
        let bus = read_to_the_end(in_memory(&Clock::system()), source).await;
        let events = events(&bus, "events");
        assert_eq!(payloads(&bus, "events"), ["1", "1"]);
        assert!(events.iter().all(|event| event.source() == "/oncue/numbers" && event.id_supplied()));
        ids.push(events.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>());
        bus.shutdown().await.unwrap();
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0][0], ids[0][1]);
}
