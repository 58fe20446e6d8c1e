//! A QEMU in memory as far as snapshots need one: jobs, block nodes, an SD card, a run state; and
//! the faults that a test gives it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use qemu_controller::Session;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::peer::{Heard, Peer, connected};

const CARD: &str = "/machine/unattached/device[21]";

/// What goes wrong, counted over the commands from the first after the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Fault {
    #[default]
    None,
    /// The command of this number is refused.
    Refuse(usize),
    /// The stream ends in place of its answer.
    End(usize),
    /// The jobs of this command fail.
    Job(&'static str),
    /// The same, and no event tells of them.
    SilentJob(&'static str),
    /// The same, and the last event tells that they are about to succeed.
    LostJob(&'static str),
    /// No event tells of a job.
    Silent,
    /// The guest comes to a stop right before the first command of this name, when nobody can know
    /// of it yet; by a shutdown that stays, or else by itself.
    StopsBefore {
        command: &'static str,
        shut_down: bool,
    },
    /// There are no snapshots before QEMU 6.0.
    Old,
}

/// What `set-action` says of a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Reboot {
    #[default]
    Resets,
    ShutsDown,
}

/// What the machine is at the end, and all commands that it got.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) told: Vec<String>,
    pub(super) card_is_out: bool,
    pub(super) paused: bool,
    pub(super) jobs: Vec<Value>,
    pub(super) tags: Vec<String>,
    pub(super) nodes: Vec<String>,
    /// The guest shut it down, and it stays; what a reset is then.
    pub(super) shut_down: bool,
    pub(super) reboot: Reboot,
    /// What was loaded last is what it is.
    pub(super) is_loaded: bool,
    /// Loads since the guest ran: after more than one its flash memory ends QEMU.
    unsettled: usize,
    /// What a save puts into the file that was opened last, in place of what QEMU would.
    pub(super) image: Vec<u8>,
    /// The file that was opened last: it may lose its name then.
    file: Option<File>,
}

/// A session with such a machine.
pub(super) struct Scene {
    pub(super) session: Session,
    pub(super) state: Arc<Mutex<State>>,
    served: JoinHandle<()>,
}

impl Scene {
    pub(super) async fn new(fault: Fault) -> Self {
        let (session, peer) = connected().await;
        let state = Arc::new(Mutex::new(State::default()));
        let served = tokio::spawn(serve(peer, Arc::clone(&state), fault));
        Self {
            session,
            state,
            served,
        }
    }

    /// Waits until the machine has read all that was sent.
    pub(super) async fn end(self) -> State {
        drop(self.session);
        self.served.await.unwrap();
        std::mem::take(&mut self.state.lock().unwrap())
    }
}

async fn serve(mut peer: Peer, state: Arc<Mutex<State>>, fault: Fault) {
    let mut number = 0;
    while let Some(command) = peer.hear_or_end().await {
        state.lock().unwrap().told.push(command.name.clone());
        if fault == Fault::End(number) {
            return peer.close(None);
        }
        if fault == Fault::Refuse(number) {
            let error = json!({ "class": "GenericError", "desc": "refused" });
            peer.say(json!({ "error": error, "id": command.id }).to_string())
                .await;
        } else {
            let (value, events) = state.lock().unwrap().answer(&command, fault);
            for (name, data) in events {
                peer.event(name, data).await;
            }
            peer.reply(&command, value).await;
        }
        number += 1;
    }
}

type Events = Vec<(&'static str, Value)>;

impl State {
    fn answer(&mut self, command: &Heard, fault: Fault) -> (Value, Events) {
        let arguments = &command.arguments;
        let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
        let mut events = self.stops_before(&command.name, fault);
        let value = match command.name.as_str() {
            "query-status" if self.shut_down => json!({ "status": "shutdown", "running": false }),
            "system_reset" => {
                self.shut_down = self.reboot == Reboot::ShutsDown;
                self.is_loaded = false;
                let what = if self.shut_down { "SHUTDOWN" } else { "RESET" };
                events.push((
                    what,
                    json!({ "guest": false, "reason": "host-qmp-system-reset" }),
                ));
                json!({})
            }
            "set-action" => {
                self.reboot = if text("reboot") == "reset" {
                    Reboot::Resets
                } else {
                    Reboot::ShutsDown
                };
                json!({})
            }
            "query-cpus-fast" => json!([]),
            "query-memory-size-summary" => json!({ "base-memory": 65536 }),
            "query-status" if self.paused => json!({ "status": "paused", "running": false }),
            "query-status" => json!({ "status": "running", "running": true }),
            "cont" => {
                assert!(!self.shut_down, "resetting the virtual machine is required");
                events.extend(self.resume());
                json!({})
            }
            "stop" => {
                events.extend(self.stop());
                json!({})
            }
            "query-commands" if fault == Fault::Old => json!([{ "name": "query-commands" }]),
            "query-commands" => {
                json!(
                    ["snapshot-save", "snapshot-load", "snapshot-delete"]
                        .map(|name| json!({ "name": name }))
                )
            }
            "qom-list" if text("path") == "/machine/unattached" => {
                json!([{ "name": "device[21]", "type": "child<sd-card-spi>" }])
            }
            "qom-list" if text("path") == "/machine" => {
                json!([{ "name": "flash", "type": "child<cfi.pflash01>" }])
            }
            "qom-list" | "query-block" => json!([]),
            "qom-get" => json!(""),
            "qom-set" => {
                assert_eq!(
                    (text("path"), text("property")),
                    (CARD.to_owned(), "realized".to_owned())
                );
                self.card_is_out = arguments["value"] == false;
                json!({})
            }
            "blockdev-add" => {
                self.nodes.push(text("node-name"));
                let path = arguments["file"]["filename"].as_str().unwrap();
                self.file = OpenOptions::new().write(true).open(path).ok();
                json!({})
            }
            "blockdev-del" => {
                self.nodes.retain(|node| *node != text("node-name"));
                json!({})
            }
            "query-named-block-nodes" => {
                let tags = self.tags.iter().enumerate();
                let snapshots: Vec<_> = tags
                    .map(|(id, tag)| json!({ "id": id.to_string(), "name": tag }))
                    .collect();
                let image = json!({ "filename": "f", "format": "qcow2", "snapshots": snapshots });
                let node = |name| json!({ "node-name": name, "drv": "qcow2", "image": image });
                json!(self.nodes.iter().map(node).collect::<Vec<_>>())
            }
            // No devices.
            "human-monitor-command" => json!(""),
            "query-jobs" => json!(self.jobs),
            "job-dismiss" => {
                self.jobs.retain(|job| job["id"] != arguments["id"]);
                json!({})
            }
            name @ ("snapshot-save" | "snapshot-load" | "snapshot-delete") => {
                self.job(name, &text("job-id"), text("tag"), fault, &mut events);
                json!({})
            }
            other => panic!("{other} is not expected"),
        };
        (value, events)
    }

    fn stop(&mut self) -> Option<(&'static str, Value)> {
        let ran = !std::mem::replace(&mut self.paused, true);
        ran.then(|| ("STOP", json!({})))
    }

    fn resume(&mut self) -> Option<(&'static str, Value)> {
        assert!(self.unsettled < 2, "QEMU crashes");
        self.unsettled = 0;
        std::mem::take(&mut self.paused).then(|| ("RESUME", json!({})))
    }

    fn stops_before(&mut self, name: &str, fault: Fault) -> Events {
        let mut events = Vec::new();
        if let Fault::StopsBefore { command, shut_down } = fault
            && command == name
            && self.told.iter().filter(|told| *told == name).count() == 1
        {
            if shut_down {
                self.shut_down = true;
                events.push((
                    "SHUTDOWN",
                    json!({ "guest": true, "reason": "guest-shutdown" }),
                ));
            }
            events.extend(self.stop());
        }
        events
    }

    fn job(&mut self, name: &str, id: &str, tag: String, fault: Fault, events: &mut Events) {
        let mut job = json!({ "id": id, "type": name, "status": "concluded" });
        let (failed, told) = match fault {
            Fault::Silent => (false, 0),
            Fault::Job(failing) if failing == name => (true, 4),
            Fault::LostJob(failing) if failing == name => (true, 3),
            Fault::SilentJob(failing) if failing == name => (true, 0),
            _ => (false, 4),
        };
        let mut course = Vec::new();
        match name {
            _ if failed => {
                job["error"] = json!("what QEMU says");
                if name == "snapshot-load" {
                    // QEMU leaves `restore-vm`.
                    events.extend(self.stop());
                }
            }
            "snapshot-save" => {
                assert!(
                    self.card_is_out,
                    "a state with the card in it can never be restored"
                );
                self.tags.push(tag);
                if !self.image.is_empty() {
                    let file = self.file.as_ref().unwrap();
                    file.set_len(0).unwrap();
                    file.write_all_at(&self.image, 0).unwrap();
                }
            }
            "snapshot-delete" => self.tags.retain(|other| *other != tag),
            "snapshot-load" => {
                assert!(self.tags.contains(&tag), "{tag}: {:?}", self.tags);
                self.is_loaded = true;
                self.unsettled += 1;
                // A guest that ran runs on.
                if let Some(stop) = self.stop() {
                    course.push(stop);
                    course.extend(self.resume());
                }
            }
            _ => {}
        }
        self.jobs.push(job);
        let end = if failed && told == 4 {
            "aborting"
        } else {
            "pending"
        };
        for (number, status) in ["created", "running", end, "concluded"]
            .into_iter()
            .enumerate()
        {
            if status == end {
                events.append(&mut course);
            }
            if number < told {
                events.push((
                    "JOB_STATUS_CHANGE",
                    json!({ "id": "another", "status": "concluded" }),
                ));
                events.push(("JOB_STATUS_CHANGE", json!({ "id": id, "status": status })));
            }
        }
    }
}
