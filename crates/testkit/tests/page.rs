//! The promise: the page in a real browser shows what this machine really does.

use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use weir_testkit::is_root_or_skip;
use weir_testkit::played::Stage;
use weir_testkit::process::until;
use weir_testkit::traffic::Manner;
use weir_testkit::weir::Weir;

#[test]
fn the_page_in_chromium_shows_the_edges_and_totals_of_a_running_weir() -> Result<()> {
    if !is_root_or_skip("the_page_in_chromium_shows_the_edges_and_totals_of_a_running_weir") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let weir = Weir::up(&folder.path().join("data"), "1s", &[])?;
    let mut stage = Stage::open()?;
    let server = stage.at("127.0.0.1", Manner::Echo)?;
    stage.play(&["echo", "--bytes", "65536"], &[server])?;
    until(Duration::from_secs(20), || Ok(weir.edges()?.iter().any(|edge| edge.port == server.port())))?;
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui");
    let output = Command::new("node")
        .args(["--test", "e2e/page.test.mjs"])
        .env("WEIR_URL", weir.url())
        .current_dir(ui)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}
