//! For this project's own tests: the bodies of the fuzz targets, and a probe that does not look first. No part of the interface.

#[cfg(feature = "tokio")]
pub use crate::connect::probe_unlooked;
