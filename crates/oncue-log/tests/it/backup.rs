//! Backup and restore: what was durable is there, nothing is half, and no interruption passes for a whole one.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use oncue_log::storage::{Call, FaultyStorage, FileStorage, MemoryStorage, RESTORING_FILE, Snapshot, Storage};
use oncue_log::{
    Backup, BackupError, Log, MANIFEST_FILE, OpenError, Options, Record, RestoreError, Writer, backup, restore, verify,
};

use crate::snapshot::{nth, publish_some};
use crate::support::{log, open, publish, read_from, small, topic, verified};

/// A log of several segments whose file has zeros behind its end, as a crash leaves it.
fn sample() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let log = log(storage.clone(), small());
    let orders = topic(&log, "orders");
    publish_some(&log, orders, 0..60);
    log.checkpoint(b"state", 1).unwrap();
    publish_some(&log, orders, 60..70);
    let left = storage.copy();
    drop(log);
    let newest = left.list().unwrap().into_iter().map(|(name, _)| name).max().unwrap();
    let mut bytes = left.contents(&newest).unwrap();
    bytes.extend(vec![0; 3_000]);
    left.replace(&newest, bytes);
    left
}

fn records(storage: &dyn Storage) -> Vec<Record> {
    let (report, records) = verified(storage);
    assert!(report.is_whole() && report.torn.is_none(), "{report:?}");
    records
}

fn contents(storage: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    let files = storage.list().unwrap().into_iter();
    files.map(|(name, _)| (name.clone(), storage.contents(&name).unwrap())).collect()
}

fn made(source: &dyn Storage) -> (MemoryStorage, Backup) {
    let target = MemoryStorage::new();
    let made = backup(source, &target, 7, &mut |_| {}).unwrap();
    (target, made)
}

#[test]
fn what_is_restored_is_what_was_there() {
    let source = sample();
    let before = contents(&source);
    let (copy, made) = made(&source);
    assert_eq!(contents(&source), before, "nothing was written");
    assert!(made.verification.is_whole());
    assert_eq!((made.manifest.time, made.manifest.next_lsn), (7, records(&source).len() as u64));
    let restored = MemoryStorage::new();
    let mut last = None;
    let manifest = restore(&copy, &restored, &mut |progress| last = Some(progress)).unwrap();
    assert_eq!((manifest.clone(), records(&restored)), (made.manifest, records(&source)));
    assert_eq!(last.map(|progress| (progress.bytes, progress.of)), Some((2 * manifest.bytes(), 2 * manifest.bytes())));
    // No more than the frames: what lay behind the last one stayed behind.
    let total: u64 = restored.list().unwrap().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(total, manifest.bytes());
    assert!(total < before.values().map(|bytes| bytes.len() as u64).sum());
    // It goes on where it was.
    let opened = open(restored, small()).unwrap();
    assert!(opened.report.torn.is_none() && !opened.report.created);
    let orders = topic(&opened.log, "orders");
    assert_eq!(publish(&opened.log, orders, &nth(70)), 70);
    assert_eq!(read_from(&opened.log, orders, 0, 7).unwrap().len(), 71);
}

#[test]
fn a_backup_can_be_verified_as_it_is() {
    let (copy, made) = made(&sample());
    let report = verify(&copy, &mut |_| Ok(())).unwrap();
    assert_eq!(
        (report.others.as_slice(), report.next_lsn()),
        (&[MANIFEST_FILE.to_owned()][..], made.manifest.next_lsn)
    );
}

#[test]
fn what_is_no_empty_target_is_left_alone() {
    let source = sample();
    let (copy, _) = made(&source);
    let target = MemoryStorage::new();
    target.replace("notes.txt", b"mine".to_vec());
    let error = backup(&source, &target, 7, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, BackupError::NotEmpty { file } if file == "notes.txt"), "{error}");
    let error = restore(&copy, &target, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, RestoreError::NotEmpty { file } if file == "notes.txt"), "{error}");
    assert_eq!(contents(&target).len(), 1);
    let error = backup(&MemoryStorage::new(), &MemoryStorage::new(), 7, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BackupError::NoLog), "{error}");
}

#[test]
fn a_changed_backup_is_refused_before_the_target_is_touched() {
    let (copy, made) = made(&sample());
    let mut cases: Vec<(&str, MemoryStorage)> = Vec::new();
    let mut changed = |what: &'static str, change: &dyn Fn(&MemoryStorage)| {
        let broken = copy.copy();
        change(&broken);
        cases.push((what, broken));
    };
    let second = made.manifest.files[1].name.clone();
    let edit = |storage: &MemoryStorage, name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = storage.contents(name).unwrap();
        change(&mut bytes);
        storage.replace(name, bytes);
    };
    changed("its checksum does not match", &|storage| edit(storage, &second, &|bytes| bytes[300] ^= 1));
    changed("bytes for", &|storage| edit(storage, &second, &|bytes| bytes.truncate(300)));
    changed("bytes for", &|storage| edit(storage, &second, &|bytes| bytes.push(0)));
    changed("it is missing", &|storage| storage.remove(&second).unwrap());
    changed("cannot be used", &|storage| edit(storage, MANIFEST_FILE, &|bytes| bytes[20] ^= 1));
    changed("there is no MANIFEST", &|storage| storage.remove(MANIFEST_FILE).unwrap());
    for (what, broken) in cases {
        let target = MemoryStorage::new();
        let error = restore(&broken, &target, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert!(contents(&target).is_empty());
    }
}

#[test]
fn damage_in_an_old_segment_is_copied_and_told() {
    let source = sample();
    let first = "00000000000000000001.seg";
    let mut bytes = source.contents(first).unwrap();
    bytes[500] ^= 1;
    source.replace(first, bytes);
    let (copy, made) = made(&source);
    assert_eq!((made.verification.damaged, made.verification.damage[0].file.as_str()), (1, first));
    restore(&copy, &MemoryStorage::new(), &mut |_| {}).unwrap();
}

/// Power is lost at each call of the target, with what was not synced kept or lost. What is left is no backup, and no log,
/// or it is whole.
#[test]
fn power_lost_at_any_call_leaves_nothing_that_passes_for_whole() {
    let source = sample();
    let all = records(&source);
    let (whole, _) = made(&source);
    let (mut backups, mut restores) = (0, 0);
    for call in 0.. {
        let target = FaultyStorage::new(call);
        target.power_off_at(call);
        let made = backup(&source, &target, 7, &mut |_| {});
        let left = target.crash();
        match restore(&left, &MemoryStorage::new(), &mut |_| {}) {
            Ok(_) => assert_eq!(records(&left), all, "call {call}"),
            Err(error) => assert!(made.is_err(), "call {call}: acknowledged, and then {error}"),
        }
        backups += 1;
        if made.is_ok() {
            break;
        }
    }
    for call in 0.. {
        let target = FaultyStorage::new(call);
        target.power_off_at(call);
        let restored = restore(&whole, &target, &mut |_| {});
        let left = target.crash();
        match open(left.clone(), small()) {
            Ok(opened) if opened.report.created => assert!(restored.is_err(), "call {call}"),
            Ok(_) => assert_eq!(records(&left), all, "call {call}"),
            Err(error) => {
                let told = matches!(error, OpenError::Unfinished { .. } | OpenError::Foreign { .. });
                assert!(told && restored.is_err(), "call {call}: {error}");
            }
        }
        restores += 1;
        if restored.is_ok() {
            break;
        }
    }
    assert!(backups > 20 && restores > 20, "{backups}, {restores}");
}

#[test]
fn a_restore_that_did_not_end_is_told_by_who_verifies_and_who_opens() {
    let source = sample();
    source.replace(RESTORING_FILE, Vec::new());
    let report = verify(&source, &mut |_| Ok(())).unwrap();
    assert_eq!((report.damaged, report.damage[0].file.as_str()), (1, RESTORING_FILE));
    assert!(matches!(open(source, small()), Err(OpenError::Unfinished { .. })));
}

#[test]
fn beside_a_writer_that_trims_what_was_durable_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 8 << 10, writer: Writer::Thread, ..small() };
    let writer: Log = log(FileStorage::open(dir.path().join("log")).unwrap(), options.clone());
    let orders = topic(&writer, "orders");
    publish(&writer, orders, &nth(0));
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for round in 0..60 {
                publish_some(&writer, orders, 1 + round * 10..11 + round * 10);
                // Old segments go, and are written to again.
                let ticket = writer.checkpoint(b"state", 1).unwrap();
                writer.wait_durable(ticket.end).unwrap();
                writer.trim(ticket.lsn.saturating_sub(100)).unwrap();
            }
        });
        let mut round = 0;
        while round < 5 || !writing.is_finished() {
            let durable = writer.durable();
            let copy = FileStorage::open(dir.path().join(format!("copy-{round}"))).unwrap();
            let made = match backup(&Snapshot::open(dir.path().join("log")).unwrap(), &copy, 7, &mut |_| {}) {
                Ok(made) => made,
                // Five times in a row segments were trimmed that were being copied: said as it is, and tried again.
                Err(BackupError::Log(OpenError::Storage(_) | OpenError::Damaged(_))) => {
                    round += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            assert!(made.verification.is_whole() && made.verification.torn.is_none(), "{:?}", made.verification);
            assert!(made.manifest.next_lsn >= durable);
            let restored = FileStorage::open(dir.path().join(format!("restored-{round}"))).unwrap();
            restore(&copy, &restored, &mut |_| {}).unwrap();
            let opened = open(restored, options.clone()).unwrap();
            assert!(opened.report.torn.is_none() && opened.log.durable() >= durable);
            let info = opened.log.topics().remove(0);
            for record in read_from(&opened.log, info.id, info.first_offset, 7).unwrap() {
                assert_eq!(record.data, nth(record.offset));
            }
            round += 1;
        }
    });
    assert!(fs::read_dir(dir.path()).unwrap().count() > 5);
}

#[test]
fn segments_are_described() {
    let source = sample();
    let opened = open(source.copy(), small()).unwrap();
    let segments = opened.log.segment_infos().unwrap();
    let report = verify(&source, &mut |_| Ok(())).unwrap();
    assert_eq!(segments.len(), report.segments.len());
    for (told, read) in segments.iter().zip(&report.segments) {
        assert_eq!((&told.file, told.epoch, told.first_lsn), (&read.file, read.epoch, read.first_lsn));
        assert_eq!((told.next_lsn, told.sealed), (read.next_lsn, read.sealed));
        assert_eq!((told.first_time, told.last_time), (read.first_time, read.last_time));
    }
    assert_eq!(
        segments.iter().flat_map(|segment| &segment.topics).map(|(_, first, next)| next - first).sum::<u64>(),
        70
    );
    assert_eq!(opened.log.checkpointed(), report.checkpoint);
}

#[test]
fn a_target_that_refuses_is_named_as_such() {
    let source = sample();
    let target = FaultyStorage::new(1);
    target.fail(Call::Sync, 1, std::io::ErrorKind::Other);
    let error = backup(&source, &target, 7, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BackupError::Target(_)) && error.to_string().contains("was not completed"), "{error}");
}
