//! Where everything of a lab is: names, directories, networks, addresses. Pure.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Runtime directories of all labs: sockets, and the description of each lab.
pub const RUN: &str = "/run/selvedge-lab";
/// What lasts over a "reboot" of a lab's host: databases, repositories, logs.
pub const STATE: &str = "/var/lib/selvedge-lab";
/// Every process of a lab carries the lab's name in this variable.
pub const MARK: &str = "SELVEDGE_LAB";

/// A network of the lab's physical switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name of the network, and of the interfaces of `svc` and `client` on it.
    pub name: &'static str,
    /// The VLAN on the physical switch.
    pub vlan: u16,
    /// First three bytes of its /24; the second byte's place is the lab's number where it must be unique on
    /// the machine.
    prefix: &'static str,
}

/// The hosts' own network: untagged on `vmnic0`. The developer's shell is on it too, so each lab has its own.
pub const MGMT: Network = Network {
    name: "mgmt",
    vlan: 10,
    prefix: "10.90",
};
/// Untagged on every other NIC of a host.
pub const PROD: Network = Network {
    name: "prod",
    vlan: 100,
    prefix: "10.100.0",
};
/// Tagged with 20.
pub const VLAN20: Network = Network {
    name: "vlan20",
    vlan: 20,
    prefix: "10.20.0",
};
/// Tagged with 30.
pub const VLAN30: Network = Network {
    name: "vlan30",
    vlan: 30,
    prefix: "10.30.0",
};
/// All of them.
pub const NETWORKS: [Network; 4] = [MGMT, PROD, VLAN20, VLAN30];

/// Names, directories and addresses of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The lab's name.
    pub name: String,
    /// The lab's number on this machine.
    pub index: u8,
}

impl Layout {
    /// # Errors
    /// When `name` cannot be part of a file's and a namespace's name.
    pub fn new(name: &str, index: u8) -> Result<Self> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            index,
        })
    }

    /// The network namespace of a node.
    #[must_use]
    pub fn namespace(&self, node: &str) -> String {
        format!("{}{node}", namespace_prefix(&self.name))
    }

    /// Where the node's namespace can be entered.
    #[must_use]
    pub fn namespace_path(&self, node: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.namespace(node))
    }

    /// Runtime directory of the lab.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        PathBuf::from(RUN).join(&self.name)
    }

    /// Lasting directory of the lab.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        PathBuf::from(STATE).join(&self.name)
    }

    /// Runtime directory of a node.
    #[must_use]
    pub fn node_run(&self, node: &str) -> PathBuf {
        self.run().join(node)
    }

    /// Lasting directory of a node.
    #[must_use]
    pub fn node_state(&self, node: &str) -> PathBuf {
        self.state().join(node)
    }

    /// The node's Open vSwitch: sockets and process ids.
    #[must_use]
    pub fn ovs_run(&self, node: &str) -> PathBuf {
        self.node_run(node).join("openvswitch")
    }

    /// The control group, in each tree, that is the root for a node.
    #[must_use]
    pub fn control_group(&self, node: &str) -> String {
        format!("{}{node}", control_group_prefix(&self.name))
    }

    /// The working copy of the site repository.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.state().join("site")
    }

    /// The bare repositories that the Git server serves.
    #[must_use]
    pub fn git(&self) -> PathBuf {
        self.state().join("git")
    }

    /// What the image server serves.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.state().join("images")
    }

    /// A file that `selvedge-host` wrote for people who use kubectl: `admin` or `break-glass`.
    #[must_use]
    pub fn kubeconfig(&self, host: &str, who: &str) -> PathBuf {
        self.node_state(host)
            .join("config")
            .join(format!("{who}.kubeconfig"))
    }

    /// An address on a network of this lab.
    #[must_use]
    pub fn address(&self, network: Network, last: u8) -> String {
        if network == MGMT {
            format!("{}.{}.{last}", network.prefix, self.index)
        } else {
            format!("{}.{last}", network.prefix)
        }
    }

    /// The machine's own end on the management network.
    #[must_use]
    pub fn shell_address(&self) -> String {
        self.address(MGMT, 1)
    }

    /// The server node's address on a network.
    #[must_use]
    pub fn svc_address(&self, network: Network) -> String {
        self.address(network, 2)
    }

    /// The orchestrator's address, in labs that have one.
    #[must_use]
    pub fn hub_address(&self) -> String {
        self.address(MGMT, 4)
    }

    /// The address of host number `number`, counted from 1.
    #[must_use]
    pub fn host_address(&self, number: u8) -> String {
        self.address(MGMT, number.saturating_add(10))
    }

    /// The interface in the developer's own namespace.
    #[must_use]
    pub fn shell_interface(&self) -> String {
        format!("svlab{}", self.index)
    }
}

/// What the names of all namespaces of a lab begin with.
#[must_use]
pub fn namespace_prefix(lab: &str) -> String {
    format!("svl-{lab}-")
}

/// What the names of all control groups of a lab begin with.
#[must_use]
pub fn control_group_prefix(lab: &str) -> String {
    format!("selvedge-lab-{lab}-")
}

/// # Errors
/// When `name` cannot be part of a file's and a namespace's name, or would hide another lab's.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > 20 || !name.chars().all(fits) {
        bail!("lab name {name:?}: use 1 to 20 lower-case letters and digits");
    }
    Ok(())
}

/// The name of host number `number`, counted from 1.
#[must_use]
pub fn host_name(number: u8) -> String {
    format!("host{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let layout = Layout::new("demo", 7).unwrap();
        assert_eq!(layout.namespace("host1"), "svl-demo-host1");
        assert_eq!(layout.host_address(1), "10.90.7.11");
        assert_eq!(layout.svc_address(PROD), "10.100.0.2");
        assert_eq!(
            layout.kubeconfig("host1", "admin").to_str(),
            Some("/var/lib/selvedge-lab/demo/host1/config/admin.kubeconfig")
        );
    }

    #[test]
    fn a_name_that_would_leave_its_directory_is_refused() {
        for name in ["", "../x", "a-b", "Demo", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
