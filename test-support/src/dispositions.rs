//! Signals as a program finds them that is started from a terminal, however its test was started.

use std::sync::Once;

use tokio::signal::unix::{SignalKind, signal};

/// What this process ignores, its children ignore too: under `nohup`, or in the background of a
/// script. What it catches, they do not, so that is done instead.
pub fn heed_signals() {
    static HEEDED: Once = Once::new();
    HEEDED.call_once(|| {
        let asking = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
        ];
        let ignored = signals("self", "SigIgn:");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        for kind in asking
            .into_iter()
            .filter(|kind| has(ignored, kind.as_raw_value()))
        {
            drop(signal(kind).unwrap());
        }
    });
}

/// A field of a process's status with a bit for each signal; none where there is no procfs.
pub fn signals(process: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .map(str::trim);
    bits.map_or(0, |bits| u64::from_str_radix(bits, 16).unwrap())
}

/// Whether the bit of this signal is set.
pub fn has(signals: u64, number: i32) -> bool {
    signals >> (number - 1) & 1 == 1
}
