//! Current state and history behind two traits; the embedded backend.
