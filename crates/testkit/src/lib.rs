//! Builders, stand-ins and real traffic with its truth. Tests and the demo only.
