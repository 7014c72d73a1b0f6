//! Torture: real agents and a real server under every fault that can be made, and a checker that knows the truth.
//!
//! A run is drawn from a seed ([`plan::Plan`]). Its [`world`] is what really happens; agents read it from feeds, deliver
//! through a [`relay`] that mistreats messages, in some runs over [`cables`] that are pulled, to a server whose folder
//! (or [`etcd`], or [`config_maps`]) survives; all [`parts`] are killed, ended at fail points and frozen, in some runs also the tracer of a
//! [`real`] node. Meanwhile a [`reader`] reads; afterwards [`check`] and [`care`] hold answers and history against the
//! truth. [`blind`] is what they must catch; [`report`] writes down what was played.

pub mod blind;
pub mod cables;
pub mod care;
pub mod check;
pub mod config_maps;
pub mod disk;
pub mod etcd;
pub mod parts;
pub mod plan;
pub mod random;
pub mod reader;
pub mod real;
pub mod relay;
pub mod report;
pub mod run;
pub mod simulated;
pub mod world;
