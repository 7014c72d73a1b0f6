//! Torture: real agents and a real server under every fault that can be made, and a checker that knows the truth.
//!
//! A run is drawn from a seed ([`run::Plan`]). Its [`world`] is what really happens; agents read it from feeds, deliver
//! through a [`relay`] that mistreats messages, to a server whose folder survives; all [`parts`] are killed, ended at
//! fail points and frozen. Meanwhile a [`reader`] reads; afterwards [`check`] and [`care`] hold answers and history
//! against the truth. [`blind`] is what they must catch; [`report`] writes down what was played.

pub mod blind;
pub mod care;
pub mod check;
pub mod disk;
pub mod parts;
pub mod random;
pub mod reader;
pub mod relay;
pub mod report;
pub mod run;
pub mod world;
