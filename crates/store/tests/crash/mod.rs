//! A process that is ended at each fail point leaves exactly the old or the new, and nothing else.

use crate::contract::compaction::{ById, found_sums, put_all, some_rows};
use std::path::Path;
use std::process::Command;
use weir_daemon::failpoint::{COMPACTION, SEGMENT, VARIABLE};
use weir_model::UnixNanos;
use weir_store::embedded::Embedded;
use weir_store::{Due, HistoryStore as _};

/// The folder that a child works on. Without it, the child's test has nothing to do.
const FOLDER: &str = "WEIR_TEST_CRASH_FOLDER";
/// How often each step is reached at most before the child is through.
const TIMES_MAX: u64 = 60;

const EVERYTHING: Due =
    Due { settled_before: UnixNanos(i64::MAX), minutes_before: UnixNanos(i64::MAX), hours_before: UnixNanos(i64::MAX) };

/// Goes on from wherever the folder stands, as the server does from its log, to the end.
fn work(folder: &Path) {
    let store = Embedded::open(folder).unwrap();
    put_all(&store, &some_rows());
    while store.compact(&EVERYTHING, &mut ById).unwrap().is_some() {}
}

/// Not a promise of its own: what the children of the test below run.
#[test]
fn a_child_of_the_crash_test() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        work(Path::new(&folder));
    }
}

/// Runs a child; false if it was ended at the step.
fn child(folder: &Path, fail_point: &str) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::a_child_of_the_crash_test", "--nocapture"])
        .env(FOLDER, folder)
        .env(VARIABLE, fail_point)
        .output()
        .unwrap();
    let aborted = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(6);
    assert!(aborted || output.status.success(), "{fail_point}: {}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

#[test]
fn a_crash_at_every_fail_point_leaves_the_old_or_the_new() {
    for step in SEGMENT.iter().chain(COMPACTION) {
        let folder = tempfile::tempdir().unwrap();
        let mut crashes = 0;
        let mut time = 1;
        // Each time a little later; steps that come often are taken in strides.
        while time <= TIMES_MAX && !child(folder.path(), &format!("{step}:{time}")) {
            crashes += 1;
            time += 1 + time / 2;
            let store = Embedded::open(folder.path()).unwrap();
            let done = store.watermark().unwrap().0 as usize;
            let expected = found_sums(&store, &some_rows()[..done]);
            assert_eq!(expected.0, expected.1, "{step}, crash {crashes}");
            let files = std::fs::read_dir(folder.path().join("segments")).unwrap().count() as u64;
            assert_eq!(files, store.summary().unwrap().segments, "{step}: a left-over file stays");
        }
        assert!(crashes > 0, "{step} is never reached");
        work(folder.path());
        let store = Embedded::open(folder.path()).unwrap();
        let (truth, found) = found_sums(&store, &some_rows());
        assert_eq!(truth, found, "{step}, at the end");
        assert_eq!(store.summary().unwrap().tiers[2].segments, store.summary().unwrap().segments);
    }
}
