//! What a person or a program reads: [`text`] makes foreign text harmless, [`units`] numbers readable, [`table`] lays
//! out columns, [`rows`] says which columns each kind of row has, [`csv`] writes RFC 4180, and [`complete`] puts an
//! answer's completeness into words. [`point`] shows where in a filter it went wrong. [`terminal`] knows what we write to, and [`progress`] shows that we wait.

pub mod complete;
pub mod csv;
pub mod point;
pub mod progress;
pub mod rows;
pub mod table;
pub mod terminal;
pub mod text;
pub mod units;
