//! A machine that continues from a saved state, perhaps beside the one that it was saved from.

use crate::error::SpecError;
use crate::spec::MachineSpec;
use crate::spec::device::{Backend, Display, Monitor};
use crate::spec::endpoint::Endpoint;

/// The channel over which the state comes in.
pub(crate) const INCOMING: &str = "incoming";

/// Machines that continue.
impl MachineSpec {
    /// Starts with the state of another machine of this description in place of a fresh one
    /// (`-incoming defer`): nothing runs until it is there. It comes over a socket pair that QEMU
    /// inherits, the channel `incoming`: QMP's `migrate-incoming` with `fd:N`, where N is the
    /// descriptor of
    /// [`Process::address`](crate::Process::address), makes QEMU read it, and
    /// [`Process::take`](crate::Process::take) has the end to write it to. A state that does not
    /// fit ends QEMU with status 1 and the reason on stderr. Unix only.
    #[must_use]
    pub fn incoming(mut self) -> Self {
        self.incoming = true;
        self
    }

    /// The same machine with endpoints of its own, so that it can run beside this one. Nothing of
    /// it listens but where its user alone can connect: sockets at a path and TCP ports become
    /// private sockets, the QMP monitor an inherited socket pair, and there is no GDB stub. Its
    /// stdin and stdout are the defaults. It ends with its handle, even where this one is to keep
    /// running. `extra_args` stay as they are.
    ///
    /// # Errors
    /// [`SpecError::Conflict`] where both would write to one file: a serial port's, a character
    /// device's or the log's; or where a port of this host is forwarded to the guest.
    pub fn with_own_endpoints(mut self) -> Result<Self, SpecError> {
        if let Some(file) = self.log.as_ref().and_then(|log| log.file.as_ref()) {
            return Err(shared("log", file.display()));
        }
        if let Some(rule) = self.forwarded_port() {
            return Err(SpecError::Conflict {
                message: format!(
                    "hostfwd={rule} forwards a port of this host, which one machine alone can have; \
                     with the port 0 each gets one of its own"
                ),
            });
        }
        self.kept = false;
        self.stdio = super::Stdio::default();
        self.qmp = self.qmp.map(|_| Endpoint::Inherited);
        self.gdb = None;
        if let Display::Vnc(_) = self.display {
            self.display = Display::Vnc(Endpoint::PrivateSocket);
        }
        for monitor in &mut self.monitors {
            let (Monitor::Qmp(endpoint) | Monitor::Human(endpoint)) = monitor;
            *endpoint = own(std::mem::take(endpoint));
        }
        let serials = self
            .serials
            .iter_mut()
            .enumerate()
            .map(|(n, port)| (format!("serial{n}"), port));
        let chardevs = self
            .chardevs
            .iter_mut()
            .map(|(id, backend)| (id.clone(), backend));
        for (id, backend) in serials.chain(chardevs) {
            match backend {
                Backend::Endpoint(endpoint) => *endpoint = own(std::mem::take(endpoint)),
                Backend::File { path, .. } => return Err(shared(&id, path.display())),
                Backend::RingBuffer { .. } | Backend::Null => {}
            }
        }
        Ok(self)
    }

    /// The rule of a `hostfwd` with a fixed port, as in `tcp:127.0.0.1:2222-:22`.
    fn forwarded_port(&self) -> Option<String> {
        let words = self.extra_args.iter().filter_map(|word| word.to_str());
        let in_words = words.flat_map(|word| {
            let rules = word.split(',').filter_map(|p| p.strip_prefix("hostfwd="));
            rules.map(str::to_owned)
        });
        let properties = self.nics.iter().flat_map(|nic| &nic.properties);
        let in_nics = properties
            .filter(|(key, _)| key == "hostfwd")
            .map(|(_, rule)| rule.to_string_lossy().into_owned());
        in_words.chain(in_nics).find(|rule| {
            let host = rule.split('-').next().unwrap_or(rule);
            host.rsplit(':').next().is_some_and(|port| port != "0")
        })
    }
}

fn own(endpoint: Endpoint) -> Endpoint {
    match endpoint {
        Endpoint::Inherited | Endpoint::PrivateSocket => endpoint,
        Endpoint::Socket(_) | Endpoint::Loopback { .. } | Endpoint::Exposed(_) => {
            Endpoint::PrivateSocket
        }
    }
}

fn shared(id: &str, path: std::path::Display<'_>) -> SpecError {
    let what = format!("the file {path}");
    SpecError::shared(what, id, &format!("{id} of the machine beside it"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::device::Log;

    #[test]
    fn endpoints_that_would_collide_are_changed_and_the_others_kept() {
        let spec = MachineSpec::default()
            .qmp(Endpoint::loopback(4444))
            .gdb(Endpoint::loopback(1234))
            .serial(Endpoint::Socket("/run/s".into()))
            .serial(Endpoint::PrivateSocket)
            .serial(Backend::Null)
            .monitor(Monitor::Human(Endpoint::Exposed(
                ([0, 0, 0, 0], 4445).into(),
            )))
            .chardev("console", Endpoint::Inherited)
            .keep_running();
        let own = spec.with_own_endpoints().unwrap();
        assert!(!own.kept);
        let line = own
            .argv(Path::new("/q"), Path::new("/run/own"))
            .unwrap()
            .to_string();
        for wanted in [
            "socket,id=qmp,fd=3 ",
            "socket,id=serial0,path=/run/own/serial0.sock,",
            "socket,id=serial1,path=/run/own/serial1.sock,",
            "null,id=serial2",
            "socket,id=monitor0,path=/run/own/monitor0.sock,",
            "socket,id=console,fd=4",
        ] {
            assert!(line.contains(wanted), "{wanted} in {line}");
        }
        assert!(!line.contains("gdb") && !line.contains("port="), "{line}");
    }

    #[test]
    fn a_file_that_both_would_write_is_named() {
        let refused = |spec: MachineSpec| spec.with_own_endpoints().unwrap_err().to_string();
        let forwarded = |rule: &str| {
            let nic = format!("user,model=virtio,hostfwd={rule}");
            MachineSpec::default().extra_args(["-nic", &nic])
        };
        for rule in ["tcp::2222-:22", "tcp:127.0.0.1:80-10.0.2.15:80"] {
            assert!(refused(forwarded(rule)).contains(rule));
        }
        forwarded("tcp::0-:22").with_own_endpoints().unwrap();
        let file = || Backend::File {
            path: "/tmp/uart".into(),
            append: true,
        };
        assert_eq!(
            refused(MachineSpec::default().serial(file())),
            "serial0 and serial0 of the machine beside it would share the file /tmp/uart"
        );
        let refusal = refused(MachineSpec::default().chardev("c", file()));
        assert!(refusal.starts_with("c and c of the machine"), "{refusal}");
        let log = Log::items(["guest_errors"]).to_file("/tmp/log");
        let refusal = refused(MachineSpec::default().log(log));
        assert!(
            refusal.ends_with("would share the file /tmp/log"),
            "{refusal}"
        );
    }
}
