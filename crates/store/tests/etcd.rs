//! etcd keeps the contract of a shared state, lets one owner in at a time, and loses nothing when members die.

#![cfg(test)]

#[allow(dead_code, reason = "the parts that the folder alone promises are used by its own tests")]
mod contract;
mod etcd_servers;

use contract::shared::{All, Place, all};
use contract::{fact, transaction};
use etcd_servers::{Certificates, Servers, until};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use weir_model::Bytes;
use weir_store::etcd::{Etcd, LEASE_MIN, Options, ROW_BYTES_MAX};
use weir_store::shared::{SharedChanges, SharedState};
use weir_store::{StoreError, Transaction};

fn options(servers: &Servers, prefix: &str) -> Options {
    Options {
        endpoints: servers.endpoints(),
        prefix: prefix.into(),
        user: None,
        ca: None,
        identity: None,
        insecure: false,
        lease: Duration::from_secs(10),
        holder: format!("process {} of the test", std::process::id()),
    }
}

fn put(store: &dyn SharedState, transactions: Vec<Transaction>) -> Result<u64, StoreError> {
    store.merge(&SharedChanges { transactions, ..SharedChanges::default() })
}

struct Prefix<'a> {
    servers: &'a Servers,
    options: Options,
}

impl Place for Prefix<'_> {
    fn open(&self) -> Result<Arc<dyn SharedState>, StoreError> {
        Ok(Arc::new(Etcd::open(&self.options)?))
    }

    fn raise_format(&self) {
        self.servers.ctl(&["put", &format!("{}/schema", self.options.prefix), "weir-state 2"]);
    }

    fn open_with_wrong_credentials(&self) -> Option<Result<Arc<dyn SharedState>, StoreError>> {
        let user = Some(("weir".to_owned(), "guessed".to_owned()));
        Some(Etcd::open(&Options { user, ..self.options.clone() }).map(|store| Arc::new(store) as Arc<dyn SharedState>))
    }

    fn row_bytes_max(&self) -> Option<usize> {
        Some(ROW_BYTES_MAX)
    }

    fn many(&self) -> u64 {
        2_500
    }
}

#[test]
fn it_keeps_the_contract_of_shared_state() {
    let mut servers = Servers::start(1);
    servers.ask_for_names();
    let made = Cell::new(0);
    contract::shared::shared(|| {
        made.set(made.get() + 1);
        let user = Some(("weir".to_owned(), "secret".to_owned()));
        Prefix { servers: &servers, options: Options { user, ..options(&servers, &format!("/weir/{}", made.get())) } }
    });
}

#[test]
fn who_gives_no_name_or_asks_beyond_its_role_is_told_what_to_do() {
    let mut servers = Servers::start(1);
    servers.ask_for_names();
    let user = |name: &str| Some((name.to_owned(), "secret".to_owned()));
    for (changed, text) in [
        (Options { user: None, ..options(&servers, "/weir/a") }, "give --etcd-user"),
        (Options { user: user("nobody"), ..options(&servers, "/weir/a") }, "wrong user or password"),
        (Options { user: user("weir"), ..options(&servers, "/other") }, "grant it readwrite on the prefix"),
    ] {
        let error = Etcd::open(&changed).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(&servers.endpoints()[0]), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_token_that_is_no_longer_known_is_asked_for_anew() {
    let mut servers = Servers::start(1);
    servers.ask_for_names();
    let user = Some(("weir".to_owned(), "secret".to_owned()));
    let store = Etcd::open(&Options { user, lease: Duration::from_secs(60), ..options(&servers, "/weir/a") }).unwrap();
    put(&store, vec![transaction(1, 100)]).unwrap();
    assert_eq!(store.counts()["etcd_tokens"], 1);
    // Every token is void after that.
    servers.ctl(&["auth", "disable"]);
    servers.ctl(&["auth", "enable"]);
    put(&store, vec![transaction(2, 100)]).unwrap();
    assert_eq!(all(&store).transactions.len(), 2);
    assert!(store.counts()["etcd_tokens"] >= 2);
}

#[test]
fn rows_lie_where_a_person_looks_for_them() {
    let servers = Servers::start(1);
    let store = Etcd::open(&options(&servers, "/weir")).unwrap();
    let facts = vec![fact("c/1", 5, "front", None)];
    store.merge(&SharedChanges { transactions: vec![transaction(1, 100)], facts, ..SharedChanges::default() }).unwrap();
    let keys = servers.ctl(&["get", "--prefix", "--keys-only", "/weir/transactions/10.0.0.1-10.0.0.2-1001-80/"]);
    assert_eq!(
        keys.trim(),
        format!("/weir/transactions/10.0.0.1-10.0.0.2-1001-80/{}", transaction(1, 100).id().to_hex())
    );
    let row =
        servers.ctl(&["get", "--prefix", "--print-value-only", "/weir/metadata/10.0.0.1/a/cri/container/c%2F1/1"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&row).unwrap()["name"], "front");
    assert_eq!(servers.ctl(&["get", "--print-value-only", "/weir/schema"]).trim(), "weir-state 1");
}

#[test]
fn a_second_owner_is_refused_and_told_who_the_first_is_until_that_lets_go() {
    let servers = Servers::start(1);
    let options = Options { lease: LEASE_MIN, ..options(&servers, "/weir") };
    let store = Etcd::open(&Options { holder: "process 7 on the first node".into(), ..options.clone() }).unwrap();
    let error = Etcd::open(&options).unwrap_err();
    assert!(matches!(error, StoreError::Owned { .. }), "{error}");
    assert!(error.to_string().contains("process 7 on the first node owns it"), "{error}");
    put(&store, vec![transaction(1, 100)]).unwrap();
    drop(store);
    let store = Etcd::open(&options).unwrap();
    assert_eq!(all(&store).transactions.len(), 1);
}

fn lease_of_the_owner(servers: &Servers) -> String {
    let owner = servers.ctl(&["get", "/weir/owner", "-w", "json"]);
    let owner: serde_json::Value = serde_json::from_str(&owner).unwrap();
    format!("{:x}", owner["kvs"][0]["lease"].as_i64().unwrap())
}

#[test]
fn an_owner_whose_lease_ran_out_goes_on_only_if_nobody_else_was_it() {
    let servers = Servers::start(1);
    let first = Etcd::open(&options(&servers, "/weir")).unwrap();
    put(&first, vec![transaction(1, 100)]).unwrap();
    servers.ctl(&["lease", "revoke", &lease_of_the_owner(&servers)]);
    put(&first, vec![transaction(2, 100)]).unwrap();
    // Now another comes in between, and is gone again.
    servers.ctl(&["lease", "revoke", &lease_of_the_owner(&servers)]);
    drop(Etcd::open(&options(&servers, "/weir")).unwrap());
    let error = put(&first, vec![transaction(3, 100)]).unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    assert!(matches!(
        first.forget(&weir_store::shared::Forgotten {
            transactions: vec![(&transaction(1, 100)).into()],
            facts: Vec::new(),
        }),
        Err(StoreError::Lost { .. })
    ));
    assert_eq!(all(&first).transactions.len(), 2);
}

#[test]
fn what_somebody_else_wrote_meanwhile_is_merged_and_not_overwritten() {
    let servers = Servers::start(1);
    let store = Etcd::open(&options(&servers, "/weir")).unwrap();
    put(&store, vec![transaction(1, 100)]).unwrap();
    let key = format!("/weir/transactions/10.0.0.1-10.0.0.2-1001-80/{}", transaction(1, 100).id().to_hex());
    let mut other = transaction(1, 100);
    other.totals.recv = Bytes(77_777);
    let text = String::from_utf8(weir_store::shared::rows::encode_transaction(&other).unwrap()).unwrap();
    servers.ctl(&["put", &key, &text]);
    let mut own = transaction(1, 100);
    own.totals.retransmits = 9;
    put(&store, vec![own]).unwrap();
    let row = all(&store).transactions.into_values().next().unwrap();
    assert_eq!((row.totals.recv, row.totals.retransmits), (Bytes(77_777), 9));
}

#[test]
fn old_revisions_are_compacted_and_a_reading_that_this_meets_begins_anew() {
    let servers = Servers::start(1);
    let store = Etcd::open(&options(&servers, "/weir")).unwrap();
    put(&store, (0..1_500).map(|cookie| transaction(cookie, 100)).collect()).unwrap();
    let mut rows = 0;
    store
        .read(&mut |_| {
            rows += 1;
            if rows == 1 {
                put(&store, vec![transaction(2_000, 100)])?;
                let now = servers.ctl(&["get", "/weir/schema", "-w", "json"]);
                let now: serde_json::Value = serde_json::from_str(&now).unwrap();
                servers.ctl(&["compact", &now["header"]["revision"].to_string()]);
            }
            Ok(())
        })
        .unwrap();
    assert!(rows >= 1_501 + 990, "a page, and everything: {rows}");
    for step in 0..8 {
        put(&store, vec![transaction(1, 200 + step)]).unwrap();
        store.tidy().unwrap();
    }
    assert_eq!(store.counts()["etcd_compactions"], 3);
    assert_eq!(all(&store).transactions.len(), 1_501);
}

/// Not a promise of its own: the process that the test below pauses. Writes one row for each line that it is told.
#[test]
fn a_child_of_the_pausing_test() {
    let Ok(endpoint) = std::env::var("WEIR_TEST_ETCD") else { return };
    let store = Etcd::open(&Options {
        endpoints: vec![endpoint],
        prefix: "/weir".into(),
        user: None,
        ca: None,
        identity: None,
        insecure: false,
        lease: LEASE_MIN,
        holder: "the one that is paused".into(),
    })
    .unwrap();
    println!("\nchild: owns it");
    for (line, number) in std::io::stdin().lines().zip(1..) {
        line.unwrap();
        match put(&store, vec![transaction(number, 100)]) {
            Ok(_) => println!("\nchild: wrote"),
            Err(error) => println!("\nchild: {error}"),
        }
    }
}

#[test]
fn a_paused_owner_cannot_write_after_another_took_over() {
    let servers = Servers::start(1);
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_child_of_the_pausing_test", "--nocapture"])
        .env("WEIR_TEST_ETCD", &servers.endpoints()[0])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = || lines.find_map(|line| line.strip_prefix("child: ").map(str::to_owned)).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    assert_eq!(said(), "owns it");
    let mut tell = child.stdin.take().unwrap();
    writeln!(tell, "write").unwrap();
    assert_eq!(said(), "wrote");
    nix::sys::signal::kill(pid, Signal::SIGSTOP).unwrap();
    // A signal is sent before it is taken: until every thread stands still one of them could still read the next line.
    let stopped = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, nix::sys::wait::WaitStatus::Stopped(pid, Signal::SIGSTOP));
    // Told while it sleeps, to be done as soon as it wakes.
    writeln!(tell, "write").unwrap();
    let second = Etcd::open(&Options { holder: "the second".into(), ..options(&servers, "/weir") }).unwrap();
    put(&second, vec![transaction(50, 100)]).unwrap();
    nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
    let error = said();
    assert!(error.contains("silent for longer than its lease, and the second owns it now"), "{error}");
    let found: Vec<_> = all(&second).transactions.into_keys().collect();
    let mut expected = vec![transaction(1, 100).id(), transaction(50, 100).id()];
    expected.sort();
    assert_eq!(found, expected);
    drop(tell);
    assert!(child.wait().unwrap().success());
}

#[test]
fn of_three_members_one_may_die_and_one_may_be_cut_off_and_nothing_that_was_merged_is_lost() {
    let mut servers = Servers::start(3);
    let options = Options { lease: Duration::from_secs(60), ..options(&servers, "/weir") };
    let store = Etcd::open(&options).unwrap();
    let mut written: Vec<Transaction> = Vec::new();
    let mut next = |store: &Etcd| {
        let rows: Vec<Transaction> = (0..50).map(|cookie| transaction(written.len() as u64 + cookie, 100)).collect();
        put(store, rows.clone()).unwrap();
        written.extend(rows);
    };
    next(&store);
    // The first one is the one that it talks to.
    servers.kill(0);
    for _ in 0..3 {
        next(&store);
    }
    servers.spawn(0);
    until("all are healthy again", || servers.try_ctl(&["endpoint", "health"]).status.success());
    for member in 0..3 {
        servers.signal(member, Signal::SIGSTOP);
        next(&store);
        servers.signal(member, Signal::SIGCONT);
        until("it is back", || servers.try_ctl(&["endpoint", "health"]).status.success());
    }
    // Without a majority nothing is written, and it says so.
    servers.signal(1, Signal::SIGSTOP);
    servers.kill(2);
    let late = transaction(9_999, 100);
    let error = put(&store, vec![late.clone()]).unwrap_err();
    assert!(matches!(error, StoreError::Remote { action: "write to", .. }), "{error}");
    assert!(error.to_string().contains("has it a majority"), "{error}");
    servers.signal(1, Signal::SIGCONT);
    servers.spawn(2);
    until("all are healthy at last", || servers.try_ctl(&["endpoint", "health"]).status.success());
    // Whether the first try arrived or not: again is as once.
    put(&store, vec![late.clone()]).unwrap();
    written.push(late);
    let All { transactions, .. } = all(&store);
    assert_eq!(transactions.len(), written.len());
    assert!(written.iter().all(|row| transactions.get(&row.id()) == Some(row)));
    drop(store);
    assert_eq!(all(&Etcd::open(&options).unwrap()).transactions.len(), written.len());
}

fn certificates(folder: &std::path::Path, address: &str) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "who vouches");
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec![address.to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "etcd");
    let made =
        Certificates { ca: folder.join("ca.pem"), certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&made.ca, ca_pem).unwrap();
    std::fs::write(&made.certificate, leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(&made.key, key.serialize_pem()).unwrap();
    made
}

#[test]
fn tls_lets_in_who_has_a_certificate_and_plain_text_leaves_no_machine() {
    let (servers, made) = Servers::start_with_certificates(certificates);
    let read = |path| std::fs::read(path).unwrap();
    let ca = Some(read(&made.ca));
    let identity = Some((read(&made.certificate), read(&made.key)));
    let options = Options { ca, identity, ..options(&servers, "/weir") };
    let mut opened = None;
    until("it is up", || {
        opened = Etcd::open(&options).ok();
        opened.is_some()
    });
    let store = opened.unwrap();
    put(&store, vec![transaction(1, 100)]).unwrap();
    assert_eq!(all(&store).transactions.len(), 1);
    let other = tempfile::tempdir().unwrap();
    let stranger = certificates(other.path(), "127.0.0.1");
    let plain = vec!["http://192.0.2.1:2379".to_owned()];
    for (changed, text) in [
        (Options { identity: None, ..options.clone() }, "no endpoint answered"),
        (Options { ca: Some(read(&stranger.ca)), ..options.clone() }, "no endpoint answered"),
        (Options { ca: None, ..options.clone() }, "give --etcd-ca FILE"),
        (Options { ca: Some(b"nonsense".to_vec()), ..options.clone() }, "the file of --etcd-ca has no line"),
        (Options { endpoints: plain, ..options.clone() }, "not encrypted; use https://"),
        (Options { endpoints: vec!["etcd:2379".into()], ..options.clone() }, "write https://HOST:2379"),
        (Options { endpoints: Vec::new(), ..options.clone() }, "give --etcd-endpoints"),
    ] {
        let error = Etcd::open(&changed).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
