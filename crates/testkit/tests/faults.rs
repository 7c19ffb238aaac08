//! What is missing, broken or gone: the status says it, what runs goes on, and it is cured when the cause is gone.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are a test")]

use std::fs;

use testkit::Options;
use testkit::services::git;
use testkit::site::{BOOT, Site, Sources};

/// The example site on a host, with its virtual machine off: these tests are not about guests.
fn quiet_site(name: &str) -> Site {
    let mut site = Site::prepare(&Options::new(name), &Sources::of_this_repository().unwrap()).unwrap();
    site.edit("web.yaml", "powerState: poweredOn", "powerState: poweredOff")
        .unwrap();
    site.lab.start_host(1).unwrap();
    site.wait_api().unwrap();
    let commit = site.lab.push("Open the shop").unwrap();
    site.wait_applied(&commit).unwrap();
    site
}

fn all_ready(site: &Site) {
    site.wait_ready(&site.kubectl, "hostconfigurations,virtualmachines", BOOT)
        .unwrap();
}

#[test]
fn what_a_virtual_machine_lacks_is_named_and_cured_when_it_comes() {
    let site = quiet_site("fmissing");
    let image = site.lab.layout.images().join("demo-guest.ova");
    let away = image.with_extension("away");
    all_ready(&site);

    // The image server does not have it. A second machine, for the first has its disk already.
    fs::rename(&image, &away).unwrap();
    let text = fs::read_to_string(site.file("web.yaml")).unwrap();
    let machine = text.rsplit("---\n").next().unwrap();
    let second = machine
        .replace("name: web", "name: bakery")
        .replace("demo-guest.ova", "bread.ova")
        .replace("className: small", "className: oven")
        .replace("web-cloud-init", "recipe");
    fs::write(site.file("bakery.yaml"), second).unwrap();
    site.lab.push("Add a bakery").unwrap();
    site.wait_complaint("virtualmachines", &["bakery", "oven"])
        .unwrap();

    let class = "apiVersion: vmoperator.vmware.com/v1alpha1\nkind: VirtualMachineClass\nmetadata:\n  name: oven\n  namespace: shop\n\
                 spec:\n  hardware:\n    cpus: 1\n    memory: 192Mi\n";
    fs::write(site.file("oven.yaml"), class).unwrap();
    site.lab.push("Buy an oven").unwrap();
    site.wait_complaint("virtualmachines", &["bakery", "recipe"])
        .unwrap();

    let data = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: recipe\n  namespace: shop\ndata:\n  user-data: |\n    #cloud-config\n";
    fs::write(site.file("recipe.yaml"), data).unwrap();
    site.lab.push("Find the recipe").unwrap();
    site.wait_complaint("virtualmachines", &["bakery", "bread.ova"])
        .unwrap();

    // It comes to the image server; nobody tells the host.
    fs::rename(&away, image.with_file_name("bread.ova")).unwrap();
    all_ready(&site);
    site.lab.down().unwrap();
}

#[test]
fn a_profile_that_cannot_be_is_named_and_the_network_stays() {
    let site = quiet_site("fprofile");
    all_ready(&site);
    let before = testkit::ovs::vsctl(&site.lab.layout, "host1", ["list-br"]).unwrap();
    let good = fs::read_to_string(site.file("network.yaml")).unwrap();
    for (from, to, words) in [
        (
            r#""nics": ["vmnic1", "vmnic2"]"#,
            r#""nics": ["vmnic1", "vmnic7"]"#,
            &["vmnic7"][..],
        ),
        (
            r#""nics": ["vmnic1", "vmnic2"]"#,
            r#""nics": ["vmnic0", "vmnic2"]"#,
            &["vmnic0", "vSwitch0"],
        ),
        (r#""vlan_id": 20"#, r#""vlan_id": 5000"#, &["5000"]),
        (r#""name": "cameras""#, r#""name": "prod""#, &["prod"]),
        (r#""mtu": 1500,"#, r#""mtu": 1500"#, &["shop-network"]),
    ] {
        site.edit("network.yaml", from, to).unwrap();
        site.lab.push(to).unwrap();
        site.wait_complaint("hostconfigurations,kustomizations", words)
            .unwrap_or_else(|error| panic!("{to}: {error:#}"));
        assert_eq!(
            testkit::ovs::vsctl(&site.lab.layout, "host1", ["list-br"]).unwrap(),
            before,
            "{to}"
        );
        fs::write(site.file("network.yaml"), &good).unwrap();
        site.lab.push("Mend it").unwrap();
        all_ready(&site);
    }
    site.lab.down().unwrap();
}

#[test]
fn a_repository_that_is_gone_changes_nothing_until_it_is_back() {
    let mut site = quiet_site("fgit");
    all_ready(&site);
    site.lab.stop_servers().unwrap();
    site.request("gitrepositories").unwrap();
    site.wait_complaint("gitrepositories", &["GitOperationFailed", "site.git"])
        .unwrap();
    all_ready(&site);
    site.lab.start_servers().unwrap();
    site.edit("web.yaml", "The shop is open.", "The shop is open again.")
        .unwrap();
    let commit = site.lab.push("Say so").unwrap();
    site.wait_applied(&commit).unwrap();

    // History is rewritten: the host follows.
    let folder = site.lab.layout.site();
    git(&folder, ["reset", "--quiet", "--hard", "HEAD~1"]).unwrap();
    git(
        &folder,
        ["commit", "--quiet", "--allow-empty", "-m", "Another past"],
    )
    .unwrap();
    git(&folder, ["push", "--quiet", "--force", "origin", "main"]).unwrap();
    let commit = git(&folder, ["rev-parse", "HEAD"]).unwrap();
    site.wait_applied(commit.trim()).unwrap();

    // The branch is gone altogether: the last good state stays.
    git(&site.lab.layout.git().join("site.git"), ["branch", "-D", "main"]).unwrap();
    site.request("gitrepositories").unwrap();
    site.wait_complaint("gitrepositories", &["GitOperationFailed", "site.git"])
        .unwrap();
    all_ready(&site);
    site.lab.down().unwrap();
}
