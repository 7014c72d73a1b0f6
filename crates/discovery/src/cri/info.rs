//! The process id in what a runtime says beyond the interface.
//!
//! The interface promises nothing about the `info` of a verbose answer. containerd and CRI-O put one JSON text with the
//! number `pid` under the key `info`; older CRI-O put the bare number under the key `pid`. 0 means that no process runs.

use serde::Deserialize;
use std::collections::HashMap;

#[derive(Deserialize)]
struct Info {
    pid: Option<u32>,
}

/// The pid of the initial namespace, where a process runs and the runtime tells it.
pub(super) fn pid(info: &HashMap<String, String>) -> Option<u32> {
    let inside = || serde_json::from_str::<Info>(info.get("info")?).ok()?.pid;
    let beside = || info.get("pid")?.trim().parse().ok();
    inside().or_else(beside).filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(key: &str, value: &str) -> HashMap<String, String> {
        HashMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_pid_is_found_in_each_runtimes_form() {
        let containerd = r#"{"sandboxID":"ab","pid":4058,"removing":false,"runtimeSpec":{"process":{"args":["pid"]}}}"#;
        assert_eq!(pid(&info("info", containerd)), Some(4058));
        let crio = r#"{"sandboxID":"ab","pid":77,"runtimeSpec":{},"privileged":false,"checkpointedAt":"0001"}"#;
        assert_eq!(pid(&info("info", crio)), Some(77));
        assert_eq!(pid(&info("pid", "1234")), Some(1234));
    }

    #[test]
    fn no_process_and_no_contract_are_unknown() {
        assert_eq!(pid(&info("info", r#"{"pid":0}"#)), None);
        assert_eq!(pid(&info("info", r#"{"pid":"x"}"#)), None);
        assert_eq!(pid(&info("info", "no JSON")), None);
        assert_eq!(pid(&HashMap::new()), None);
    }
}
