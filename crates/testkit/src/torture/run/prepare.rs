//! What a run needs before it is played: its processes, networks and played tracers.

use super::{CLOCK_MAX_S, Role, Run, text};
use crate::feed::{Behaviour, StandIn};
use crate::process::binary;
use crate::torture::cables::{self, Cables};
use crate::torture::config_maps::ConfigMaps;
use crate::torture::disk::Disk;
use crate::torture::etcd;
use crate::torture::parts::{self, Part, PartCommand};
use crate::torture::plan::{Done, Network, Plan, Silence, Spools, State};
use crate::torture::random::Random;
use crate::torture::reader::Reader;
use crate::torture::real::Real;
use crate::torture::relay::Relay;
use crate::torture::simulated::Simulated;
use crate::torture::world::{Kinds, World, address, name};
use anyhow::Result;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

impl Run {
    pub(super) fn prepare(plan: &Plan, folder: &Path) -> Result<Self> {
        let mut random = plan.random.clone();
        let cables = (plan.network == Network::Cables).then(|| Cables::lay(plan.writers)).transpose()?;
        let usual = Kinds::default();
        let kinds = Kinds {
            tuples_again: !plan.clocks,
            two_views: !plan.loses(),
            open_max: if plan.spools == Spools::Bytes { 600 } else { usual.open_max },
            opened_max: if plan.spools == Spools::Bytes { 80 } else { usual.opened_max },
        };
        let world = Arc::new(World::new(plan.writers, kinds, random.fork()));
        let ip = if cables.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let mut run = Self {
            due: BTreeMap::new(),
            disk: None,
            etcd: etcd::members(plan.state.members()),
            config_maps: (plan.state == State::ConfigMap).then(|| ConfigMaps::start(folder)).transpose()?,
            real: None,
            truth: Vec::new(),
            plan: plan.clone(),
            data: folder.join("server"),
            folder: folder.to_owned(),
            world,
            relay: Relay::start(IpAddr::V4(ip), random.fork(), plan.rates)?,
            reader: Reader::start(),
            parts: BTreeMap::new(),
            feeds: Vec::new(),
            feed_faults: Arc::new(AtomicU64::new(0)),
            feed_rate: Arc::new(AtomicU64::new(0)),
            is_over: false,
            server_is_known: false,
            done: Done::default(),
            random,
            cables,
            simulated: None,
        };
        if plan.network == Network::Simulated {
            run.simulated = Some(Simulated::start(plan.writers, run.relay.address, Random::new(plan.seed))?);
        }
        if plan.full_disk {
            std::fs::create_dir(&run.data)?;
            run.disk = Some(Disk::mount(&run.data)?);
        }
        for (number, member) in run.etcd.iter().enumerate() {
            let command = etcd::command(folder, &run.etcd, number, *member);
            run.parts.insert(Role::Etcd(number), Part::new(&etcd::name(number), folder, command));
        }
        let mut server = Part::new("server", folder, run.server_command(&run.data)?);
        // It may not find what it needs: a disk with room, or its shared state.
        server.forgiven = (run.disk.is_some() || plan.state.is_shared()).then_some(parts::FAILED);
        if plan.silence == Silence::Beyond {
            server.set_clock(0)?;
        }
        run.parts.insert(Role::Server, server);
        for node in 0..plan.writers {
            let socket = run.serve_feed(node)?;
            let agent = run.agent(node, &socket, &address(node).to_string())?;
            run.parts.insert(Role::Agent(node), agent);
        }
        if plan.tracer {
            run.prepare_tracer()?;
        }
        Ok(run)
    }

    pub(super) fn server_command(&self, data: &Path) -> Result<PartCommand> {
        let mut arguments: Vec<String> =
            ["server", "--data", &text(data), "--listen", "127.0.0.1:0", "--agents-listen", "127.0.0.1:0"]
                .map(str::to_owned)
                .into();
        if !self.etcd.is_empty() {
            arguments.extend(etcd::arguments(&self.etcd));
        }
        arguments.extend(self.config_maps.iter().flat_map(ConfigMaps::arguments));
        Ok(PartCommand { program: binary("weir")?, arguments })
    }

    /// A node's tracer, played.
    fn serve_feed(&mut self, node: usize) -> Result<PathBuf> {
        let socket = self.folder.join(format!("feed-{node}.sock"));
        let (told, faults, rate, mut dice) =
            (Arc::clone(&self.world), Arc::clone(&self.feed_faults), Arc::clone(&self.feed_rate), self.random.fork());
        self.feeds.push(StandIn::serve(&socket, move |target| {
            let behaviour = told.answer(node, target);
            let Behaviour::Body(body) = behaviour else { return behaviour };
            if !dice.permille(rate.load(Ordering::Relaxed)) {
                return Behaviour::Body(body);
            }
            faults.fetch_add(1, Ordering::Relaxed);
            if dice.permille(500) { Behaviour::Half(body) } else { Behaviour::Status(500) }
        })?);
        Ok(socket)
    }

    fn agent(&mut self, node: usize, socket: &Path, ip: &str) -> Result<Part> {
        let hub = match &self.cables {
            Some(_) if node < self.plan.writers => cables::hub_address(node),
            _ => Ipv4Addr::LOCALHOST,
        };
        let entry = self.simulated.as_ref().and_then(|network| network.entry(node));
        let server = entry.unwrap_or_else(|| (hub, self.relay.address.port()).into());
        let server = format!("http://{server}");
        let (feed, spool) = (format!("unix:{}", text(socket)), text(&self.folder.join(format!("spool-{node}"))));
        let mut arguments: Vec<String> = [
            "--feed",
            &feed,
            "--spool",
            &spool,
            // Small segments, so that they are changed in the middle of a run; far from full where nothing shall be.
            "--spool-max-bytes",
            "1MiB",
            "--server",
            &server,
            "--interval",
            "120ms",
            "--metrics-listen",
            "127.0.0.1:0",
            "--node",
            &name(node),
            "--node-ip",
            ip,
        ]
        .map(str::to_owned)
        .into();
        if let Spools::Age(age) = self.plan.spools {
            arguments.extend(["--spool-max-age".to_owned(), format!("{age}ms")]);
        }
        let command = PartCommand { program: binary("weir-agent")?, arguments };
        let part = Part::new(&format!("agent-{node}"), &self.folder, command);
        if self.plan.clocks {
            part.set_clock(self.random.below(2 * CLOCK_MAX_S) as i64 - CLOCK_MAX_S as i64)?;
        }
        Ok(part)
    }

    /// One node more, the last, with a real tracer.
    fn prepare_tracer(&mut self) -> Result<()> {
        let folder = self.folder.join("tracer");
        let real = Real::open(&folder)?;
        let socket = folder.join("tracer.sock");
        let arguments = [
            "--socket",
            &text(&socket),
            "--state-dir",
            &text(&folder.join("state")),
            "--cgroup",
            &text(&real.traced()),
        ]
        .map(str::to_owned);
        let tracer = Part::new("tracer", &self.folder, real.beside(&binary("weir-tracer")?, &arguments)?);
        self.parts.insert(Role::Tracer, tracer);
        self.real = Some(real);
        let node = self.plan.writers;
        let agent = self.agent(node, &socket, "127.0.0.1")?;
        self.parts.insert(Role::Agent(node), agent);
        Ok(())
    }
}
