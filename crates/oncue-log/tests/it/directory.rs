//! One directory, one log, one process.

use std::fs;

use oncue_log::OpenError;
use oncue_log::storage::{FileStorage, LOCK_FILE, LockError, MemoryStorage};

use crate::support::{log, open, publish, small, topic};

#[test]
fn a_second_opener_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = log(FileStorage::open(dir.path()).unwrap(), small());
    let error = FileStorage::open(dir.path()).unwrap_err();
    let LockError::Locked { pid, .. } = &error else { panic!("{error}") };
    assert!(pid.starts_with(&std::process::id().to_string()), "{pid}");
    assert!(error.to_string().contains("stop that process"), "{error}");
    drop(first);
    FileStorage::open(dir.path()).unwrap();
}

#[test]
fn a_second_process_is_kept_out() {
    const CHILD: &str = "ONCUE_LOG_TEST_DIR";
    if let Ok(dir) = std::env::var(CHILD) {
        let error = FileStorage::open(dir).unwrap_err();
        println!("{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _held = FileStorage::open(dir.path()).unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "directory::a_second_process_is_kept_out", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
}

#[test]
fn free_space_is_the_file_systems_and_a_closed_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(FileStorage::open(dir.path()).unwrap(), small());
    let free = log.free_bytes().unwrap().expect("a directory knows");
    assert!((1 << 20..1 << 60).contains(&free), "{free} bytes");
    assert_eq!(open(MemoryStorage::new(), small()).unwrap().log.free_bytes().unwrap(), None);
    assert!(!log.is_closed());
    log.close(0).unwrap();
    assert!(log.is_closed());
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "important").unwrap();
    let error = FileStorage::open(dir.path()).unwrap_err();
    assert!(matches!(&error, LockError::Foreign { file, .. } if file == "thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");

    let memory = MemoryStorage::new();
    memory.replace("thesis.tex", b"important".to_vec());
    assert!(matches!(open(memory, small()), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_new_directory_a_lock_alone_and_lost_and_found_are_fine() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("a/b");
    fs::create_dir_all(nested.join("lost+found")).unwrap();
    fs::write(nested.join(LOCK_FILE), "").unwrap();
    let log = log(FileStorage::open(&nested).unwrap(), small());
    let orders = topic(&log, "orders");
    publish(&log, orders, b"x");
    fs::write(nested.join("notes.txt"), "beside a log, other files do no harm").unwrap();
    drop(log);
    assert_eq!(open(FileStorage::open(&nested).unwrap(), small()).unwrap().report.next_lsn, 2);
}
