//! Builds QEMU's command line from a typed description, spawns the process, watches it and ends it.
