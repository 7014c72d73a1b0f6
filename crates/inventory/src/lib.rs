//! Who is behind a network namespace, cgroup or pid at an instant. Pure, one writer.
