//! What the machine is, what runs on it, and how busy it is: from DMI, sysfs and proc.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{process::Command, time::timeout};

/// Where the kernel shows what it knows; another folder in tests.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    root: PathBuf,
}

/// How long a program may take to say its version.
const VERSION: Duration = Duration::from_secs(10);

/// What firmware says when nobody filled it in.
const NOTHING: [&str; 9] = [
    "to be filled by o.e.m.",
    "default string",
    "not specified",
    "none",
    "n/a",
    "system serial number",
    "0123456789",
    "123456789",
    "00000000-0000-0000-0000-000000000000",
];

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        Self { root: "/".into() }
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        let text = text.trim().trim_matches('\0').to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn entries(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// A value of the firmware's tables; empty if it was never filled in.
    pub(crate) fn dmi(&self, field: &str) -> String {
        self.text(&format!("sys/class/dmi/id/{field}"))
            .filter(|text| !NOTHING.contains(&text.to_ascii_lowercase().as_str()))
            .unwrap_or_default()
    }

    /// MAC addresses of the NICs, lower case.
    pub(crate) fn macs(&self) -> Vec<String> {
        let real = |name: &String| {
            self.root.join(format!("sys/class/net/{name}/device")).exists() || name.starts_with("vmnic")
        };
        let nics = self.entries("sys/class/net").into_iter().filter(real);
        let macs = nics.filter_map(|name| self.text(&format!("sys/class/net/{name}/address")));
        let macs: BTreeSet<String> = macs
            .map(|mac| mac.to_ascii_lowercase())
            .filter(|mac| mac != "00:00:00:00:00:00")
            .collect();
        macs.into_iter().collect()
    }

    /// The section `inventory`. `in_tpm`: the TPM keeps the key by which the orchestrator knows this host.
    pub(crate) fn inventory(&self, serial: &str, uuid: &str, in_tpm: bool) -> Value {
        let cpu = self.text("proc/cpuinfo").unwrap_or_default();
        let field = |wanted: &str| {
            let lines = cpu.lines().filter_map(|line| line.split_once(':'));
            let found: Vec<&str> = lines
                .filter(|(name, _)| name.trim() == wanted)
                .map(|(_, value)| value.trim())
                .collect();
            found
        };
        let threads = field("processor").len();
        let places: BTreeSet<(&str, &str)> = field("physical id").into_iter().zip(field("core id")).collect();
        let cores = if places.is_empty() { threads } else { places.len() };
        let disks: Vec<Value> = self
            .entries("sys/block")
            .iter()
            .filter_map(|name| self.disk(name))
            .collect();
        let firmware = format!("{} {}", self.dmi("bios_vendor"), self.dmi("bios_version"));
        json!({
            "serial": serial,
            "uuid": uuid,
            "vendor": self.dmi("sys_vendor"),
            "product": self.dmi("product_name"),
            "firmware": firmware.trim(),
            "secureBoot": self.secure_boot(),
            "tpm": self.tpm(in_tpm),
            "cpu": {"model": field("model name").first().unwrap_or(&""), "cores": cores, "threads": threads},
            "memoryBytes": self.memory("MemTotal"),
            "disks": disks,
            "bootTime": self.boot_time(),
        })
    }

    fn tpm(&self, keeps_key: bool) -> &'static str {
        let there = self
            .entries("sys/class/tpm")
            .iter()
            .any(|name| name.starts_with("tpm"));
        match (keeps_key, there) {
            (true, _) => "keeps the host's key",
            (false, true) => "present",
            (false, false) => "none",
        }
    }

    fn disk(&self, name: &str) -> Option<Value> {
        let made_up = ["loop", "ram", "zram", "dm-", "md", "nbd", "sr", "fd"];
        if made_up.iter().any(|start| name.starts_with(start)) {
            return None;
        }
        let at = |file: &str| self.text(&format!("sys/block/{name}/{file}"));
        let sectors: u64 = at("size")?.parse().ok()?;
        (sectors > 0).then(|| {
            json!({
                "name": name,
                "model": at("device/model").unwrap_or_default(),
                "sizeBytes": sectors.saturating_mul(512),
                "rotational": at("queue/rotational").as_deref() == Some("1"),
            })
        })
    }

    fn secure_boot(&self) -> bool {
        let vars = self.root.join("sys/firmware/efi/efivars");
        let name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        // Four bytes of attributes, then the value.
        fs::read(vars.join(name)).is_ok_and(|bytes| bytes.get(4) == Some(&1))
    }

    /// Bytes of a line of `/proc/meminfo`.
    fn memory(&self, wanted: &str) -> u64 {
        let text = self.text("proc/meminfo").unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    }

    fn boot_time(&self) -> String {
        let stat = self.text("proc/stat").unwrap_or_default();
        let at = stat
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .map(|at| at.to_string())
            .unwrap_or_default()
    }

    /// The section `versions`. `ovs_rundir` belongs to the switch.
    pub(crate) async fn versions(&self) -> Value {
        let os = self.text("etc/os-release").unwrap_or_default();
        let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let qemu = format!("qemu-system-{}", std::env::consts::ARCH);
        let mut versions = Map::new();
        versions.insert("selvedge".into(), env!("CARGO_PKG_VERSION").into());
        versions.insert("kernel".into(), self.text("proc/sys/kernel/osrelease").into());
        versions.insert("qemu".into(), said(&qemu, "version ").await.into());
        versions.insert("ovs".into(), said("ovs-vswitchd", ") ").await.into());
        versions.insert(
            "os".into(),
            os.map(|os| os.trim_matches('"')).unwrap_or_default().into(),
        );
        versions.into()
    }

    /// What is counted since the start of the machine.
    pub(crate) fn counters(&self) -> Counters {
        let stat = self.text("proc/stat").unwrap_or_default();
        let cpu = stat.lines().next().unwrap_or_default();
        let times: Vec<u64> = cpu
            .split_whitespace()
            .skip(1)
            .filter_map(|n| n.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is in user already.
        let total = times.iter().take(8).sum();
        let idle = times.iter().skip(3).take(2).sum();
        let bytes = |file: &str| {
            let nics = self.entries("sys/class/net").into_iter();
            let nics = nics.filter(|name| {
                self.root.join(format!("sys/class/net/{name}/device")).exists() || name.starts_with("vmnic")
            });
            nics.filter_map(|name| {
                self.text(&format!("sys/class/net/{name}/statistics/{file}"))?
                    .parse()
                    .ok()
            })
            .fold(0_u64, u64::saturating_add)
        };
        Counters {
            total,
            idle,
            received: bytes("rx_bytes"),
            sent: bytes("tx_bytes"),
        }
    }

    /// The section `usage`, from what was counted before and now.
    pub(crate) fn usage(&self, before: &Counters, now: &Counters, state: &Path, time: &str) -> Value {
        let (total, idle) = (
            now.total.saturating_sub(before.total),
            now.idle.saturating_sub(before.idle),
        );
        let memory = self.memory("MemTotal");
        let used = memory.saturating_sub(self.memory("MemAvailable"));
        let disk = nix::sys::statvfs::statvfs(state).map_or(0.0, |disk| {
            share(disk.blocks().saturating_sub(disk.blocks_free()), disk.blocks())
        });
        json!({
            "time": time,
            "cpu": share(total.saturating_sub(idle), total),
            "memory": share(used, memory),
            "disk": disk,
            "rxBytes": now.received.saturating_sub(before.received),
            "txBytes": now.sent.saturating_sub(before.sent),
        })
    }
}

/// What is counted since the start of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    total: u64,
    idle: u64,
    received: u64,
    sent: u64,
}

/// A part of a whole, in thousandths.
fn share(part: u64, whole: u64) -> f64 {
    let thousandths = part
        .saturating_mul(1000)
        .checked_div(whole)
        .unwrap_or(0)
        .min(1000);
    f64::from(u16::try_from(thousandths).unwrap_or(1000)) / 1000.0
}

/// The version in the first line that a program prints, after `mark`; empty if there is no such program.
async fn said(program: &str, mark: &str) -> String {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let Ok(Ok(output)) = timeout(VERSION, command.output()).await else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    let rest = line.split_once(mark).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n");
        write("sys/class/dmi/id/product_uuid", "4C4C4544-0031\n");
        write("sys/class/dmi/id/sys_vendor", "Intel\n");
        write("sys/class/net/eno1/address", "AA:BB:CC:00:11:22\n");
        write("sys/class/net/eno1/device/x", "");
        write("sys/class/net/eno1/statistics/rx_bytes", "500\n");
        write("sys/class/net/eno1/statistics/tx_bytes", "7\n");
        write("sys/class/net/tap0/address", "02:00:00:00:00:01\n");
        write("sys/block/sda/size", "2000\n");
        write("sys/block/sda/queue/rotational", "1\n");
        write("sys/block/loop0/size", "99\n");
        let cpu = "processor : 0\nmodel name : Fast\nphysical id : 0\ncore id : 0\n\nprocessor : 1\nmodel name : Fast\nphysical id : 0\ncore id : 0\n";
        write("proc/cpuinfo", cpu);
        write(
            "proc/meminfo",
            "MemTotal:       1000 kB\nMemAvailable:    250 kB\n",
        );
        write("proc/stat", "cpu  10 0 10 70 10 0 0 0 0 0\nbtime 1700000000\n");
        let machine = Machine::at(dir.path());
        assert_eq!(machine.dmi("product_serial"), "");
        assert_eq!(machine.macs(), ["aa:bb:cc:00:11:22"]);
        let tpm = |in_tpm| machine.inventory("s1", "u1", in_tpm)["tpm"].clone();
        assert_eq!(
            (tpm(false), tpm(true)),
            ("none".into(), "keeps the host's key".into())
        );
        write("sys/class/tpm/tpm0/x", "");
        assert_eq!(tpm(false), "present");
        let inventory = machine.inventory("s1", "u1", false);
        assert_eq!(
            inventory["cpu"],
            json!({"model": "Fast", "cores": 1, "threads": 2})
        );
        assert_eq!(inventory["memoryBytes"], 1_024_000);
        assert_eq!(
            inventory["disks"],
            json!([{"name": "sda", "model": "", "sizeBytes": 1_024_000, "rotational": true}])
        );
        assert_eq!(inventory["bootTime"], "2023-11-14T22:13:20Z");
        let usage = machine.usage(&Counters::default(), &machine.counters(), dir.path(), "t");
        assert_eq!((&usage["cpu"], &usage["memory"]), (&json!(0.2), &json!(0.75)));
        assert_eq!((&usage["rxBytes"], &usage["txBytes"]), (&json!(500), &json!(7)));
    }
}
