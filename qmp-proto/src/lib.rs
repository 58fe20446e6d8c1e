//! Sans-IO codec and connection state machine for QMP, the QEMU Machine Protocol.
