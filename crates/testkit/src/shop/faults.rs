//! What can go wrong in the demo's town, switched on and off while it runs. Each touches one thing, so that what weir
//! says about it can be held against what was done.

use super::town::{Role, Town, name_of};
use crate::cluster::{Cluster, Pod};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// The process in the pod of mail is gone: whoever connects is refused.
    Refused,
    /// One TCP packet of twenty that come to the pod of report is lost, its database's answers.
    Loss,
    /// The DNS server fails (SERVFAIL) for the name of mail.
    Dns,
    /// A new revision of cart is rolled out, which also calls mail.
    Rollout,
    /// The report asks its database for ten times as much.
    Heavy,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Refused, Self::Loss, Self::Dns, Self::Rollout, Self::Heavy];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Loss => "loss",
            Self::Dns => "dns",
            Self::Rollout => "rollout",
            Self::Heavy => "heavy",
        }
    }

    /// What it does.
    pub fn words(self) -> &'static str {
        match self {
            Self::Refused => "the process of shop/mail is gone: checkout's connects to it are refused",
            Self::Loss => "1 of 20 TCP packets to the pod of shop/report is lost: its database sends again",
            Self::Dns => "the DNS server fails (SERVFAIL) for mail.shop.svc.cluster.local, which checkout asks for",
            Self::Rollout => "a new revision of shop/cart is rolled out, and calls shop/mail",
            Self::Heavy => "shop/report asks shop/database for ten times as much",
        }
    }
}

/// Faults and whether they are on.
#[derive(Debug, Default)]
pub struct Faults {
    on: BTreeSet<Fault>,
}

/// The revision of cart that calls mail, by the address that the kubelet gives it in `MAIL_SERVICE_HOST`.
const NEW_CART: Role = Role {
    pod: "cart-7c6b5d8f94-m3vtd",
    node: "node3",
    owner: "ReplicaSet/cart-7c6b5d8f94",
    calls: &["database:80/900", "@mail:80/100"],
    every_ms: None,
};

/// The table of the rules that lose packets.
const LOSS: &str = "inet weir_demo_loss";

impl Faults {
    /// Those that are on.
    pub fn on(&self) -> impl Iterator<Item = Fault> + '_ {
        self.on.iter().copied()
    }

    /// Switches a fault.
    ///
    /// # Errors
    /// When it is so already, or what it needs cannot be done.
    pub fn switch(&mut self, fault: Fault, on: bool, town: &mut Town, cluster: &mut Cluster) -> Result<()> {
        ensure!(self.on.contains(&fault) != on, "{} is {} already", fault.name(), if on { "on" } else { "off" });
        match fault {
            Fault::Refused => refuse(on, town, cluster)?,
            Fault::Loss => lose(on, cluster)?,
            Fault::Dns => {
                let order = if on { "fail" } else { "answer" };
                town.tell_dns(&format!("{order} {}", name_of("mail")))?;
            }
            Fault::Rollout => roll_out(on, town, cluster)?,
            Fault::Heavy => weigh(on, town, cluster)?,
        }
        if on {
            self.on.insert(fault)
        } else {
            self.on.remove(&fault)
        };
        Ok(())
    }
}

fn refuse(on: bool, town: &mut Town, cluster: &Cluster) -> Result<()> {
    let mail = Role::of("mail")?;
    if on {
        town.stop(mail.pod);
        return Ok(());
    }
    town.start(cluster, mail, mail.pod)
}

/// What comes to the pod is filtered in its own namespace, after the node's devices: nobody else meets it.
fn lose(on: bool, cluster: &Cluster) -> Result<()> {
    let report = cluster.pod("shop", Role::of("report")?.pod)?;
    let rules = if on {
        format!(
            "table {LOSS} {{\n  chain input {{\n    type filter hook input priority filter\n    meta l4proto tcp numgen random mod 20 == 0 drop\n  }}\n}}\n"
        )
    } else {
        format!("delete table {LOSS}\n")
    };
    report.sandbox().script("nft", &["-f", "-"], &rules).map(|_said| ())
}

/// As a rolling update does it: the new pod serves before the old one is no endpoint any more and then ends.
fn roll_out(on: bool, town: &mut Town, cluster: &mut Cluster) -> Result<()> {
    let first = Role::of("cart")?;
    let (old, new) = if on { (first, &NEW_CART) } else { (&NEW_CART, first) };
    let plan = new.plan();
    let Pod { plan, .. } = cluster.add_pod(&plan)?;
    let name = plan.name.clone();
    town.start(cluster, new, &name)?;
    cluster.set_endpoints("shop", "cart", &[&name])?;
    town.stop(old.pod);
    cluster.delete_pod("shop", old.pod)
}

fn weigh(on: bool, town: &mut Town, cluster: &Cluster) -> Result<()> {
    let report = Role::of("report")?;
    town.stop(report.pod);
    let heavy = Role { calls: &["database:80/4000000"], ..*report };
    town.start(cluster, if on { &heavy } else { report }, report.pod)
}
