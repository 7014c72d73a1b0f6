//! The weir binary: commands, tables, JSON, live view.
