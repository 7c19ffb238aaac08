//! A TPM as the kernel shows it: a machine in QEMU, with swtpm as its TPM, whose first process is this very test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use identity::key::{DEVICE, HostKey, TpmKey};

use super::soft_tpm::SoftTpm;

const INIT: &str = "#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc none /proc
$busybox mount -t devtmpfs none /dev
$busybox ls -l /dev/tpmrm0
# More at once than a TPM has places for: the kernel swaps them.
for n in 1 2 3 4; do
    { /bin/test --ignored --exact machine::inside && echo host $n is good; } &
done
wait
$busybox poweroff -f
";

/// Runs in the machine.
#[test]
#[ignore = "the other test runs it in a machine with a TPM"]
fn inside() {
    let file = PathBuf::from(format!("/{}.json", std::process::id()));
    let key = TpmKey::make(Path::new(DEVICE), &file).unwrap();
    let again = TpmKey::read(Path::new(DEVICE), &file).unwrap().unwrap();
    assert_eq!(key.public_key(), again.public_key());
    for _ in 0..5 {
        super::tpm::signs(&key);
        super::tpm::signs(&again);
    }
}

#[test]
fn many_use_the_tpm_through_the_kernel_at_once() {
    let (tpm, dir) = (SoftTpm::for_a_machine(), tempfile::tempdir().unwrap());
    let root = dir.path().join("root");
    for folder in ["bin", "dev", "proc"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let this = std::env::current_exe().unwrap();
    run(Command::new("strip")
        .arg("-o")
        .arg(root.join("bin/test"))
        .arg(&this));
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("scripts/setup installs busybox-static");
    for library in run(Command::new("ldd").arg(&this))
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
    fs::write(root.join("init"), INIT).unwrap();
    run(Command::new("chmod").arg("755").arg(root.join("init")));
    let initrd = dir.path().join("initrd");
    let pack = format!("find . | cpio -o -H newc --quiet > {}", initrd.display());
    run(Command::new("sh").args(["-c", &pack]).current_dir(&root));

    let said = run(Command::new("timeout")
        .args([
            "50",
            "qemu-system-x86_64",
            "-nographic",
            "-no-reboot",
            "-net",
            "none",
        ])
        .args([
            "-accel",
            "tcg",
            "-m",
            "512",
            "-append",
            "console=ttyS0 quiet panic=1",
        ])
        .arg("-kernel")
        .arg(kernel())
        .arg("-initrd")
        .arg(&initrd)
        .arg("-chardev")
        .arg(format!("socket,id=tpm,path={}", tpm.control().display()))
        .args([
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
            "-device",
            "tpm-crb,tpmdev=tpm0",
        ]));
    for host in 1..=4 {
        assert!(said.contains(&format!("host {host} is good")), "{said}");
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Debian's kernel for guests, which scripts/setup fetches when it is not installed.
fn kernel() -> PathBuf {
    let cache = std::env::var_os("SELVEDGE_KERNEL_CACHE")
        .unwrap_or_else(|| "/var/cache/selvedge/guest-kernel".into());
    let found = [PathBuf::from("/boot"), Path::new(&cache).join("boot")]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|files| files.flatten().map(|file| file.path()))
        .find(|file| {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.starts_with("vmlinuz-") && name.ends_with("-cloud-amd64")
        });
    found.expect("a guest's kernel (scripts/setup fetches it)")
}
