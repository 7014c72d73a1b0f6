//! One process of the demo's shop; see `weir_testkit::shop`.

use clap::Parser;
use weir_testkit::shop::Part;

fn main() -> anyhow::Result<()> {
    let part = Part::parse();
    // The process is seen under the part's name; the kernel keeps 15 letters of it.
    nix::sys::prctl::set_name(&std::ffi::CString::new(part.name.clone())?)?;
    part.run()
}
