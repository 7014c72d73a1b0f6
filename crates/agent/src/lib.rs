//! Observe, attribute, window, spool, export.
