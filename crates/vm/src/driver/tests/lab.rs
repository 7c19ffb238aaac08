//! A host for tests: an API of its own, images from files, real QEMU, real taps. Leaves nothing behind.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use apiserver::Status;
use async_trait::async_trait;
use kinds::{
    Gvr, Object, gvr,
    network::{NicIdentity, PortGroup, PortGroups, PortRequest},
    object,
};
use reconcile::{Driver, Key, Options, Signal, queue};
use serde_json::{Value, json};
use telemetry::{Clock, Metrics};
use tokio::{runtime::Runtime, sync::watch, time::timeout};

use super::super::{Config, FINALIZER, Vms};
use crate::{
    accelerator::Choice,
    images::{Image, ImageDisk, ImageError, Images},
    objects::Objects,
    process,
    record::{self, Launch, Paths},
    sys,
};

/// Switches the power button on, says `UP` on the serial console, and switches itself off when the button is
/// pressed.
const POLITE: [u8; 45] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xba, 0xf8, 0x03, 0xb0, 0x55,
    0xee, 0xb0, 0x50, 0xee, 0xb0, 0x0a, 0xee, 0xfb, 0xf4, 0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74,
    0xf5, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd,
];
/// Stands still and hears nothing.
const DEAF: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfc];
/// Switches itself off at once.
const SHY: [u8; 7] = [0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef];

const LIMIT: Duration = Duration::from_secs(30);
pub(super) const MIB: u64 = 1024 * 1024;

/// The API of the test.
#[derive(Default)]
pub(super) struct Site {
    objects: Mutex<BTreeMap<(String, String, String), Object>>,
    pub(super) events: Mutex<Vec<(String, String)>>,
    changed: watch::Sender<u64>,
}

impl Site {
    fn put(&self, plural: &str, object: Object) {
        let key = (
            plural.to_owned(),
            object::namespace(&object).to_owned(),
            object::name(&object).to_owned(),
        );
        self.objects.lock().unwrap().insert(key, object);
        self.changed.send_modify(|n| *n += 1);
    }

    fn change(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Object)) {
        let key = (
            "virtualmachines".to_owned(),
            namespace.to_owned(),
            name.to_owned(),
        );
        let mut objects = self.objects.lock().unwrap();
        if let Some(vm) = objects.get_mut(&key) {
            change(vm);
            if object::is_deleting(vm) && object::finalizers(vm).is_empty() {
                objects.remove(&key);
            }
        }
        drop(objects);
        self.changed.send_modify(|n| *n += 1);
    }

    pub(super) fn vm(&self, name: &str) -> Option<Object> {
        self.objects
            .lock()
            .unwrap()
            .get(&("virtualmachines".into(), "shop".into(), name.into()))
            .cloned()
    }
}

#[async_trait]
impl Objects for Site {
    async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Object>, Status> {
        Ok(self
            .objects
            .lock()
            .unwrap()
            .get(&(gvr.plural.clone(), namespace.into(), name.into()))
            .cloned())
    }

    async fn virtual_machines(&self) -> Result<Vec<Object>, Status> {
        let plural = gvr::virtual_machines().plural;
        let objects = self.objects.lock().unwrap();
        Ok(objects
            .iter()
            .filter(|(key, _)| key.0 == plural)
            .map(|(_, vm)| vm.clone())
            .collect())
    }

    async fn set_status(&self, namespace: &str, name: &str, status: Value) -> Result<(), Status> {
        self.change(namespace, name, |vm| vm["status"] = status);
        Ok(())
    }

    async fn set_finalizer(
        &self,
        namespace: &str,
        name: &str,
        finalizer: &str,
        present: bool,
    ) -> Result<(), Status> {
        self.change(namespace, name, |vm| {
            let list = if present { json!([finalizer]) } else { json!([]) };
            vm["metadata"]["finalizers"] = list;
        });
        Ok(())
    }

    async fn event(&self, _: &Object, _: bool, reason: &str, message: &str) {
        self.events.lock().unwrap().push((reason.into(), message.into()));
    }

    fn unknown_fields(&self, vm: &Object) -> Vec<String> {
        if vm["spec"].get("colour").is_some() {
            vec!["spec.colour".into()]
        } else {
            Vec::new()
        }
    }
}

/// Images are files of the test.
#[derive(Default)]
pub(super) struct Files {
    pub(super) images: Mutex<BTreeMap<String, Image>>,
}

#[async_trait]
impl Images for Files {
    async fn ensure(&self, reference: &str, progress: &watch::Sender<String>) -> Result<Image, ImageError> {
        progress.send_replace("looking".into());
        let image = self.images.lock().unwrap().get(reference).cloned();
        image.ok_or_else(|| ImageError::NotFound(format!("image {reference:?} is in no library")))
    }
}

/// A host.
pub(super) struct Lab {
    pub(super) site: Arc<Site>,
    pub(super) files: Arc<Files>,
    pub(super) clock: Clock,
    pub(super) config: Config,
    pub(super) groups: watch::Sender<Arc<PortGroups>>,
    pub(super) ports: watch::Receiver<Arc<Vec<PortRequest>>>,
    ports_sender: watch::Sender<Arc<Vec<PortRequest>>>,
    daemon: Option<(Signal, Runtime)>,
    dir: tempfile::TempDir,
}

pub(super) fn key(name: &str) -> Key {
    Key::new("shop", name)
}

impl Lab {
    /// A host with images `polite`, `deaf` and `shy`, a class `tiny` and the port group `VM Network`.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("state"), dir.path().join("run"), "host-1");
        config.accelerator = Choice::Tcg;
        config.cgroup_name = format!("selvedge-test-{}", uuid::Uuid::new_v4().simple());
        let files = Files::default();
        for (name, code) in [("polite", &POLITE[..]), ("deaf", &DEAF), ("shy", &SHY)] {
            let path = dir.path().join(format!("{name}.img"));
            let mut sector = vec![0; usize::try_from(MIB).unwrap()];
            sector[..code.len()].copy_from_slice(code);
            sector[510..512].copy_from_slice(&[0x55, 0xaa]);
            std::fs::write(&path, sector).unwrap();
            let disk = ImageDisk {
                path,
                format: "raw".into(),
                bytes: MIB,
            };
            let image = Image {
                disks: vec![disk],
                digest: "sha256:0".into(),
                efi: false,
            };
            files.images.lock().unwrap().insert(name.into(), image);
        }
        let group = PortGroup {
            name: "VM Network".into(),
            switch: "vSwitch0".into(),
            vlan_id: 0,
            mtu: 1500,
        };
        let groups = watch::Sender::new(Arc::new(PortGroups::from([(group.name.clone(), group)])));
        let (ports_sender, ports) = watch::channel(Arc::default());
        let clock = Clock::fixed("2026-01-02T03:04:05Z".parse().unwrap());
        let mut lab = Self {
            site: Arc::default(),
            files: Arc::new(files),
            clock,
            config,
            groups,
            ports,
            ports_sender,
            daemon: None,
            dir,
        };
        lab.class("tiny", "16Mi");
        lab.start();
        lab
    }

    /// Starts the daemon's part.
    pub(super) fn start(&mut self) {
        let (signal, queue) = queue();
        // A runtime of its own: all its tasks end with it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let vms = Vms::with_objects(
            self.config.clone(),
            self.site.clone(),
            self.files.clone(),
            self.groups.subscribe(),
            self.ports_sender.clone(),
            self.clock.clone(),
            signal.clone(),
        );
        let driver = Driver::new(
            vms,
            queue,
            Options::default(),
            &Metrics::new(),
            self.clock.clone(),
        );
        runtime.spawn(driver.run(std::future::pending()));
        self.daemon = Some((signal, runtime));
    }

    /// Ends the daemon's part wherever it is.
    pub(super) fn kill(&mut self) {
        if let Some((_, runtime)) = self.daemon.take() {
            tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(5)));
        }
    }

    pub(super) fn signal(&self) {
        self.daemon.as_ref().unwrap().0.all();
    }

    pub(super) fn class(&self, name: &str, memory: &str) {
        let class = json!({"apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachineClass",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"hardware": {"cpus": 1, "memory": memory}}});
        self.put("virtualmachineclasses", class);
    }

    pub(super) fn put(&self, plural: &str, object: Object) {
        self.site.put(plural, object);
        if self.daemon.is_some() {
            self.signal();
        }
    }

    /// Makes a virtual machine; `spec` is merged over one of class `tiny` without cards.
    pub(super) fn create(&self, name: &str, image: &str, spec: Value) {
        let mut vm = json!({"apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": name, "namespace": "shop", "uid": uuid::Uuid::new_v4().to_string(),
                "annotations": {"vmoperator.vmware.com/no-default-nic": "true"}},
            "spec": {"imageName": image, "className": "tiny", "powerState": "poweredOn"}});
        for (key, value) in spec.as_object().unwrap() {
            vm["spec"][key] = value.clone();
        }
        self.put("virtualmachines", vm);
    }

    /// Changes a virtual machine's spec.
    pub(super) fn change(&self, name: &str, spec: Value) {
        self.site.change("shop", name, |vm| {
            for (key, value) in spec.as_object().unwrap() {
                vm["spec"][key] = value.clone();
            }
        });
        self.signal();
    }

    pub(super) fn delete(&self, name: &str) {
        self.site.change("shop", name, |vm| {
            vm["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        });
        self.signal();
    }

    /// Waits until a virtual machine's object (null when gone) is so.
    pub(super) async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changed = self.site.changed.subscribe();
        let found = timeout(LIMIT, async {
            loop {
                changed.borrow_and_update();
                let vm = self.site.vm(name).unwrap_or_default();
                if wanted(&vm) {
                    return vm;
                }
                changed.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(vm) => vm,
            Err(_) => panic!(
                "never so: {:#}\nevents: {:#?}\nQEMU: {:?}",
                self.site.vm(name).unwrap_or_default()["status"],
                self.site.events.lock().unwrap(),
                std::fs::read_to_string(self.paths(name).qemu_log()),
            ),
        }
    }

    pub(super) async fn until_running(&self, name: &str) -> Value {
        self.until(name, |vm| condition(vm, "Ready", "reason") == "Running")
            .await
    }

    /// Waits until a condition has a reason; gives its message.
    pub(super) async fn until_reason(&self, name: &str, kind: &str, reason: &str) -> String {
        let vm = self
            .until(name, |vm| condition(vm, kind, "reason") == reason)
            .await;
        condition(&vm, kind, "message")
    }

    pub(super) fn paths(&self, name: &str) -> Paths {
        Paths::new(&self.config.state_dir, &self.config.run_dir, &key(name)).unwrap()
    }

    pub(super) fn launch(&self, name: &str) -> Launch {
        record::read(&self.paths(name).launch()).unwrap()
    }

    /// QEMU's process number.
    pub(super) fn pid(&self, name: &str) -> i32 {
        let path = self.paths(name).pid();
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|e| {
            panic!(
                "{e}: {:?}\n{:#?}\n{:#}",
                self.qemus(),
                self.site.events.lock().unwrap(),
                self.site.vm(name).unwrap()
            )
        });
        text.trim().parse().unwrap()
    }

    /// The processes of QEMUs of this lab.
    pub(super) fn qemus(&self) -> Vec<i32> {
        let mark = self.dir.path().display().to_string();
        let mine = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line)
                .split('\0')
                .skip_while(|a| *a != "-pidfile")
                .nth(1)
                .is_some_and(|a| a.contains(&mark))
        };
        let all = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        all.filter(mine).collect()
    }

    pub(super) fn events(&self, reason: &str) -> Vec<String> {
        let events = self.site.events.lock().unwrap();
        events
            .iter()
            .filter(|(r, _)| r == reason)
            .map(|(_, message)| message.clone())
            .collect()
    }
}

pub(super) fn condition(vm: &Value, kind: &str, field: &str) -> String {
    let list = vm["status"]["conditions"].as_array().into_iter().flatten();
    let found = list
        .into_iter()
        .find(|c| c["type"] == kind)
        .and_then(|c| c[field].as_str());
    found.unwrap_or_default().into()
}

/// Whether an interface exists.
pub(super) fn exists(tap: &str) -> bool {
    sys::interface_mtu(tap).is_ok()
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill();
        for pid in self.qemus() {
            if let Ok(process) = sys::process_open(pid) {
                let _ = sys::process_kill(&process);
            }
            // Taps and control groups are free when all its threads are gone and it only waits to be asked for its
            // result.
            let ended = || {
                let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                threads <= 1
                    && stat
                        .rsplit_once(") ")
                        .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
            };
            while !ended() {
                std::thread::yield_now();
            }
        }
        let records = record::all(&self.config.state_dir);
        let taps = records
            .iter()
            .flat_map(|r| (0..10).map(|i| NicIdentity::of(&r.identity, i).tap));
        for tap in taps.filter(|tap| exists(tap)) {
            let _ = sys::tap_open(&tap).and_then(|fd| sys::tap_persist(&fd, false));
        }
        let cgroups = crate::cgroup::Cgroups::new(&self.config.cgroup_root, &self.config.cgroup_name);
        for record in &records {
            let paths = self.paths(&record.name);
            cgroups.remove(&paths.id);
            let _ = process::clear(&paths);
        }
    }
}

/// Whether a path exists.
pub(super) fn there(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}

/// Whether an object waits for its finalizer.
pub(super) fn held(vm: &Value) -> bool {
    object::finalizers(vm).contains(&FINALIZER)
}

/// The files of a directory.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path())
        .collect()
}
