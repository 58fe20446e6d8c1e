//! Where the booted state is kept from one run to the next: nextest starts the program for each
//! test.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::Run;
use crate::settings::Settings;

/// A boot that takes longer is worth a file: to load one takes some 30 ms.
pub(super) const SLOW_BOOT: Duration = Duration::from_millis(500);

/// In Cargo's folder for what it builds, if the firmware is in one: what is there may be deleted at
/// any time. One file for each firmware and machine; whether what is in it fits is not known by its
/// name.
pub(super) fn path(run: &Run, settings: &Settings) -> Option<PathBuf> {
    let firmware = run.firmware.as_ref()?.canonicalize().ok()?;
    let target = target_folder(&firmware)?;
    let mut hasher = DefaultHasher::new();
    let Settings {
        machine,
        cpu,
        memory,
        qemu,
        deterministic,
        qemu_args,
        ..
    } = settings;
    (&firmware, machine, cpu, memory, qemu).hash(&mut hasher);
    (deterministic, qemu_args, &run.qemu_args).hash(&mut hasher);
    let name = format!("{:016x}.state", hasher.finish());
    Some(target.join("qemu-controller").join(name))
}

/// Cargo's folder for what it builds, if a firmware is in one.
pub(crate) fn target_folder(firmware: &Path) -> Option<PathBuf> {
    let firmware = firmware.canonicalize().ok()?;
    let is_target = |folder: &&Path| folder.join("CACHEDIR.TAG").is_file();
    let target = firmware.ancestors().skip(1).find(is_target)?;
    Some(target.to_owned())
}
