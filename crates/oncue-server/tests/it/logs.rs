//! `oncue log`, on directories of the order system.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    interrupts::Waiting,
    looking::{array, by, text, told},
    program::{Ended, ONCUE, Scratch, lives, oncue, orders, run, run_on},
};

/// A directory with something of everything, and what the run says of it.
fn written(scratch: &Scratch) -> (String, Value) {
    let data = scratch.argument("data");
    let report = run(&["--events", "500", "--gateway-failures", "0.3", "--data", &data]).report();
    (data, report)
}

/// `oncue log` on a directory.
fn log(data: &str, arguments: &[&str]) -> Ended {
    oncue(&[&["log"], arguments, &["--data", data]].concat())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// The first segment of a log, with one byte changed.
fn damage(data: &str, at: usize) -> String {
    let mut names: Vec<String> = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".seg"))
        .collect();
    names.sort();
    let path = Path::new(data).join(&names[0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    names.swap_remove(0)
}

#[test]
fn a_whole_log_is_verified_described_and_dumped() {
    let scratch = Scratch::new();
    let (data, report) = written(&scratch);
    let verified = told(&data, &["log", "verify"]);
    assert_eq!(
        (&verified["whole"], &verified["damaged"], &verified["closed"]),
        (&true.into(), &0.into(), &true.into())
    );
    let anomalies = number(&report["anomalies"]["total"]);
    let topics = by(&verified["topics"], "name");
    assert_eq!((&topics["events"]["events"], number(&topics["anomalies"]["events"])), (&500.into(), anomalies));
    assert_eq!(verified["kinds"]["dead_letter"], report["handlers"]["charge"]["dead"]);
    let table = log(&data, &["verify"]);
    assert_eq!((table.code, table.stderr.as_str()), (Some(0), ""));
    assert!(table.stdout.contains("Everything holds: 1 segment, "), "{table:?}");

    let info = told(&data, &["log", "info"]);
    assert_eq!((&info["log_id"], &info["next_lsn"]), (&verified["log_id"], &verified["next_lsn"]));
    assert_eq!((&info["format"], &info["checkpoint"]["lsn"]), (&1.into(), &verified["checkpoint"]));
    let held = array(&info["holds"]);
    assert_eq!((held.len(), &held[0]["topic"], &held[0]["subscription"]), (1, &"anomalies".into(), &Value::Null));
    assert!(log(&data, &["info"]).stdout.contains("(no subscription)"));

    let dump = log(&data, &["dump"]);
    assert_eq!(dump.code, Some(0));
    assert_eq!(dump.stdout, log(&data, &["dump"]).stdout, "the same log, the same bytes");
    let lines: Vec<Value> = dump.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count() as u64;
    for (kind, count) in verified["kinds"].as_object().unwrap() {
        assert_eq!(of(kind), number(count), "{kind}");
    }
    let numbers: Vec<u64> =
        lines.iter().filter(|line| line["kind"] != "checkpoint").map(|line| number(&line["lsn"])).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
    let only = log(&data, &["dump", "--kind", "dead_letter,retry", "--from", "600"]).stdout;
    assert!(only.lines().all(|line| dump.stdout.contains(line)) && only.contains("\"dead_letter\""));
    log(&data, &["dump", "--kind", "nonsense"]).refused(&["nonsense", "dead_letter"]);
}

#[test]
fn damage_is_named_and_what_is_whole_is_dumped() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let file = damage(&data, 5_000);
    let verified = log(&data, &["verify", "--json"]);
    assert_eq!(verified.code, Some(1));
    verified.says(&["1 spot is damaged", &data, "restore a backup"]);
    let told: Value = serde_json::from_str(&verified.stdout).unwrap();
    let [spot] = &array(&told["damage"])[..] else { panic!("{told:#}") };
    assert_eq!((text(&spot["file"]), &spot["reason"]), (file.as_str(), &"its checksum does not match".into()));
    let (from, bytes) = (number(&spot["offset"]), number(&spot["bytes"]));
    assert!(from <= 5_000 && 5_000 < from + bytes && number(&spot["records"]) > 0, "{spot}");
    let table = log(&data, &["verify"]);
    assert!(
        table.stdout.contains(&format!("DAMAGED {file} at offset {from}: its checksum does not match")),
        "{table:?}"
    );

    let dump = log(&data, &["dump"]);
    assert_eq!(dump.code, Some(1));
    let damaged: Vec<&str> = dump.stdout.lines().filter(|line| line.contains("\"kind\":\"damage\"")).collect();
    assert!(damaged.len() == 1 && dump.stdout.lines().count() > 500, "{damaged:?}");
    // The log itself is refused, as ever.
    let refused = oncue(&["stats", "--data", &data]);
    assert_eq!(refused.code, Some(1));
    refused.says(&["is damaged at offset"]);
}

#[test]
fn a_torn_end_is_told_and_no_damage() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let before = told(&data, &["log", "verify"]);
    let segment = &before["segments"][0];
    // The closing frame, half written.
    damage(&data, usize::try_from(number(&segment["used"])).unwrap() - 50);
    let verified = log(&data, &["verify"]);
    assert_eq!(verified.code, Some(0));
    assert!(
        verified.stdout.contains("ends torn at offset") && verified.stdout.contains("opening the log cuts"),
        "{verified:?}"
    );
    let torn = told(&data, &["log", "verify"]);
    assert_eq!((&torn["whole"], &torn["torn"]["file"]), (&true.into(), &segment["file"]));
    assert_eq!(torn["records"], before["records"]);
}

#[test]
fn a_backup_is_restored_and_says_the_same() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let [copy, restored] = ["copy", "restored"].map(|name| scratch.argument(name));
    let made = told(&data, &["log", "backup", &copy]);
    assert_eq!((&made["damaged"], &made["to"]), (&0.into(), &copy.as_str().into()));
    assert_eq!(log(&copy, &["verify"]).code, Some(0));
    let back = told(&restored, &["log", "restore", &copy]);
    assert_eq!((&back["bytes"], &back["next_lsn"]), (&made["bytes"], &made["next_lsn"]));
    assert_eq!(log(&restored, &["dump"]).stdout, log(&data, &["dump"]).stdout);
    assert_eq!(told(&restored, &["dlq", "list"]), told(&data, &["dlq", "list"]));

    log(&data, &["backup", &copy]).refused(&["cannot back up", &data, "name an empty or new directory"]);
    log(&data, &["restore", &copy]).refused(&["cannot restore", &copy, "name an empty or new directory"]);
    let other = scratch.argument("other");
    log(&other, &["restore", &data]).refused(&["there is no MANIFEST"]);
    let file = damage(&copy, 700);
    let refused = log(&other, &["restore", &copy]);
    assert_eq!(refused.code, Some(1));
    refused.says(&[&file, "is not as MANIFEST says", "nothing was restored"]);
    damage(&data, 700);
    let worse = log(&data, &["backup", &scratch.argument("worse")]);
    assert_eq!((worse.code, worse.stdout.as_str()), (Some(1), ""));
}

/// A real process publishes and settles while it is backed up, again and again.
#[test]
fn beside_a_running_app_a_backup_has_all_that_was_acknowledged() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    // Enough to be busy for as long as the backups take; it is killed then.
    let mut command = orders();
    command.args(["--json", "--events", "400000", "--gateway-failures", "0.2", "--data", &data]);
    let mut app = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let settled = |data: &str| -> u64 {
        let stats = oncue(&["stats", "--json", "--data", data]);
        if stats.code != Some(0) {
            return 0; // not made yet
        }
        number(&stats.report()["all"]["n"])
    };
    while settled(&data) == 0 {
        assert!(app.try_wait().unwrap().is_none(), "it ended before it settled anything");
    }
    let mut last = 0;
    for round in 0..4 {
        let [copy, restored] = ["copy", "restored"].map(|name| scratch.argument(&format!("{name}-{round}")));
        let before = (settled(&data), told(&data, &["ls", "topics"]));
        let running = app.try_wait().unwrap().is_none();
        let made = told(&data, &["log", "backup", &copy]);
        assert_eq!(made["damaged"], 0);
        told(&restored, &["log", "restore", &copy]);
        let verified = told(&restored, &["log", "verify"]);
        assert_eq!((&verified["whole"], &verified["torn"]), (&true.into(), &Value::Null), "nothing is half");
        assert!(settled(&restored) >= before.0, "{} of {}", settled(&restored), before.0);
        let topics = told(&restored, &["ls", "topics"]);
        for topic in array(&before.1) {
            let there = by(&topics, "name")[text(&topic["name"])]["next_offset"].clone();
            assert!(number(&there) >= number(&topic["next_offset"]), "{there} of {topic}");
        }
        assert!(running, "it was done before the backup was made: give it more events");
        last = last.max(number(&verified["records"]));
    }
    app.kill().unwrap();
    app.wait().unwrap();
    assert!(last > 0 && told(&data, &["log", "verify"])["whole"] == true);
    // What was restored goes on: it is the log of an app.
    let restored = scratch.argument("restored-3");
    assert_eq!(told(&restored, &["dlq", "list", "--limit", "1"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn events_are_exported_and_imported_once() {
    let scratch = Scratch::new();
    let [data, other, file] = ["data", "other", "events.ndjson"].map(|name| scratch.argument(name));
    run_on(&lives(0..50), &["--data", &data]).report();
    let lines = log(&data, &["export"]).stdout;
    assert_eq!((lines.lines().count(), lines.lines().next()), (200, lives(0..1).lines().next()));
    let done = log(&data, &["export", &file]);
    assert!(done.stdout.contains("200 events of `events` written to"), "{done:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), lines);
    log(&data, &["export", &file]).refused(&["cannot make", &file]);
    log(&data, &["export", "--topic", "nothing"]).refused(&["no topic `nothing`", "`events`"]);
    let some = log(&data, &["export", "--from", "10", "--until", "13"]).stdout;
    assert_eq!(some.lines().collect::<Vec<_>>(), lines.lines().skip(10).take(3).collect::<Vec<_>>());

    let dry = told(&other, &["log", "import", &file, "--dry-run"]);
    assert_eq!((&dry["imported"], scratch.exists("other")), (&200.into(), false));
    assert_eq!(told(&other, &["log", "import", &file])["imported"], 200);
    let again = told(&other, &["log", "import", &file]);
    assert_eq!((&again["imported"], &again["duplicates"]), (&0.into(), &200.into()));
    assert_eq!(log(&other, &["export"]).stdout, lines);

    // From a pipe, with lines that are none.
    let mixed = format!("{}\nnonsense\n{}", lines.lines().next().unwrap(), line_of("new"));
    let stopped = import(&mixed, &["--data", &other]);
    assert_eq!(stopped.code, Some(2));
    stopped.says(&["line 2", "not a CloudEvents JSON object", "mend the line"]);
    let skipped = import(&mixed, &["--skip-invalid", "--json", "--data", &other]);
    skipped.says(&["line 2"]);
    let report = skipped.report();
    assert_eq!((&report["imported"], &report["duplicates"], &report["invalid"]), (&1.into(), &1.into(), &1.into()));
    let busy = scratch.argument("busy");
    let waiting = Waiting::on(&busy, &lives(0..10));
    log(&busy, &["import", &file]).refused(&["in use by process", &waiting.pid()]);
    assert_eq!(told(&busy, &["log", "import", &file, "--dry-run"])["duplicates"], 40);
    waiting.interrupt();
}

fn line_of(id: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"order.created","data":1}}"#)
}

/// `oncue log import -`, reading `input`.
fn import(input: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(ONCUE);
    command.args(["log", "import", "-"]).args(arguments).env_remove("RUST_LOG");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A run that stops early closes its end.
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).ok();
    child.wait_with_output().unwrap().into()
}

#[test]
fn what_is_no_log_is_refused() {
    let scratch = Scratch::new();
    let missing = scratch.argument("missing");
    for what in ["verify", "info", "dump", "export"] {
        log(&missing, &[what]).refused(&["there is no directory", &missing]);
    }
    log(&missing, &["backup", &scratch.argument("copy")]).refused(&["cannot back up", &missing]);
    scratch.write("notes.txt", "mine");
    let foreign = scratch.argument("");
    for what in ["verify", "info", "dump", "export"] {
        log(&foreign, &[what]).refused(&["notes.txt", "no log"]);
    }
    log(&foreign, &["restore", &missing]).refused(&["cannot restore", &missing]);
    assert!(!scratch.exists("missing"));
}
