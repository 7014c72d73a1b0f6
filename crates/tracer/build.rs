//! Compiles the probes (`src/probes/*/probe.bpf.c`) with clang and names their version: a hash of every source, so that
//! a tracer only takes over kernel maps that it knows the layout of.

use libbpf_cargo::SkeletonBuilder;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PROBES: [&str; 3] = ["cgroups", "tcp", "udp"];

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let probes = Path::new("src/probes");
    for probe in PROBES {
        let source = probes.join(probe).join("probe.bpf.c");
        let object = out.join(format!("{probe}.bpf.o"));
        if let Err(error) =
            SkeletonBuilder::new().source(&source).obj(&object).clang_args(["-Wall", "-Werror", "-mcpu=v3"]).build()
        {
            panic!("failed to compile {}: {error:#}; it needs clang 12 or newer", source.display());
        }
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for path in sources(probes) {
        println!("cargo::rerun-if-changed={}", path.display());
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
        // FNV-1a.
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    println!("cargo::rustc-env=WEIR_PROBES_ABI={hash:016x}");
    println!("cargo::rerun-if-changed=build.rs");
}

/// The C sources and `layout.rs`, in an order that does not depend on the file system.
fn sources(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("failed to read {}: {error}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.append(&mut sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "c" || kind == "h") || path.ends_with("layout.rs") {
            found.insert(path);
        }
    }
    found
}
