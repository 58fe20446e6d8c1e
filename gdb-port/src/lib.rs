//! Tells whether a GDB stub is reachable, without harm to the guest.
