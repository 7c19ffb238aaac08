//! QEMU's command line. Pure.
//!
//! Every device has a fixed place on the bus, so that a guest sees the same machine after each start, whatever
//! was added or taken away: screen 2, guest agent 3, random numbers 4, disks 5–14, seed 15, network cards 16–25.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    accelerator::Accelerator,
    desired::{DiskBus, Firmware},
    record::{Launch, Paths},
};

/// `id` of the guest agent's port, as events name it.
pub const AGENT_PORT: &str = "agent0";
/// Label of the guest agent's character device.
pub const AGENT_LABEL: &str = "agent";
const FIRST_DISK_SLOT: usize = 5;
const SEED_SLOT: usize = 15;
const FIRST_NIC_SLOT: usize = 16;
/// The AHCI port of the CD; disks on that bus have the ones before it.
const CD_PORT: usize = 5;

/// Where the parts of a QEMU installation are.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The program.
    pub program: PathBuf,
    /// `qemu-img`.
    pub image_tool: PathBuf,
    /// The directory of OVMF's files.
    pub firmware: PathBuf,
    /// Whether the kernel can move packets for virtio cards itself.
    pub vhost: bool,
    /// Whether guests may leave checksums and segmentation to the host. A userspace switch passes such packets on
    /// as they are, and nobody completes them.
    pub offload: bool,
}

impl Default for Installation {
    /// Debian's.
    fn default() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            image_tool: "qemu-img".into(),
            firmware: "/usr/share/OVMF".into(),
            vhost: Path::new("/dev/vhost-net").exists(),
            offload: true,
        }
    }
}

/// OVMF's code and the variables that a new virtual machine starts with.
#[must_use]
pub fn firmware_files(installation: &Installation, firmware: Firmware) -> Option<(PathBuf, PathBuf)> {
    let (code, variables) = match firmware {
        Firmware::Bios => return None,
        Firmware::Efi => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        Firmware::EfiSecure => ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
    };
    Some((
        installation.firmware.join(code),
        installation.firmware.join(variables),
    ))
}

/// The arguments for a start. QEMU finds the listening QMP socket as its standard input; it does not run the
/// guest until told so.
#[must_use]
pub fn arguments(launch: &Launch, paths: &Paths, installation: &Installation) -> Vec<String> {
    let mut line = Line::default();
    let kvm = launch.accelerator == Accelerator::Kvm.name();
    machine(&mut line, launch, kvm);
    firmware(&mut line, launch, paths, installation);
    sockets(&mut line, paths);
    for index in 0..launch.disks {
        disk(&mut line, launch.hardware.disk_bus, index, &paths.disk(index));
    }
    if launch.cd {
        seed(&mut line, launch.hardware.disk_bus, paths);
    }
    for (index, nic) in launch.hardware.nics.iter().enumerate() {
        let vhost = if installation.vhost && installation.offload && kvm && nic.model == "virtio-net-pci" {
            ",vhost=on"
        } else {
            ""
        };
        // Without the virtio header on the tap, QEMU offers the guest no offloads.
        let header = if installation.offload { "" } else { ",vnet_hdr=off" };
        line.add(
            "-netdev",
            format!(
                "tap,id=net{index},ifname={},script=no,downscript=no{header}{vhost}",
                nic.tap
            ),
        );
        let slot = FIRST_NIC_SLOT + index;
        // Without its boot ROM a card costs no time at the start; disks are what is booted from.
        line.add(
            "-device",
            format!(
                "{},netdev=net{index},id=nic{index},mac={},addr={slot:#x},romfile=",
                nic.model, nic.mac
            ),
        );
    }
    line.0
}

fn machine(line: &mut Line, launch: &Launch, kvm: bool) {
    let hardware = &launch.hardware;
    let smm = if launch.firmware == Firmware::EfiSecure {
        "on"
    } else {
        "off"
    };
    line.add(
        "-name",
        format!("guest={},debug-threads=on", escape(&launch.owner)),
    );
    let pflash = if launch.firmware == Firmware::Bios {
        ""
    } else {
        ",pflash0=code,pflash1=variables"
    };
    line.add(
        "-machine",
        format!("q35,usb=off,vmport=off,hpet=off,smm={smm}{pflash}"),
    );
    line.add("-accel", if kvm { "kvm" } else { "tcg,thread=multi" });
    // Five-level page tables only cost time in a translator.
    line.add("-cpu", if kvm { "host" } else { "max,la57=off" });
    let (cpus, cores) = (hardware.cpus, hardware.cores_per_socket.max(1));
    line.add(
        "-smp",
        format!(
            "cpus={cpus},sockets={},cores={cores},threads=1",
            (cpus / cores).max(1)
        ),
    );
    line.add("-m", format!("{}M", hardware.memory_mib));
    line.add("-uuid", hardware.uuid.clone());
    line.add("-smbios", "type=1,manufacturer=Selvedge,product=Virtual Machine");
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.add("-display", "none");
    line.flag("-S");
    line.add("-rtc", "base=utc,driftfix=slew");
    line.add("-msg", "timestamp=on");
    line.add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    line.add("-device", "VGA,id=screen,addr=0x2");
    line.add("-device", "virtio-serial-pci,id=serial,addr=0x3");
    line.add("-object", "rng-random,id=random,filename=/dev/urandom");
    line.add("-device", "virtio-rng-pci,rng=random,addr=0x4");
}

fn firmware(line: &mut Line, launch: &Launch, paths: &Paths, installation: &Installation) {
    let Some((code, _)) = firmware_files(installation, launch.firmware) else {
        return;
    };
    if launch.firmware == Firmware::EfiSecure {
        line.add("-global", "driver=cfi.pflash01,property=secure,value=on");
    }
    let code = json!({"driver": "file", "filename": code, "read-only": true});
    line.json(
        "-blockdev",
        &json!({"driver": "raw", "node-name": "code", "read-only": true, "file": code}),
    );
    let variables = json!({"driver": "file", "filename": paths.nvram()});
    line.json(
        "-blockdev",
        &json!({"driver": "qcow2", "node-name": "variables", "file": variables}),
    );
}

fn sockets(line: &mut Line, paths: &Paths) {
    let path = |path: PathBuf| escape(&path.display().to_string());
    line.add("-chardev", "socket,id=qmp,fd=0,server=on,wait=off");
    line.add("-mon", "chardev=qmp,mode=control");
    line.add("-pidfile", paths.pid().display().to_string());
    let (console, log) = (path(paths.console()), path(paths.console_log()));
    line.add(
        "-chardev",
        format!("socket,id=console,path={console},server=on,wait=off,logfile={log},logappend=on"),
    );
    line.add("-device", "isa-serial,chardev=console");
    line.add(
        "-chardev",
        format!(
            "socket,id={AGENT_LABEL},path={},server=on,wait=off",
            path(paths.agent())
        ),
    );
    line.add("-device", format!("virtserialport,bus=serial.0,nr=1,chardev={AGENT_LABEL},id={AGENT_PORT},name=org.qemu.guest_agent.0"));
    line.add("-vnc", format!("unix:{}", path(paths.vnc())));
}

/// The CD with what the guest is told. Windows and firmware look for a CD drive; kernels made for clouds (Debian's,
/// for one) have virtio and no AHCI, and find the same volume, by its label, on a read-only disk.
fn seed(line: &mut Line, bus: DiskBus, paths: &Paths) {
    let mut node = |name: &str| {
        let file = json!({"driver": "file", "filename": paths.cd(), "read-only": true});
        line.json(
            "-blockdev",
            &json!({"driver": "raw", "node-name": name, "read-only": true, "file": file}),
        );
    };
    node("cd");
    if bus != DiskBus::Sata {
        node("seed");
        line.add(
            "-device",
            format!("virtio-blk-pci,addr={SEED_SLOT:#x},drive=seed,id=dev-seed,serial=seed"),
        );
    }
    line.add("-device", format!("ide-cd,bus=ide.{CD_PORT},drive=cd,id=dev-cd"));
}

fn disk(line: &mut Line, bus: DiskBus, index: usize, path: &Path) {
    let node = format!("disk{index}");
    let file = json!({"driver": "file", "filename": path, "discard": "unmap"});
    line.json(
        "-blockdev",
        &json!({"driver": "qcow2", "node-name": node, "discard": "unmap", "file": file}),
    );
    let boot = if index == 0 { ",bootindex=1" } else { "" };
    let common = format!("drive={node},id=dev-{node},serial={node}{boot}");
    match bus {
        DiskBus::Virtio => line.add(
            "-device",
            format!("virtio-blk-pci,addr={:#x},{common}", FIRST_DISK_SLOT + index),
        ),
        DiskBus::Scsi => {
            if index == 0 {
                line.add(
                    "-device",
                    format!("virtio-scsi-pci,id=scsi,addr={FIRST_DISK_SLOT:#x}"),
                );
            }
            line.add("-device", format!("scsi-hd,bus=scsi.0,scsi-id={index},{common}"));
        }
        // Ports beyond the controller's make QEMU refuse with a clear message.
        DiskBus::Sata => line.add("-device", format!("ide-hd,bus=ide.{index},{common}")),
    }
}

/// QEMU's option syntax doubles commas.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.flag(name);
        self.0.push(value.into());
    }

    fn json(&mut self, name: &str, value: &Value) {
        self.add(name, value.to_string());
    }
}

#[cfg(test)]
mod tests;
