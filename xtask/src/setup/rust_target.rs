//! The Rust target that `examples/embedded` is built for.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

const TARGET: &str = "thumbv7m-none-eabi";

/// Makes sure that the target's `core` is there; adds it where that is allowed and possible.
pub(super) fn ensure(no_install: bool) -> anyhow::Result<()> {
    if is_installed()? {
        return Ok(());
    }
    let line = format!("rustup target add {TARGET}");
    let missing = format!("the Rust target {TARGET} is not installed");
    if no_install {
        bail!("{missing}, and --no-install forbids to add it: `{line}`");
    }
    eprintln!("{missing}. It is added now, with:\n    {line}");
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run rustup; {missing}"))?;
    ensure!(status.success(), "`{line}` failed: {status}");
    Ok(())
}

fn is_installed() -> anyhow::Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc")?;
    let folder = String::from_utf8_lossy(&asked.stdout);
    Ok(asked.status.success() && Path::new(folder.trim()).is_dir())
}
