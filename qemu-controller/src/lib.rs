//! Start QEMU with a firmware image and steer it: a ready QMP session, a reachable GDB stub, no process left behind.
