//! Sources: a file that is read on where an earlier run stopped, and a schedule.

use std::{fs::OpenOptions, io::Write as _, path::Path, time::Duration};

use oncue::{prelude::*, source};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "reading.taken", key = sensor)]
struct ReadingTaken {
    sensor: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "report.due")]
struct ReportDue(String);

#[handler]
async fn count(_reading: ReadingTaken, mut readings: Keyed<u32>) {
    *readings += 1;
}

#[handler]
async fn report(ReportDue(at): ReportDue, State(told): State<mpsc::Sender<String>>) {
    told.send(at).await.expect("it is waited for");
}

/// One run of a program that takes in what the file holds by now. Its place in the file is written with the events.
async fn run(data: &Path, file: &Path) -> oncue::Result<String> {
    let readings =
        source::file(file).map(|line| Envelope::of(&ReadingTaken::decode("reading.taken", line.as_bytes())?));
    let app = App::open(&format!("file:{}", data.display())).await?.on(count).source(readings).start().await?;
    app.exhausted().await?;
    app.idle().await?;
    let counts = app.inspect().states("count")?;
    app.shutdown().await?;
    Ok(format!("{counts:?}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let (data, file) = (directory.path().join("data"), directory.path().join("readings.ndjson"));
    for (number, expected) in [(1, r#"[("kitchen", b"1")]"#), (2, r#"[("kitchen", b"2")]"#)] {
        writeln!(OpenOptions::new().create(true).append(true).open(&file)?, r#"{{"sensor":"kitchen"}}"#)?;
        let counts = run(&data, &file).await?;
        println!("run {number}: {counts}, each reading counted once");
        assert_eq!(counts, expected);
    }

    // `source::cron("nightly", "0 3 * * *", …)` goes by the calendar.
    let reports = source::interval("reports", Duration::from_millis(50), |tick| ReportDue(tick.due.to_rfc3339()));
    let (told, mut reported) = mpsc::channel::<String>(8);
    let app = App::open("memory:").await?.state(told).on(report).source(reports).start().await?;
    println!("due at {:?} and at {:?}", reported.recv().await, reported.recv().await);
    Ok(app.shutdown().await?)
}
