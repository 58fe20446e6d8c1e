//! A random walk over the session's verbs, one after the other, two at once, or dropped in the
//! middle, against a model of the run state, of a word of memory and of the snapshots.
//!
//! Where it is chance what has happened, the model has several worlds, and what is observed after
//! the step must be one of them. The seed of a walk that fails is in its message;
//! `QEMU_CONTROLLER_SEED` walks it again.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use qemu_controller::{AfterLoad, Session, SnapshotError, Verdict};
use test_support::drop_after;

use crate::snapshots::check_put_back;
use crate::support::{config, counter, counts, long};

/// Memory that the firmware does not use.
const WORD: u64 = 0x2000_8000;

const NAMES: [&str; 3] = ["a", "b", "c"];

const STEPS_PER_SESSION: usize = 40;

#[derive(Clone, Copy, Debug)]
enum Verb {
    Pause,
    Resume,
    Reset,
    Write(u32),
    Save {
        name: &'static str,
        overwrite: bool,
    },
    Load(&'static str, AfterLoad),
    Delete(&'static str),
    Fresh(&'static str),
    Fork,
    /// Waits a moment for the end that does not come, and looks where the guest is.
    Hang,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Done,
    Exists,
    Missing,
    Forked(Machine),
}

/// What another machine can continue from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Machine {
    running: bool,
    word: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct World {
    machine: Machine,
    saved: BTreeMap<String, Machine>,
}

impl Verb {
    fn any(rng: &mut Rng) -> Self {
        let name = NAMES[rng.usize(..NAMES.len())];
        let then = [
            AfterLoad::AsBefore,
            AfterLoad::AsSaved,
            AfterLoad::Paused,
            AfterLoad::Running,
        ];
        match rng.u8(..16) {
            0..2 => Self::Pause,
            2..4 => Self::Resume,
            4 => Self::Reset,
            5..7 => Self::Write(rng.u32(..)),
            7..10 => Self::Save {
                name,
                overwrite: rng.bool(),
            },
            10..13 => Self::Load(name, then[rng.usize(..then.len())]),
            13 => Self::Delete(name),
            14 => Self::Fresh(name),
            _ if rng.bool() => Self::Fork,
            _ => Self::Hang,
        }
    }

    async fn run(self, session: &Session) -> Outcome {
        let snapshots = match self {
            Self::Pause => return done(session.pause().await),
            Self::Resume => return done(session.resume().await),
            Self::Reset => return done(session.reset().await),
            Self::Write(word) => {
                return done(session.write_memory(WORD, &word.to_le_bytes()).await);
            }
            Self::Fork => {
                let forks = session.fork(1).await.unwrap();
                return Outcome::Forked(Machine::of(&forks[0]).await);
            }
            Self::Hang => {
                // That of `run_to_end` may wait for its turn until its deadline.
                session.resume().await.unwrap();
                let verdict = session.run_to_end(Duration::from_millis(5)).await;
                assert!(matches!(verdict, Verdict::TimedOut(_)), "{verdict:?}");
                return Outcome::Done;
            }
            Self::Save { name, overwrite } => {
                let save = session.save_snapshot(name);
                let save = if overwrite { save.overwrite() } else { save };
                save.await.map(drop)
            }
            Self::Load(name, then) => session.load_snapshot(name).then(then).await.map(drop),
            Self::Delete(name) => session.delete_snapshot(name).await,
            Self::Fresh(name) => session.with_fresh_state(name, async |_| ()).await,
        };
        match snapshots {
            Ok(()) => Outcome::Done,
            Err(SnapshotError::Exists { .. }) => Outcome::Exists,
            Err(SnapshotError::Missing { .. }) => Outcome::Missing,
            Err(error) => panic!("{self:?}: {error:?}"),
        }
    }
}

fn done<E: std::fmt::Debug>(result: Result<(), E>) -> Outcome {
    result.unwrap();
    Outcome::Done
}

impl Machine {
    async fn of(session: &Session) -> Self {
        Self {
            running: session.query_status().await.unwrap().running,
            word: session.read_u32(WORD).await.unwrap(),
        }
    }
}

impl World {
    /// What the verb makes of it, and what it returns.
    fn after(&self, verb: Verb) -> (Self, Outcome) {
        let mut after = self.clone();
        let saved = |name: &str| self.saved.get(name).copied();
        let outcome = match verb {
            Verb::Pause => {
                after.machine.running = false;
                Outcome::Done
            }
            Verb::Resume | Verb::Hang => {
                after.machine.running = true;
                Outcome::Done
            }
            Verb::Reset => Outcome::Done,
            Verb::Write(word) => {
                after.machine.word = word;
                Outcome::Done
            }
            Verb::Save {
                name,
                overwrite: false,
            } if saved(name).is_some() => Outcome::Exists,
            Verb::Save { name, .. } => {
                after.saved.insert(name.to_owned(), self.machine);
                Outcome::Done
            }
            Verb::Load(name, then) => match saved(name) {
                None => Outcome::Missing,
                Some(machine) => {
                    after.machine = machine;
                    after.machine.running = match then {
                        AfterLoad::AsBefore => self.machine.running,
                        AfterLoad::AsSaved => machine.running,
                        AfterLoad::Paused => false,
                        AfterLoad::Running => true,
                    };
                    Outcome::Done
                }
            },
            Verb::Delete(name) => match after.saved.remove(name) {
                None => Outcome::Missing,
                Some(_) => Outcome::Done,
            },
            Verb::Fresh(name) => {
                match saved(name) {
                    None => drop(after.saved.insert(name.to_owned(), self.machine)),
                    Some(machine) => after.machine = machine,
                }
                Outcome::Done
            }
            Verb::Fork => Outcome::Forked(self.machine),
        };
        (after, outcome)
    }
}

struct Walk {
    session: Session,
    worlds: Vec<World>,
    rng: Rng,
    /// What was done, for the message of a failure.
    steps: Vec<String>,
}

impl Walk {
    async fn step(&mut self) {
        let (first, second) = (Verb::any(&mut self.rng), Verb::any(&mut self.rng));
        let mut worlds = Vec::new();
        match self.rng.u8(..4) {
            0 => {
                let polls = self.rng.usize(..6);
                self.steps
                    .push(format!("{first:?} dropped after {polls} polls"));
                let finished = drop_after(polls, first.run(&self.session)).await;
                worlds.extend(self.worlds.iter().map(|world| world.after(first).0));
                if !finished {
                    worlds.extend(self.worlds.iter().cloned());
                }
            }
            1 => {
                self.steps.push(format!("{first:?} beside {second:?}"));
                let session = &self.session;
                let outcomes = tokio::join!(first.run(session), second.run(session));
                for world in &self.worlds {
                    let (between, one) = world.after(first);
                    let (after, two) = between.after(second);
                    worlds.extend(((one, two) == outcomes).then_some(after));
                    let (between, two) = world.after(second);
                    let (after, one) = between.after(first);
                    worlds.extend(((one, two) == outcomes).then_some(after));
                }
            }
            _ => {
                self.steps.push(format!("{first:?}"));
                let outcome = first.run(&self.session).await;
                let after = self.worlds.iter().map(|world| world.after(first));
                worlds.extend(
                    after
                        .filter(|after| after.1 == outcome)
                        .map(|after| after.0),
                );
            }
        }
        self.check(worlds).await;
    }

    /// Keeps those worlds that are as what can be seen. What was begun is finished first: the
    /// listing waits for its turn.
    async fn check(&mut self, worlds: Vec<World>) {
        let session = &self.session;
        let listed: BTreeMap<_, _> = session
            .list_snapshots()
            .await
            .unwrap()
            .into_iter()
            .map(|one| (one.name, one.running.unwrap()))
            .collect();
        let machine = Machine::of(session).await;
        check_put_back(session).await;
        if machine.running {
            assert!(counts(session).await, "{:#?}", self.steps);
        } else {
            let now = counter(session).await;
            assert_eq!(counter(session).await, now, "{:#?}", self.steps);
        }
        let is_seen = |world: &World| {
            let saved = world
                .saved
                .iter()
                .map(|(name, saved)| (name.clone(), saved.running));
            world.machine == machine && saved.collect::<BTreeMap<_, _>>() == listed
        };
        self.worlds.clear();
        for world in worlds.iter().filter(|world| is_seen(world)) {
            if !self.worlds.contains(world) {
                self.worlds.push(world.clone());
            }
        }
        let steps = &self.steps;
        assert!(
            !self.worlds.is_empty(),
            "after {steps:#?}\n{machine:?} with {listed:?} is none of {worlds:#?}"
        );
    }
}

/// Walks in one session; without a file the snapshots are gone with it.
async fn walk(rng: &mut Rng, file: Option<&Path>, saved: &mut Vec<BTreeMap<String, Machine>>) {
    let mut config = config("tick");
    config = match file {
        Some(path) => config.snapshot_file(path),
        None => config,
    };
    let session = Session::start(config).await.unwrap();
    let machine = Machine {
        running: true,
        word: 0,
    };
    let worlds = saved.iter().map(|saved| World {
        machine,
        saved: saved.clone(),
    });
    let mut walk = Walk {
        worlds: worlds.collect(),
        session,
        rng: rng.fork(),
        steps: Vec::new(),
    };
    for _ in 0..STEPS_PER_SESSION {
        walk.step().await;
    }
    walk.session.stop().await.unwrap();
    *saved = walk.worlds.into_iter().map(|world| world.saved).collect();
}

#[tokio::test]
async fn any_verbs_in_any_order() {
    let given = std::env::var("QEMU_CONTROLLER_SEED").ok();
    let seed = given.map_or_else(
        || RandomState::new().hash_one(0),
        |seed| seed.parse().unwrap(),
    );
    // Shown where the test fails.
    println!("QEMU_CONTROLLER_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let until = Instant::now() + Duration::from_secs(if long() { 240 } else { 3 });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots.qcow2");
    let mut in_file = vec![BTreeMap::new()];
    let mut sessions = 0;
    while Instant::now() < until || sessions < 2 {
        walk(&mut rng, None, &mut vec![BTreeMap::new()]).await;
        walk(&mut rng, Some(&path), &mut in_file).await;
        sessions += 2;
    }
    println!("{sessions} sessions of {STEPS_PER_SESSION} steps");
}
