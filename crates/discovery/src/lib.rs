//! Feeds the inventory: processes and cgroups.
