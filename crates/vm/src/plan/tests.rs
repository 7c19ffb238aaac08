//! Plans, one by one, and a model of a host that carries them out, is cut off anywhere, and must end right.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    desired::{self, Bootstrap, Inputs},
    images::ImageDisk,
};

const NOW: &str = "2026-01-02T03:04:05Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn wish(change: impl FnOnce(&mut serde_json::Value)) -> Desired {
    let mut vm = json!({"metadata": {"name": "till", "namespace": "shop", "uid": "u"},
        "spec": {"className": "tiny", "imageName": "i", "networkInterfaces": [{}]}});
    change(&mut vm);
    let class = json!({"metadata": {"name": "tiny"}, "spec": {"hardware": {"cpus": 1, "memory": "16Mi"}}});
    desired::of(Inputs {
        vm: &vm,
        identity: "u",
        class: Some(&class),
        bootstrap: Bootstrap::None,
    })
}

fn image() -> Image {
    Image {
        disks: vec![ImageDisk {
            path: "/image".into(),
            format: "raw".into(),
            bytes: 1 << 20,
        }],
        digest: String::new(),
        efi: false,
    }
}

fn groups() -> std::sync::Arc<PortGroups> {
    let group = kinds::network::PortGroup {
        name: DEFAULT_NETWORK.into(),
        switch: "vSwitch0".into(),
        vlan_id: 0,
        mtu: 1500,
    };
    std::sync::Arc::new(PortGroups::from([(group.name.clone(), group)]))
}

/// A host with one virtual machine, as far as plans know it.
#[derive(Clone, Debug)]
struct Model {
    observed: Observed,
    /// What the cache answers.
    image: ImageState,
    /// Whether the guest switches off when asked.
    polite: bool,
    released: bool,
    started: usize,
}

impl Model {
    fn new(polite: bool) -> Self {
        let observed = Observed {
            cd_current: true,
            port_groups: groups(),
            ..Observed::default()
        };
        Self {
            observed,
            image: ImageState::Ready(image()),
            polite,
            released: false,
            started: 0,
        }
    }

    fn stop_now(&mut self, asked: bool) {
        if let Guest::Alive(_, launch) = &mut self.observed.guest {
            if asked && launch.stop.is_none() {
                launch.stop = Some(Stop {
                    at: now(),
                    mode: Mode::Hard,
                });
            }
            self.observed.guest = Guest::Dead(launch.clone());
        }
    }

    fn apply(&mut self, desired: &Desired, step: &Step, now: Timestamp) {
        let observed = &mut self.observed;
        let alive = matches!(observed.guest, Guest::Alive(..));
        match &step.action {
            Action::Remember => {
                assert!(observed.record.is_none());
                observed.record = Some(Record {
                    namespace: "shop".into(),
                    name: "till".into(),
                    identity: "u".into(),
                    image: "i".into(),
                    digest: String::new(),
                    firmware: Firmware::Bios,
                    disks: Vec::new(),
                    ports: Vec::new(),
                    last_restart: None,
                });
            }
            Action::FetchImage => observed.image = self.image.clone(),
            Action::MakeDisks(image) => {
                let record = observed.record.as_mut().unwrap();
                assert!(record.disks.is_empty(), "disks in use would be made anew");
                let each = |disk: &ImageDisk| DiskRecord {
                    volume: String::new(),
                    backing: None,
                    bytes: disk.bytes,
                    grown: false,
                };
                record.disks = image.disks.iter().map(each).collect();
            }
            Action::AddDisk(wish) => {
                let disk = DiskRecord {
                    volume: wish.name.clone(),
                    backing: None,
                    bytes: wish.bytes.unwrap(),
                    grown: false,
                };
                observed.record.as_mut().unwrap().disks.push(disk);
            }
            Action::GrowDisk { index, bytes } => {
                let disk = &mut observed.record.as_mut().unwrap().disks[*index];
                assert!(disk.bytes < *bytes);
                disk.bytes = *bytes;
                disk.grown = true;
            }
            Action::WriteCd => observed.cd_current = true,
            Action::MakeTap { name, mtu } => {
                observed.taps.retain(|(tap, _)| tap != name);
                observed.taps.push((name.clone(), *mtu));
            }
            Action::RemoveTap(name) => {
                assert!(!alive);
                observed.taps.retain(|(tap, _)| tap != name);
            }
            Action::RequestPorts(nics) => {
                let port = |nic: &Nic| kinds::network::PortRequest {
                    interface: nic.tap.clone(),
                    port_group: nic.port_group.clone(),
                    mac: nic.mac.clone(),
                    owner: "shop/till".into(),
                };
                observed.record.as_mut().unwrap().ports = nics.iter().map(port).collect();
            }
            Action::Bury { .. } => {
                assert!(matches!(observed.guest, Guest::Dead(_)));
                observed.guest = Guest::Gone;
            }
            Action::Start {
                firmware,
                restart,
                resume,
            } => {
                assert_eq!(observed.guest, Guest::Gone, "two QEMUs on the same disks");
                assert_eq!(*resume, observed.saved);
                let hardware = desired.hardware.clone().unwrap();
                let record = observed.record.as_mut().unwrap();
                assert!(
                    hardware
                        .nics
                        .iter()
                        .all(|nic| observed.taps.iter().any(|(tap, _)| *tap == nic.tap))
                );
                if *restart {
                    record.last_restart = Some(now);
                }
                let launch = Launch {
                    owner: "shop/till".into(),
                    hardware,
                    disks: record.disks.len(),
                    cd: false,
                    firmware: *firmware,
                    accelerator: "tcg".into(),
                    started_at: now,
                    stop: None,
                };
                observed.guest = Guest::Alive(RunState::Running, launch);
                observed.saved = false;
                self.started += 1;
            }
            Action::Continue => {
                assert!(!observed.saved, "the guest would move away from its saved state");
                let Guest::Alive(state, _) = &mut observed.guest else {
                    panic!("no QEMU")
                };
                *state = RunState::Running;
            }
            Action::AskShutdown(stop) => {
                let Guest::Alive(state, launch) = &mut observed.guest else {
                    panic!("no QEMU")
                };
                assert_eq!(*state, RunState::Running);
                launch.stop = Some(*stop);
                if self.polite {
                    self.stop_now(true);
                }
            }
            Action::ForgetStop => {
                let Guest::Alive(_, launch) = &mut observed.guest else {
                    panic!("no QEMU")
                };
                launch.stop = None;
            }
            Action::Quit => self.stop_now(true),
            Action::Kill => {
                assert_eq!(observed.guest, Guest::Unreachable);
                observed.guest = Guest::Gone;
            }
            Action::Suspend => {
                assert!(alive);
                observed.saved = true;
                self.stop_now(true);
            }
            Action::DiscardSaved => observed.saved = false,
            Action::Remove => {
                assert!(
                    !alive && observed.guest != Guest::Unreachable,
                    "a running guest would lose its disks"
                );
                *observed = Observed {
                    cd_current: true,
                    port_groups: observed.port_groups.clone(),
                    ..Observed::default()
                };
            }
            Action::Release => self.released = true,
        }
    }

    /// Plans and applies until nothing is left to do; gives the last plan. Time passes when the plan waits.
    fn settle(&mut self, desired: &Desired, at: &mut Timestamp) -> Plan {
        for _ in 0..40 {
            let plan = plan(desired, &self.observed, *at);
            if self.released {
                return plan;
            }
            if plan.steps.is_empty() {
                let Some(wait) = plan.again else { return plan };
                *at += SignedDuration::try_from(wait).unwrap();
                self.observed.start_wait = None;
            }
            for step in &plan.steps {
                self.apply(desired, step, *at);
            }
        }
        panic!(
            "it never settles: {:?} {:?}",
            self.observed,
            plan(desired, &self.observed, *at)
        );
    }
}

fn actions(plan: &Plan) -> Vec<&Action> {
    plan.steps.iter().map(|step| &step.action).collect()
}

#[test]
fn from_nothing_to_running_in_order() {
    let desired = wish(|_| {});
    let mut model = Model::new(true);
    let mut names = Vec::new();
    for _ in 0..6 {
        let plan = plan(&desired, &model.observed, now());
        for step in &plan.steps {
            names.push(
                format!("{:?}", step.action)
                    .split(['(', ' ', '{'])
                    .next()
                    .unwrap()
                    .to_owned(),
            );
            model.apply(&desired, step, now());
        }
    }
    assert_eq!(
        names,
        [
            "Remember",
            "FetchImage",
            "MakeTap",
            "RequestPorts",
            "MakeDisks",
            "Start"
        ]
    );
    assert_eq!(plan(&desired, &model.observed, now()), Plan::default());
}

#[test]
fn a_missing_port_group_names_itself_and_those_that_are() {
    let desired =
        wish(|vm| vm["spec"]["networkInterfaces"] = json!([{"networkName": "A"}, {"networkName": "A"}, {}]));
    let mut model = Model::new(true);
    let plan = model.settle(&desired, &mut now());
    assert_eq!(
        plan.holds[0].message,
        "port group \"A\" does not exist; this host has \"VM Network\""
    );
    assert_eq!(model.started, 0);
}

#[test]
fn the_back_off_is_waited_for() {
    let desired = wish(|_| {});
    let mut model = Model::new(true);
    model.settle(&desired, &mut now());
    model.stop_now(false);
    let steps = plan(&desired, &model.observed, now());
    assert_eq!(actions(&steps), [&Action::Bury { expected: false }]);
    model.apply(&desired, &steps.steps[0], now());
    model.observed.start_wait = Some(Duration::from_secs(8));
    let waiting = plan(&desired, &model.observed, now());
    assert_eq!(
        (waiting.steps.len(), waiting.again),
        (0, Some(Duration::from_secs(8)))
    );
    assert_eq!(waiting.holds[0].reason, "BackOff");
}

#[test]
fn a_restart_in_the_future_is_waited_for() {
    let desired = wish(|vm| vm["spec"]["nextRestartTime"] = json!("2026-01-02T03:05:05Z"));
    let mut model = Model::new(true);
    let mut at = now();
    let plan = model.settle(&desired, &mut at);
    assert_eq!((model.started, plan), (2, Plan::default()));
    assert!(at >= "2026-01-02T03:05:05Z".parse().unwrap());
    // Once is enough.
    model.settle(&desired, &mut at);
    assert_eq!(model.started, 2);
}

#[test]
fn a_failed_disk_is_tried_again_after_a_while() {
    let desired = wish(|_| {});
    let mut model = Model::new(true);
    model.settle(&desired, &mut now());
    if let Guest::Alive(state, _) = &mut model.observed.guest {
        *state = RunState::IoError;
    }
    assert_eq!(
        actions(&plan(&desired, &model.observed, now())),
        [&Action::Continue]
    );
    model.observed.disk_wait = Some(Duration::from_secs(60));
    let waiting = plan(&desired, &model.observed, now());
    assert_eq!(
        (waiting.steps.len(), waiting.again, waiting.holds[0].reason),
        (0, Some(Duration::from_secs(60)), "DiskFailed")
    );
}

#[test]
fn a_running_guest_stays_when_what_it_needs_goes_missing() {
    let desired = wish(|_| {});
    let mut model = Model::new(true);
    model.settle(&desired, &mut now());
    let mut without = desired.clone();
    without.hardware = None;
    without.missing.push(desired::Missing {
        reason: "VirtualMachineClassNotFound",
        message: "gone".into(),
    });
    model.observed.port_groups = std::sync::Arc::default();
    let plan = model.settle(&without, &mut now());
    assert_eq!((plan.steps.len(), plan.holds.len()), (0, 1));
    assert!(matches!(model.observed.guest, Guest::Alive(..)));
}

#[test]
fn disks_of_another_image_are_not_taken_over() {
    let mut model = Model::new(true);
    model.settle(
        &wish(|vm| vm["spec"]["powerState"] = json!("poweredOff")),
        &mut now(),
    );
    let held = model.settle(&wish(|vm| vm["spec"]["imageName"] = json!("other")), &mut now());
    assert_eq!((held.holds[0].reason, model.started), ("DisksOfAnotherImage", 0));
}

#[test]
fn the_worker_and_what_is_paused_are_left_alone() {
    let mut worker = wish(|_| {});
    worker.worker = true;
    let mut paused = wish(|_| {});
    paused.paused = true;
    for desired in [worker, paused] {
        assert_eq!(plan(&desired, &Observed::default(), now()), Plan::default());
    }
}

fn any_wish() -> impl Strategy<Value = (Desired, bool)> {
    let power = prop_oneof![Just("poweredOn"), Just("poweredOff"), Just("suspended")];
    let mode = || prop_oneof![Just("hard"), Just("trySoft")];
    let restart = prop::option::of(-100i64..400);
    (
        power,
        mode(),
        mode(),
        restart,
        0usize..3,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(power, off, restart_mode, restart, cards, deleting)| {
            let desired = wish(|vm| {
                let spec = &mut vm["spec"];
                spec["powerState"] = json!(power);
                spec["powerOffMode"] = json!(off);
                spec["restartMode"] = json!(restart_mode);
                spec["networkInterfaces"] = json!(vec![json!({}); cards]);
                if let Some(seconds) = restart {
                    spec["nextRestartTime"] = json!((now() + SignedDuration::from_secs(seconds)).to_string());
                }
                if deleting {
                    vm["metadata"]["deletionTimestamp"] = json!(NOW);
                }
            });
            (desired, deleting)
        })
}

#[derive(Clone, Debug)]
enum Fault {
    None,
    /// The daemon is gone after so many steps of its first plan.
    CutOff(usize),
    Killed,
    Silent,
    PausedByHand,
    TapGone,
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        (0usize..4).prop_map(Fault::CutOff),
        Just(Fault::Killed),
        Just(Fault::Silent),
        Just(Fault::PausedByHand),
        Just(Fault::TapGone),
    ]
}

proptest! {
    /// Whatever is asked for one after the other and whatever goes wrong in between, no step is ever dangerous
    /// (the model checks each), it settles, and what is asked for last is what is true.
    #[test]
    fn it_always_ends_right(wishes in prop::collection::vec((any_wish(), any_fault()), 1..6), polite in any::<bool>()) {
        let mut model = Model::new(polite);
        let mut at = now();
        for ((desired, deleting), fault) in wishes {
            match fault {
                Fault::None => {}
                Fault::CutOff(steps) => {
                    let plan = plan(&desired, &model.observed, at);
                    for step in plan.steps.iter().take(steps) {
                        model.apply(&desired, step, at);
                    }
                    // What is only in memory is lost.
                    model.observed.image = ImageState::Unasked;
                }
                Fault::Killed => model.stop_now(false),
                Fault::Silent if matches!(model.observed.guest, Guest::Alive(..)) => model.observed.guest = Guest::Unreachable,
                Fault::Silent => {}
                Fault::PausedByHand => if let Guest::Alive(state, _) = &mut model.observed.guest { *state = RunState::Paused },
                Fault::TapGone => if !matches!(model.observed.guest, Guest::Alive(..)) { model.observed.taps.clear() },
            }
            if model.released {
                return Ok(());
            }
            if model.observed.guest == Guest::Unreachable && desired.power != Power::PoweredOff && !deleting {
                let held = plan(&desired, &model.observed, at);
                prop_assert!(held.holds.iter().any(|hold| hold.reason == "NotAnswering") && held.again.is_some());
                // It is left alone until it is gone by itself.
                model.observed.guest = Guest::Gone;
            }
            let plan = model.settle(&desired, &mut at);
            if deleting {
                prop_assert!(model.released && model.observed.record.is_none() && model.observed.taps.is_empty());
                return Ok(());
            }
            prop_assert!(plan.holds.is_empty(), "{:?}", plan.holds);
            let is = match &model.observed.guest {
                Guest::Alive(RunState::Running, launch) => {
                    prop_assert!(launch.stop.is_none());
                    prop_assert!(desired.restart_at.is_none_or(|restart| launch.started_at >= restart || restart > at));
                    Power::PoweredOn
                }
                Guest::Gone if model.observed.saved => Power::Suspended,
                Guest::Gone => Power::PoweredOff,
                other => panic!("{other:?}"),
            };
            // A guest that was off can't be suspended.
            let right = is == desired.power || (desired.power == Power::Suspended && is == Power::PoweredOff);
            prop_assert!(right, "{:?} is {:?}", desired.power, is);
        }
    }
}
