//! The promise: every argument and every variable of every container is a setting that its program has, with a value that it
//! takes, and what it names is there: files below a mount, ports that the probes and Services use.

use crate::rendered::{Variant, containers, list, text, variants};
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};
use serde_json::Value;
use std::ffi::OsString;

/// The words that the container starts its program with, variables turned into flags.
fn words(container: &Value, command: &Command) -> Result<Vec<OsString>> {
    let mut words: Vec<OsString> = vec![command.get_name().into()];
    for argument in list(&container["args"]) {
        words.push(text(argument)?.into());
    }
    for entry in list(&container["env"]) {
        let name = text(&entry["name"])?;
        let argument = command
            .get_arguments()
            .find(|argument| argument.get_env().is_some_and(|env| env == name))
            .with_context(|| format!("{} knows no variable {name}", command.get_name()))?;
        let flag = argument.get_long().context("a flag")?;
        let value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => "node1",
            Some("status.hostIPs") => "10.88.0.1,fd00::1",
            Some(other) => bail!("{name} is {other}"),
            None => text(&entry["value"])?,
        };
        match argument.get_action() {
            ArgAction::SetTrue if value == "true" => words.push(format!("--{flag}").into()),
            ArgAction::SetTrue => bail!("{name} is a switch: {value}"),
            _ => words.push(format!("--{flag}={value}").into()),
        }
    }
    Ok(words)
}

fn parse<T: CommandFactory + FromArgMatches>(container: &Value) -> Result<T> {
    let command = T::command();
    let words = words(container, &command)?;
    let matches = command.try_get_matches_from(words)?;
    Ok(T::from_arg_matches(&matches)?)
}

/// What the server's container sets one setting to, or its default, as written.
fn value(server: &Value, id: &str) -> Result<String> {
    let command = weir_server::Args::command();
    let words = words(server, &command)?;
    let matches = command.try_get_matches_from(words)?;
    let mut values = matches.try_get_raw(id)?.with_context(|| format!("no {id}"))?;
    Ok(values.next().with_context(|| format!("no {id}"))?.to_string_lossy().into_owned())
}

/// Every path that an argument or a variable names lies in a folder that is mounted.
fn paths_are_mounted(container: &Value) -> Result<()> {
    let arguments = list(&container["args"]).iter().filter_map(Value::as_str);
    let values = arguments.filter_map(|argument| argument.split_once('=')).map(|(_, value)| value);
    let variables = list(&container["env"]).iter().filter_map(|entry| entry["value"].as_str());
    for value in values.chain(variables) {
        let path = value.strip_prefix("unix:").unwrap_or(value);
        let is_mounted = list(&container["volumeMounts"])
            .iter()
            .filter_map(|mount| mount["mountPath"].as_str())
            .any(|mount| std::path::Path::new(path).starts_with(mount));
        ensure!(!path.starts_with('/') || is_mounted, "{path} is in no volume of {}", container["name"]);
    }
    Ok(())
}

fn check(variant: &Variant) -> Result<()> {
    for (_, pod) in variant.pods() {
        for container in containers(pod) {
            let program: Vec<&str> = list(&container["command"]).iter().filter_map(Value::as_str).collect();
            let about = || format!("container {}", container["name"]);
            match program[..] {
                ["/weir-tracer"] => drop(parse::<weir_tracer::Args>(container).with_context(about)?),
                ["/weir-agent"] => drop(parse::<weir_agent::Args>(container).with_context(about)?),
                ["/weir", "server"] => drop(parse::<weir_server::Args>(container).with_context(about)?),
                _ => bail!("{} starts {program:?}", container["name"]),
            }
            paths_are_mounted(container)?;
        }
    }
    Ok(())
}

#[test]
fn every_argument_and_variable_is_a_setting_that_the_program_takes() -> Result<()> {
    for variant in variants()? {
        check(variant).with_context(|| variant.name.clone())?;
    }
    Ok(())
}

fn container<'a>(pod: &'a Value, name: &str) -> Result<&'a Value> {
    containers(pod).find(|container| container["name"] == name).with_context(|| format!("no container {name}"))
}

fn ports(container: &Value) -> impl Iterator<Item = (&str, u64)> {
    list(&container["ports"]).iter().filter_map(|port| Some((port["name"].as_str()?, port["containerPort"].as_u64()?)))
}

#[test]
fn ports_probes_and_sockets_are_where_the_programs_serve_them() -> Result<()> {
    for variant in variants()? {
        let node = variant.pod("weir-node")?;
        let (tracer, agent) = (container(node, "tracer")?, container(node, "agent")?);
        let traces: weir_tracer::Args = parse(tracer)?;
        let collects: weir_agent::Args = parse(agent)?;
        let prepares: weir_agent::Args = parse(container(node, "spool")?)?;
        ensure!(collects.feed == format!("unix:{}", traces.socket.display()));
        ensure!(collects.spool == prepares.spool && prepares.prepare_spool.is_some());
        let group = prepares.prepare_spool.map(|group| group.to_string());
        ensure!(
            traces.socket_group == group
                && node["securityContext"]["fsGroup"].as_u64().map(|id| id.to_string()) == group
        );
        ensure!(ports(agent).eq([("metrics", u64::from(collects.metrics_listen.port()))]), "{}", variant.name);
        let is_on_loopback = list(&agent["ports"]).iter().all(|port| port["hostIP"] == "127.0.0.1");
        ensure!(collects.metrics_listen.ip().is_loopback() == is_on_loopback, "{}", variant.name);

        let server = container(variant.pod("weir-server")?, "server")?;
        let serves: weir_server::Args = parse(server)?;
        ensure!(
            ports(server)
                .eq([("http", u64::from(serves.listen.port())), ("agents", u64::from(serves.agents_listen.port()))])
        );
        ensure!(serves.token_file.is_some() && !serves.insecure && !collects.insecure);
        let at = format!("http://weir-server.weir.svc:{}", serves.agents_listen.port());
        ensure!(collects.server == at);

        for container in [agent, server] {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let asks = &container[probe]["httpGet"];
                let is_served = ports(container).any(|(name, port)| asks["port"] == name || asks["port"] == port);
                ensure!(is_served && matches!(asks["path"].as_str(), Some("/healthz" | "/readyz")), "{asks}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_projected_token_is_for_the_server_alone_and_turns_over_every_hour() -> Result<()> {
    for variant in variants()? {
        let node = variant.pod("weir-node")?;
        let collects: weir_agent::Args = parse(container(node, "agent")?)?;
        let file = collects.token_file.context("a token file")?;
        let mounts = list(&container(node, "agent")?["volumeMounts"]);
        let mount = mounts
            .iter()
            .find(|mount| mount["mountPath"].as_str().is_some_and(|path| file.starts_with(path)))
            .context("a mount")?;
        let volume =
            list(&node["volumes"]).iter().find(|volume| volume["name"] == mount["name"]).context("a volume")?;
        let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
        let server = container(variant.pod("weir-server")?, "server")?;
        let audience = value(server, "agents_audience")?;
        ensure!(token["audience"] == audience && token["expirationSeconds"] == 3600, "{token}, {audience}");
        let account = format!("weir/{}", text(&node["serviceAccountName"])?);
        ensure!(value(server, "agents_service_account")? == account, "the server does not expect {account}");
        ensure!(value(server, "agents_auth")? == "service-account");
        ensure!(file.file_name().is_some_and(|name| token["path"] == *name.to_string_lossy()));
    }
    Ok(())
}
