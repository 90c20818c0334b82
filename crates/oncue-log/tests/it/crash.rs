//! Loss of power at every call that changes the disk: nothing acknowledged is lost, nothing is half there, order is kept.

use oncue_log::storage::FaultyStorage;
use oncue_log::{Durability, Options, Writer};

use crate::model::Model;
use crate::support::{Random, log, publish_many, replayed, small, topic};

/// Works until the power goes, or for `steps`.
fn work(disk: &FaultyStorage, model: &mut Model, random: &mut Random, steps: usize, options: Options) {
    let (opened, checkpoint, records) = match replayed(disk.clone(), options) {
        Ok(opened) => opened,
        Err(error) => return assert!(!disk.is_on(), "{}: {error}", model.context),
    };
    // A writer thread may be about to do what the power goes at.
    if disk.undisturbed(|| model.check(&opened, checkpoint.as_deref(), &records)).is_none() {
        return;
    }
    for _ in 0..steps {
        if model.step(&opened.log, random).is_err() {
            return;
        }
    }
    let _fenced_or_all = opened.log.wait_durable(model.next_lsn());
    let _nothing_without_power = disk.undisturbed(|| model.check_reading(&opened.log));
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

/// What a killed process left in the operating system's cache, its heir builds on: names of files too.
#[test]
fn killed_at_every_call_and_power_lost_after_the_next_process_went_on() {
    let calls = {
        let disk = FaultyStorage::new(0);
        work(&disk, &mut Model::default(), &mut Random(7), 60, small());
        disk.changes()
    };
    for nth in 0..calls {
        let (disk, mut model) = (FaultyStorage::new(nth), Model::default());
        model.context = format!("call {nth}");
        disk.kill_at(nth);
        work(&disk, &mut model, &mut Random(7), 60, small());
        let next = disk.restart();
        work(&next, &mut model, &mut Random(nth), 5, small());
        work(&next.crash(), &mut model, &mut Random(nth), 0, small());
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
        model.context = format!("seed {seed}");
        let options = Options { durability: Durability::Os, ..small() };
        disk.power_off_at(40 + seed);
        work(&disk, &mut model, &mut Random(seed), 100, options.clone());
        model.synced = false;
        work(&disk.crash(), &mut model, &mut Random(seed), 10, options);
    }
}

/// What trimming removes, a checkpoint stands for; so that must be on the disk, also where nobody waits for the disk.
#[test]
fn without_syncs_trimming_waits_for_the_checkpoint() {
    for seed in 0..20 {
        let disk = FaultyStorage::new(seed);
        let options = Options { durability: Durability::Os, ..small() };
        let log = log(disk.clone(), options.clone());
        let orders = topic(&log, "orders");
        publish_many(&log, orders, 100);
        let whole = log.checkpoint(b"state", 1).unwrap();
        assert!(log.trim(whole.lsn).unwrap() > 1);
        let (opened, checkpoint, _) = replayed(disk.crash(), options).unwrap();
        assert_eq!((checkpoint.unwrap(), opened.log.topics()[0].next_offset), (b"state".to_vec(), 100), "seed {seed}");
    }
}
