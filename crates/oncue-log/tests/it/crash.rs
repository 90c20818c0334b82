//! Loss of power at every call that changes the disk: nothing acknowledged is lost, nothing is half there, order is kept.

use oncue_log::storage::FaultyStorage;
use oncue_log::{Durability, Options, Writer};

use crate::model::Model;
use crate::support::{Random, replayed, small};

/// Works until the power goes, or for `steps`.
fn work(disk: &FaultyStorage, model: &mut Model, random: &mut Random, steps: usize, options: Options) {
    let Ok((opened, checkpoint, records)) = replayed(disk.clone(), options) else { return };
    model.check(&opened, checkpoint.as_deref(), &records);
    for _ in 0..steps {
        if model.step(&opened.log, random).is_err() {
            return;
        }
    }
    let _fenced_or_all = opened.log.wait_durable(model.next_lsn());
    if disk.is_on() {
        model.check_reading(&opened.log);
    }
    if opened.log.close(1).is_ok() {
        model.acknowledged(model.next_lsn());
    }
}

#[test]
fn power_lost_at_every_call() {
    let calls = {
        let disk = FaultyStorage::new(0);
        work(&disk, &mut Model::default(), &mut Random(7), 60, small());
        disk.changes()
    };
    assert!(calls > 150, "{calls}");
    for nth in 0..calls {
        for seed in 0..3 {
            let (mut disk, mut model) = (FaultyStorage::new(seed * 1000 + nth), Model::default());
            model.context = format!("call {nth}, seed {seed}");
            disk.power_off_at(nth);
            work(&disk, &mut model, &mut Random(7), 60, small());
            disk = disk.crash();
            work(&disk, &mut model, &mut Random(nth), 5, small());
            work(&disk.crash(), &mut model, &mut Random(nth), 0, small());
        }
    }
}

#[test]
fn power_lost_again_and_again_also_while_opening() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let (mut disk, mut model) = (FaultyStorage::new(seed), Model::default());
        for round in 0..12 {
            model.context = format!("seed {seed}, round {round}");
            let soon = if round % 3 == 2 { 8 } else { 120 };
            disk.power_off_at(random.below(soon));
            work(&disk, &mut model, &mut random, 40, small());
            disk = disk.crash();
        }
        work(&disk, &mut model, &mut random, 10, small());
    }
}

#[test]
fn with_a_writer_thread() {
    let options = || Options { writer: Writer::Thread, ..small() };
    for seed in 0..100 {
        let mut random = Random(seed);
        let (mut disk, mut model) = (FaultyStorage::new(seed), Model::default());
        for round in 0..4 {
            model.context = format!("seed {seed}, round {round}");
            disk.power_off_at(random.below(100));
            work(&disk, &mut model, &mut random, 40, options());
            disk = disk.crash();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    for durability in [Durability::Disk, Durability::Os] {
        let disk = FaultyStorage::new(3);
        let mut model = Model::default();
        let options = Options { durability, ..small() };
        let (opened, ..) = replayed(disk.clone(), options.clone()).unwrap();
        for step in 0..50 {
            model.step(&opened.log, &mut Random(step)).unwrap();
        }
        std::mem::forget(opened); // neither closed nor dropped
        let (opened, checkpoint, records) = replayed(disk, options).unwrap();
        assert!(!opened.report.clean);
        assert_eq!(opened.report.next_lsn, model.next_lsn());
        model.check(&opened, checkpoint.as_deref(), &records);
    }
}

#[test]
fn without_syncs_what_survives_is_a_prefix() {
    for seed in 0..200 {
        let (disk, mut model) = (FaultyStorage::new(seed), Model::default());
        model.synced = false;
        model.context = format!("seed {seed}");
        let options = Options { durability: Durability::Os, ..small() };
        disk.power_off_at(40 + seed);
        work(&disk, &mut model, &mut Random(seed), 100, options.clone());
        work(&disk.crash(), &mut model, &mut Random(seed), 10, options);
    }
}
