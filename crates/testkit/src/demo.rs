//! What `make demo` shows.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::lab::Options;
use crate::layout::{PROD, host_name};
use crate::site::{BOOT, Site, Sources};

/// Brings up the lab with the example site, shows what happens with its times, and leaves it running.
///
/// # Errors
/// When a step fails; the lab is removed then.
pub fn run(options: &Options, sources: &Sources) -> Result<()> {
    let start = Instant::now();
    let mut site = step(
        "a lab: physical switch, DHCP, Git server, image server, one host",
        || Site::prepare(options, sources),
    )?;
    step("the host is turned on: Open vSwitch, selvedge-host", || {
        site.lab.start_host(1)?;
        site.wait_api()
    })?;
    let commit = step("the site repository is pushed", || site.lab.push("Open the shop"))?;
    step("the host has pulled and applied it", || {
        site.wait_applied(&commit)
    })?;
    step("its network is as asked for", || {
        site.wait_ready(&site.kubectl, "hostconfigurations", BOOT)
    })?;
    step(
        "its virtual machine runs (image fetched, checked, converted)",
        || site.wait_ready(&site.kubectl, "virtualmachines", BOOT),
    )?;
    let address = step("the guest has an address", || site.address("shop", "web"))?;
    let guest = step("the guest answers a client on the port group's network", || {
        site.wait_guest(&address, |_| Ok(()))
    })?;
    println!(
        "\nUp in {:.1} s. The guest at {address} calls itself {}, as its cloud-init data says.\n",
        start.elapsed().as_secs_f64(),
        guest.0.hostname
    );
    println!(
        "{}",
        site.kubectl
            .run(["get", "hostconfigurations,virtualmachines", "--all-namespaces"])?
    );
    println!("{}", instructions(&site, &address));
    site.lab.keep()
}

fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let terminal = std::io::stdout().is_terminal();
    if terminal {
        print!("        {what} …");
        // The line shows what takes long; that it may not be shown is no reason to stop.
        let _ = std::io::stdout().flush();
    }
    let result = run();
    let mark = if terminal { "\r" } else { "" };
    let failed = if result.is_ok() { "" } else { ": FAILED" };
    println!("{mark}{} {what}{failed}  ", seconds(start.elapsed()));
    result
}

/// A time, right-aligned.
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:5.2} s", time.as_secs_f64())
}

/// What a person can do now, ready to paste.
fn instructions(site: &Site, address: &str) -> String {
    let layout = &site.lab.layout;
    let programs = std::env::current_exe().unwrap_or_default();
    let programs = programs.parent().unwrap_or(std::path::Path::new(".")).display();
    let name = match layout.name.as_str() {
        "demo" => String::new(),
        other => format!(" --name {other}"),
    };
    let down = if name.is_empty() {
        "make demo-down".to_owned()
    } else {
        format!("{programs}/selvedge-lab down{name}")
    };
    format!(
        "Paste what you like (as root):

  # Look at the host as at any Kubernetes API
  export KUBECONFIG={config}
  export SELVEDGE_CONFIG={host_toml}
  export PATH={programs}:$PATH
  kubectl get hostconfigurations,virtualmachines,vmclass -A
  kubectl explain virtualmachine.spec
  selvedge status

  # Ask the guest (its network, {network}, is reached from the lab's client)
  selvedge-lab exec{name} client -- curl -s http://{address}/hello.txt

  # The virtual machine's console (leave it with Ctrl-])
  selvedge vm console shop/web

  # Change the site in Git, and watch the change arrive (leave the watch with Ctrl-C)
  sed -i 's/powerState: poweredOn/powerState: poweredOff/' {repository}/shop-001/web.yaml
  git -C {repository} commit -am 'Close the shop' && git -C {repository} push
  kubectl get vm -n shop -w

  # Open the shop again
  git -C {repository} revert --no-edit HEAD && git -C {repository} push

  # Try to change it anywhere else
  kubectl delete vm -n shop web
  selvedge-lab exec{name} {host} -- ovs-vsctl show

  # Stop everything (in the clone of Selvedge)
  {down}
",
        config = layout.kubeconfig(&host_name(1), "admin").display(),
        host_toml = layout.node_state(&host_name(1)).join("host.toml").display(),
        repository = layout.site().display(),
        host = host_name(1),
        network = layout.address(PROD, 0) + "/24",
    )
}
