//! From the object to a running QEMU.

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Context,
    api::Watch,
    host::{Host, PATIENCE},
    measured::Measured,
};

const ROUNDS: usize = 5;
const GROUP: &str = "/apis/vmoperator.vmware.com/v1alpha1/namespaces/bench";

pub(crate) fn measure(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let host = Host::up(context)?;
    host.site.lab.publish_image(&context.image)?;
    host.api.create(
        &format!("{GROUP}/virtualmachineclasses"),
        &json!({
            "apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachineClass",
            "metadata": {"name": "small", "namespace": "bench"},
            "spec": {"hardware": {"cpus": 1, "memory": "256Mi"}},
        }),
    )?;
    let collection = format!("{GROUP}/virtualmachines");
    let mut watch = host.api.watch(&collection)?;
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        context.say(&format!("  virtual machine {round} of {ROUNDS}"));
        let name = format!("vm-{round}");
        let start = Instant::now();
        host.api.create(&collection, &machine(&name))?;
        let running = wait(&mut watch, &name, "running", |kind, object| {
            kind != "DELETED" && object["status"]["powerState"] == "poweredOn"
        })?;
        // The first fetches the image.
        if round > 0 {
            times.push(running - start);
        }
        host.api.delete(&format!("{collection}/{name}"))?;
        wait(&mut watch, &name, "gone", |kind, _| kind == "DELETED")?;
    }
    measured.push(Measured::times(
        "machine-start",
        &times,
        "1 processor, 256 MiB, one NIC",
    ));
    host.site.lab.down()
}

fn wait(watch: &mut Watch, name: &str, what: &str, is_so: impl Fn(&str, &Value) -> bool) -> Result<Instant> {
    let found = watch.until(&format!("{name}, {what}"), PATIENCE, |kind, object| {
        (object["metadata"]["name"] == name && is_so(kind, object)).then_some(())
    });
    found.map(|((), when)| when)
}

fn machine(name: &str) -> Value {
    json!({
        "apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "bench"},
        "spec": {
            "className": "small", "imageName": "images.lab:8000/demo-guest.ova",
            "powerState": "poweredOn", "powerOffMode": "hard",
            "networkInterfaces": [{"networkName": "VM Network"}],
        },
    })
}
