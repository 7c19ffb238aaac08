//! kubectl 1.20, as Debian 12 has it: it knows only OpenAPI v2, as protobuf.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use super::site::{CONFIG_MAP, Kubectl, MACHINE, Site};

/// The program, fetched from Debian into a folder of the build; `None` (and a word about it) where that can't be.
fn old_kubectl() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kubernetes-client-1.20");
        let program = dir.join("usr/bin/kubectl");
        if program.is_file() {
            return Some(program);
        }
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).ok()?;
        let fetched = Command::new("apt-get")
            .args(["-qq", "download", "kubernetes-client"])
            .current_dir(work.path())
            .output()
            .ok()?;
        let package = std::fs::read_dir(work.path())
            .ok()?
            .flatten()
            .map(|e| e.path())
            .find(|p| p.extension().is_some_and(|e| e == "deb"));
        let package = package.filter(|_| fetched.status.success())?;
        let unpacked = work.path().join("unpacked");
        Command::new("dpkg")
            .arg("-x")
            .arg(package)
            .arg(&unpacked)
            .status()
            .ok()
            .filter(std::process::ExitStatus::success)?;
        let _ = std::fs::rename(&unpacked, &dir);
        program.is_file().then_some(program)
    });
    if found.is_none() {
        eprintln!("SKIPPED: Debian's kubernetes-client can't be fetched with apt-get");
    }
    found.clone()
}

fn kubectl(site: &Site) -> Option<Kubectl<'_>> {
    Some(Kubectl {
        program: old_kubectl()?,
        home: "old-home".into(),
        ..site.kubectl()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_kubectl_reads() {
    let site = Site::start().await;
    let Some(kubectl) = kubectl(&site) else { return };
    assert!(kubectl.run(&["version"]).await.ok().contains("Server Version"));
    assert!(
        kubectl
            .run(&["api-resources"])
            .await
            .ok()
            .contains("virtualmachines")
    );
    kubectl.feed(&["create", "-f", "-"], MACHINE).await.ok();
    assert!(
        kubectl
            .run(&["get", "vm", "-o", "wide"])
            .await
            .ok()
            .contains("demo.ova")
    );
    assert!(
        kubectl
            .run(&["describe", "vm", "web"])
            .await
            .ok()
            .contains("Class Name:")
    );
    let explained = kubectl.run(&["explain", "vm.spec"]).await.ok();
    assert!(explained.contains("className\t<string>"), "{explained}");
    assert!(
        kubectl
            .run(&["explain", "cm", "--recursive"])
            .await
            .ok()
            .contains("binaryData\t<map[string]string>")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_kubectl_writes() {
    let site = Site::start().await;
    let Some(kubectl) = kubectl(&site) else { return };
    let both = format!("{CONFIG_MAP}---\n{MACHINE}");
    kubectl.feed(&["apply", "-f", "-"], &both).await.ok();
    let again = kubectl.feed(&["apply", "-f", "-"], &both).await;
    assert_eq!((again.code, again.err.as_str()), (0, ""), "{again:?}");
    assert_eq!(
        again.out,
        "configmap/app unchanged\nvirtualmachine.vmoperator.vmware.com/web unchanged\n"
    );
    let changed = both.replace("colour: red", "colour: blue");
    let diff = kubectl.feed(&["diff", "-f", "-"], &changed).await;
    assert!(diff.code == 1 && diff.out.contains("+  colour: blue"), "{diff:?}");
    assert!(
        kubectl
            .feed(&["apply", "-f", "-"], &changed)
            .await
            .ok()
            .starts_with("configmap/app configured")
    );
    kubectl
        .feed(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &changed,
        )
        .await
        .ok();
    kubectl.run(&["create", "namespace", "old"]).await.ok();
    kubectl
        .run(&[
            "create",
            "secret",
            "generic",
            "s",
            "-n",
            "old",
            "--from-literal=a=b",
        ])
        .await
        .ok();
    kubectl
        .run(&["create", "configmap", "c", "-n", "old", "--from-literal=a=b"])
        .await
        .ok();
    kubectl.run(&["label", "cm", "c", "-n", "old", "a=b"]).await.ok();
    kubectl.run(&["delete", "namespace", "old"]).await.ok();
    kubectl.feed(&["delete", "-f", "-"], &both).await.ok();
}
