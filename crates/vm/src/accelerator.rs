//! Whether KVM is of use, found out by running a guest.
//!
//! `/dev/kvm` may exist and guests hang all the same: hypervisors that emulate KVM in software run firmware but
//! never get a kernel through long mode. So the probe is a guest of 158 bytes that goes from the reset vector
//! through protected mode into long mode with paging, works for some milliseconds there, and leaves through
//! QEMU's debug-exit device with a number of its own. The answer is kept for the host's boot.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};

use crate::record;

/// What runs guests' instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator: about ten times slower, works everywhere.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// How the accelerator is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// KVM if the probe runs, else TCG.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// TCG.
    Tcg,
}

impl Choice {
    /// By name: `kvm`, `tcg`; anything else is `auto`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "kvm" => Self::Kvm,
            "tcg" => Self::Tcg,
            _ => Self::Auto,
        }
    }
}

/// The longest that the probe may take; on hardware it takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(3);
/// What the guest writes to the debug-exit device; QEMU ends with twice that and one.
const TOKEN: i32 = 0x31;

/// The guest. Assembled with GNU as from:
///
/// ```text
/// .code16             # at F000:0000
///     cli; xor %ax,%ax; mov %ax,%es; mov %ax,%ss
///     mov $0x1000,%di; mov $0x1800,%cx; cld; rep stosw           # room for page tables
///     movw $0x2003,%es:0x1000; movw $0x3003,%es:0x2000; movw $0x0083,%es:0x3000
///     mov $0x1000,%eax; mov %eax,%cr3; mov $0x20,%eax; mov %eax,%cr4
///     mov $0xc0000080,%ecx; rdmsr; or $0x100,%eax; wrmsr         # long mode
///     lgdtl %cs:gdtr; mov $0x80000001,%eax; mov %eax,%cr0; ljmpl $8,$long
/// .code64
/// long:
///     mov $20000000,%ecx
/// 1:  mov %rcx,0x4000; add 0x4000,%rax; dec %ecx; jnz 1b         # some work
///     xor %eax,%eax; cpuid; mov $0x31,%al; out %al,$0xf4
/// 2:  hlt; jmp 2b
/// .balign 8
/// gdt:  .quad 0, 0x00209a0000000000
/// gdtr: .word 15; .long gdt
/// ```
const GUEST: [u8; 158] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xc0, 0x8e, 0xd0, 0xbf, 0x00, 0x10, 0xb9, 0x00, 0x18, 0xfc, 0xf3, 0xab, 0x26,
    0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0x26, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0x26, 0xc7, 0x06, 0x00,
    0x30, 0x83, 0x00, 0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0x66, 0xb8, 0x20, 0x00, 0x00,
    0x00, 0x0f, 0x22, 0xe0, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x66, 0x0d, 0x00, 0x01, 0x00,
    0x00, 0x0f, 0x30, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0x98, 0x00, 0x66, 0xb8, 0x01, 0x00, 0x00, 0x80, 0x0f,
    0x22, 0xc0, 0x66, 0xea, 0x5f, 0x00, 0x0f, 0x00, 0x08, 0x00, 0xb9, 0x00, 0x2d, 0x31, 0x01, 0x48, 0x89,
    0x0c, 0x25, 0x00, 0x40, 0x00, 0x00, 0x48, 0x03, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00, 0xff, 0xc9, 0x75,
    0xec, 0x31, 0xc0, 0x0f, 0xa2, 0xb0, 0x31, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x0f, 0x1f, 0x44, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00, 0x0f,
    0x00, 0x88, 0x00, 0x0f, 0x00,
];

/// The guest as a firmware image: the code at its start, a far jump to it at the reset vector.
fn firmware() -> Vec<u8> {
    const SIZE: usize = 64 * 1024;
    // A stray jump halts.
    let mut rom = vec![0xf4; SIZE];
    rom[..GUEST.len()].copy_from_slice(&GUEST);
    rom[SIZE - 16..SIZE - 11].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    rom
}

/// The answer as kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    boot: String,
    qemu: PathBuf,
    kvm: bool,
}

/// Chooses. With [`Choice::Auto`] the probe runs at most once a boot of the host; the answer is kept in
/// `accelerator.json` of the state directory.
pub async fn choose(choice: Choice, qemu: &Path, state_dir: &Path) -> Accelerator {
    match choice {
        Choice::Kvm => return Accelerator::Kvm,
        Choice::Tcg => return Accelerator::Tcg,
        Choice::Auto => {}
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let path = state_dir.join("accelerator.json");
    let kept =
        record::read::<Kept>(&path).filter(|kept| kept.boot == boot && kept.qemu == qemu && !boot.is_empty());
    let kvm = match kept {
        Some(kept) => kept.kvm,
        None => {
            let kvm = runs(qemu, Accelerator::Kvm, state_dir, LIMIT).await;
            if let Err(error) = record::write_json(
                &path,
                &Kept {
                    boot,
                    qemu: qemu.into(),
                    kvm,
                },
            ) {
                tracing::warn!(%error, "can't keep the answer of the KVM probe");
            }
            kvm
        }
    };
    let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
    tracing::info!(accelerator = accelerator.name(), "virtual machines will use");
    accelerator
}

/// Whether the probe's guest runs to its end.
async fn runs(qemu: &Path, accelerator: Accelerator, directory: &Path, limit: Duration) -> bool {
    if accelerator == Accelerator::Kvm && !Path::new("/dev/kvm").exists() {
        return false;
    }
    match probe(qemu, accelerator, directory, limit).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(qemu = %qemu.display(), %error, "can't probe for KVM");
            false
        }
    }
}

async fn probe(qemu: &Path, accelerator: Accelerator, directory: &Path, limit: Duration) -> io::Result<bool> {
    std::fs::create_dir_all(directory)?;
    let rom = directory.join(format!("probe-{}.rom", std::process::id()));
    std::fs::write(&rom, firmware())?;
    let cpu = if accelerator == Accelerator::Kvm {
        "host"
    } else {
        "max"
    };
    let child = Command::new(qemu)
        .args([
            "-machine",
            "q35",
            "-accel",
            accelerator.name(),
            "-cpu",
            cpu,
            "-m",
            "16",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=4",
        ])
        .arg("-bios")
        .arg(&rom)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let result = match child {
        Ok(mut child) => match timeout(limit, child.wait()).await {
            Ok(status) => status.map(|status| status.code() == Some(TOKEN * 2 + 1)),
            Err(_) => {
                child.kill().await?;
                Ok(false)
            }
        },
        Err(error) => Err(error),
    };
    std::fs::remove_file(&rom)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_guest_runs_under_tcg_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = Path::new("qemu-system-x86_64");
        assert!(runs(qemu, Accelerator::Tcg, dir.path(), Duration::from_secs(20)).await);
        assert!(!runs(Path::new("/bin/true"), Accelerator::Tcg, dir.path(), LIMIT).await);
        assert!(!runs(Path::new("/nonexistent"), Accelerator::Tcg, dir.path(), LIMIT).await);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_answer_is_kept_for_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap()
            .trim()
            .to_owned();
        // A QEMU that does not exist can't be probed, so an answer of KVM can only be the kept one.
        let qemu = PathBuf::from("/nonexistent/qemu");
        let path = dir.path().join("accelerator.json");
        record::write_json(
            &path,
            &Kept {
                boot,
                qemu: qemu.clone(),
                kvm: true,
            },
        )
        .unwrap();
        assert_eq!(choose(Choice::Auto, &qemu, dir.path()).await, Accelerator::Kvm);
        record::write_json(
            &path,
            &Kept {
                boot: "another".into(),
                qemu: qemu.clone(),
                kvm: true,
            },
        )
        .unwrap();
        assert_eq!(choose(Choice::Auto, &qemu, dir.path()).await, Accelerator::Tcg);
        assert!(!record::read::<Kept>(&path).unwrap().kvm);
    }
}
