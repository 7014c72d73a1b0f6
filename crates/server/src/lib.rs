//! Ingest, log, identify, pair, query, HTTP, web.
