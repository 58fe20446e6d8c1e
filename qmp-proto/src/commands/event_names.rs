//! The names of QEMU's events, so that an event needs no memory for its own.

/// One more than the longest name.
const LENGTHS: usize = 31;

/// The events of QEMU 7.2 to 10.0, by the length of their names. One that is missing here costs an
/// allocation, no more.
const BY_LENGTH: [&[&str]; LENGTHS] = {
    let mut table: [&[&str]; LENGTHS] = [&[]; LENGTHS];
    table[4] = &["STOP"];
    table[5] = &["RESET"];
    table[6] = &["RESUME", "WAKEUP"];
    table[7] = &["SUSPEND"];
    table[8] = &["SHUTDOWN", "WATCHDOG"];
    table[9] = &["COLO_EXIT", "MIGRATION", "POWERDOWN"];
    table[10] = &["RTC_CHANGE"];
    table[12] = &["SUSPEND_DISK"];
    table[13] = &["VNC_CONNECTED"];
    table[14] = &[
        "BALLOON_CHANGE",
        "BLOCK_IO_ERROR",
        "DEVICE_DELETED",
        "DUMP_COMPLETED",
        "GUEST_PANICKED",
        "MEMORY_FAILURE",
        "MIGRATION_PASS",
        "QUORUM_FAILURE",
        "UNPLUG_PRIMARY",
        "VFIO_MIGRATION",
    ];
    table[15] = &[
        "ACPI_DEVICE_OST",
        "BLOCK_JOB_ERROR",
        "BLOCK_JOB_READY",
        "SPICE_CONNECTED",
        "VNC_INITIALIZED",
        "VSERPORT_CHANGE",
    ];
    table[16] = &["MEM_UNPLUG_ERROR", "VNC_DISCONNECTED"];
    table[17] = &[
        "BLOCK_JOB_PENDING",
        "DEVICE_TRAY_MOVED",
        "GUEST_CRASHLOADED",
        "JOB_STATUS_CHANGE",
        "QUORUM_REPORT_BAD",
        "SPICE_INITIALIZED",
        "VFU_CLIENT_HANGUP",
    ];
    table[18] = &["SPICE_DISCONNECTED"];
    table[19] = &[
        "BLOCK_JOB_CANCELLED",
        "BLOCK_JOB_COMPLETED",
        "FAILOVER_NEGOTIATED",
    ];
    table[20] = &["BLOCK_EXPORT_DELETED"];
    table[21] = &[
        "BLOCK_IMAGE_CORRUPTED",
        "BLOCK_WRITE_THRESHOLD",
        "NIC_RX_FILTER_CHANGED",
    ];
    table[23] = &[
        "CPU_POLARIZATION_CHANGE",
        "NETDEV_STREAM_CONNECTED",
        "NETDEV_STREAM_RECONNECT",
        "RDMA_GID_STATUS_CHANGED",
        "SPICE_MIGRATE_COMPLETED",
    ];
    table[24] = &["HV_BALLOON_STATUS_REPORT"];
    table[25] = &[
        "DEVICE_UNPLUG_GUEST_ERROR",
        "MEMORY_DEVICE_SIZE_CHANGE",
        "PR_MANAGER_STATUS_CHANGED",
    ];
    table[26] = &["NETDEV_STREAM_DISCONNECTED"];
    table[27] = &["NETDEV_VHOST_USER_CONNECTED"];
    table[30] = &["NETDEV_VHOST_USER_DISCONNECTED"];
    table
};

/// The known event with this name.
pub(crate) fn known_event(name: &[u8]) -> Option<&'static str> {
    BY_LENGTH
        .get(name.len())?
        .iter()
        .find(|known| known.as_bytes() == name)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_found_under_its_length() {
        for (length, names) in BY_LENGTH.iter().enumerate() {
            for name in *names {
                assert_eq!(name.len(), length);
                assert_eq!(known_event(name.as_bytes()), Some(*name));
            }
        }
        assert_eq!(known_event(b"STOPS"), None);
        assert_eq!(known_event(&[b'X'; LENGTHS]), None);
        assert_eq!(known_event(b""), None);
    }
}
