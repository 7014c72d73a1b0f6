//! The promise: no bytes from another process make weir panic, hang or count what was not told.
//!
//! The fuzz targets (`fuzz/targets.rs`) over the committed corpus and over mutations of it, on the stable toolchain;
//! `make fuzz` runs the same under libFuzzer.

#[path = "../../../fuzz/targets.rs"]
mod targets;

use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("an entry of the folder").path()).collect();
    // In one order, so that a failure is the same on every machine.
    paths.sort();
    assert!(paths.len() >= 2, "{} holds {} seeds", folder.display(), paths.len());
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

/// What happens to bytes on the way from a process that is broken, or worse.
#[derive(Clone, Debug)]
enum Mutation {
    Flip {
        at: usize,
        bit: u8,
    },
    Set {
        at: usize,
        byte: u8,
    },
    Cut {
        at: usize,
    },
    Remove {
        at: usize,
        length: usize,
    },
    Repeat {
        at: usize,
        length: usize,
    },
    /// The end of another seed in the place of this one's.
    Splice {
        at: usize,
        other: usize,
        from: usize,
    },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<usize>();
    prop_oneof![
        4 => (at, 0..8u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        3 => (at, any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        1 => at.prop_map(|at| Mutation::Cut { at }),
        2 => (at, 1..40usize).prop_map(|(at, length)| Mutation::Remove { at, length }),
        2 => (at, 1..40usize).prop_map(|(at, length)| Mutation::Repeat { at, length }),
        2 => (at, any::<usize>(), any::<usize>()).prop_map(|(at, other, from)| Mutation::Splice { at, other, from }),
    ]
}

fn mutate(seeds: &[Vec<u8>], bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let place = |at: usize| at % bytes.len();
    match *mutation {
        Mutation::Flip { at, bit } => {
            let at = place(at);
            bytes[at] ^= 1 << bit;
        }
        Mutation::Set { at, byte } => {
            let at = place(at);
            bytes[at] = byte;
        }
        Mutation::Cut { at } => bytes.truncate(place(at)),
        Mutation::Remove { at, length } => {
            let at = place(at);
            bytes.drain(at..(at + length).min(bytes.len()));
        }
        Mutation::Repeat { at, length } => {
            let at = place(at);
            let part = bytes[at..(at + length).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        Mutation::Splice { at, other, from } => {
            let other = &seeds[other % seeds.len()];
            let at = place(at);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from % other.len().max(1)..]);
        }
    }
}

fn hold(name: &str, cases: u32) {
    let (_, target) = targets::ALL.into_iter().find(|(of, _)| *of == name).expect("a target of this name");
    let seeds = corpus(name);
    for seed in &seeds {
        target(seed);
    }
    target(b"");
    let input = (any::<usize>(), proptest::collection::vec(mutation(), 1..6));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = proptest::test_runner::TestRunner::new(config).run(&input, |(seed, mutations)| {
        let mut bytes = seeds[seed % seeds.len()].clone();
        for mutation in &mutations {
            mutate(&seeds, &mut bytes, mutation);
        }
        target(&bytes);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
}

#[test]
fn the_feed_survives_any_bytes() {
    hold("feed", 4000);
}

#[test]
fn system_probes_replies_survive_any_bytes() {
    hold("system_probe", 1500);
}

#[test]
fn a_batch_survives_any_bytes() {
    hold("batch", 4000);
}

#[test]
fn a_dns_message_survives_any_bytes() {
    hold("dns", 8000);
}

#[test]
fn a_list_of_pods_survives_any_bytes() {
    hold("pods", 2000);
}

#[test]
fn a_container_runtimes_answers_survive_any_bytes() {
    hold("cri", 2000);
}

#[test]
fn a_docker_engines_answers_survive_any_bytes() {
    hold("docker", 2000);
}

#[test]
fn a_filter_survives_any_bytes() {
    hold("filter", 6000);
}

#[test]
fn every_target_has_a_corpus_and_a_test_and_a_binary() {
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/Cargo.toml")).unwrap();
    let here = include_str!("fuzz.rs");
    let script = include_str!("../../../scripts/fuzz.sh");
    for (name, _) in targets::ALL {
        assert!(!corpus(name).is_empty());
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} has no binary");
        assert!(here.contains(&format!("hold(\"{name}\"")), "{name} has no test");
        assert!(script.contains(&format!(" {name} ")) || script.contains(&format!(" {name};")), "{name} is not run");
    }
}
