//! Plans over a real repository.

use std::sync::Arc;
use std::time::Instant;

use fleet::model::{PlanSpec, PlanState};
use fleet::plan::{Planner, SiteInput};
use fleet::{Caller, Query, Role, Scope};
use serde_json::json;

use crate::steering::repo::{Here, Repo, config, files};
use crate::steering::world::World;
use crate::support::both;

fn machine(name: &str, class: &str, power: &str) -> String {
    format!(
        "apiVersion: vmoperator.vmware.com/v1alpha1\nkind: VirtualMachine\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  className: {class}\n  imageName: registry/till:1\n  powerState: {power}\n"
    )
}

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata:\n  name: key\n  namespace: shop\nstringData:\n  password: ";
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n";

fn profile(vlan: u16, nic: &str) -> String {
    profile_of(
        &json!({"esx": {"network_vss": {"switches": [{"name": "vSwitch0", "bridge": {"nics": [nic]},
        "port_groups": [{"name": "VM Network", "vlan_id": vlan}]}]}}}),
    )
}

fn profile_of(profile: &serde_json::Value) -> String {
    format!(
        "apiVersion: esx.vmware.com/v1alpha1\nkind: HostConfiguration\nmetadata:\n  name: network\n  namespace: esx-system\nspec:\n  layertype: Incremental\n  profile: |\n    {profile}\n"
    )
}

both!(what_a_commit_changes, |s| {
    let repo = Repo::new();
    let base = [
        (
            "base/kustomization.yaml".to_owned(),
            "resources: [settings.yaml]\n".to_owned(),
        ),
        ("base/settings.yaml".to_owned(), config("hello from ${CITY}")),
    ];
    let mut first = base.to_vec();
    for site in ["berlin", "delft", "essen", "gent"] {
        first.push((format!("sites/{site}/namespace.yaml"), NAMESPACE.into()));
        first.push((
            format!("sites/{site}/till.yaml"),
            machine("till", "best-effort-small", "poweredOn"),
        ));
        first.push((format!("sites/{site}/secret.yaml"), format!("{SECRET}hunter2\n")));
    }
    // Berlin's folder reaches out to the base; the others do not.
    first.push((
        "sites/berlin/kustomization.yaml".into(),
        "resources: [../../base, namespace.yaml, till.yaml, secret.yaml]\n".into(),
    ));
    first.push(("sites/delft/network.yaml".into(), profile(10, "vmnic0")));
    let from = repo.commit(&first);
    let to = repo.commit(&files(&[
        ("base/settings.yaml", &config("good day from ${CITY}, ${PIN}")),
        (
            "sites/delft/till.yaml",
            &machine("till", "best-effort-small", "poweredOff"),
        ),
        ("sites/delft/secret.yaml", &format!("{SECRET}correcthorse\n")),
        ("sites/delft/network.yaml", &profile(20, "vmnic7")),
        (
            "sites/essen/till.yaml",
            &machine("till", "best-effort-8xlarge", "poweredOn"),
        ),
        (
            "sites/essen/settings.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: 7\ndata: []\n",
        ),
        ("sites/gent/readme.txt", "nothing that is built\n"),
    ]));

    let mut world = World::new(
        &s,
        json!({"name": "careful"}),
        &[("berlin", ""), ("delft", ""), ("essen", ""), ("gent", "")],
    )
    .await;
    let variables = json!({"variables": {"CITY": "Berlin"}, "secretVariables": {"PIN": "1234567"}});
    s.fleet
        .sites()
        .update(&s.owner, "berlin", None, &variables)
        .await
        .unwrap();
    let inventory = json!({"inventory": {"memoryBytes": 16_u64 << 30}, "nic/vmnic0": {"link": true},
                           "vm/shop/till": {"power": "poweredOn"}, "source": {"applied": from}});
    for site in ["delft", "essen"] {
        world.report(site, inventory.clone()).await;
    }
    let source = || Arc::new(Here(repo.path().into(), from.clone(), to.clone()));
    let spec = PlanSpec {
        repository: "shops".into(),
        reference: Some("feature/x".into()),
        ..PlanSpec::default()
    };
    let plan = s.fleet.plans().start(&s.owner, &spec, source()).await.unwrap();
    assert_eq!(plan.state, PlanState::Running);
    let done = async |caller: &Caller, id: &str| loop {
        let plan = s.fleet.plans().get(caller, id).await.unwrap();
        if plan.state != PlanState::Running {
            break plan;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let plan = done(&s.owner, &plan.id).await;
    assert_eq!((plan.state, plan.message.as_str()), (PlanState::Done, ""));
    assert_eq!(
        (plan.from.as_str(), plan.to.as_str()),
        (from.as_str(), to.as_str())
    );
    assert_eq!(plan.totals.sites, 4);
    let whole = serde_json::to_string(&plan).unwrap();
    for secret in ["hunter2", "correcthorse", "1234567"] {
        assert!(!whole.contains(secret), "{secret} in {whole}");
    }
    let names: Vec<&str> = plan.sites.iter().map(|site| site.site.as_str()).collect();
    assert_eq!(names, ["berlin", "delft", "essen"], "gent is not touched");

    // Through the base, with its variables filled in.
    let berlin = &plan.sites[0];
    assert_eq!(berlin.objects.len(), 1);
    let field = &berlin.objects[0].fields[0];
    assert_eq!(field.path, "/data/greeting");
    assert_eq!(field.before.as_ref().unwrap(), "hello from Berlin");
    assert_eq!(field.after.as_ref().unwrap(), "good day from Berlin, (secret)");
    assert_eq!((berlin.impact.as_str(), berlin.errors.len()), ("none", 0));

    let delft = &plan.sites[1];
    let shown: Vec<String> = delft
        .objects
        .iter()
        .map(|o| format!("{} {} {} {}", o.action, o.kind, o.name, o.impact))
        .collect();
    assert!(
        shown.contains(&"update VirtualMachine till maintenance".to_owned()),
        "{shown:?}"
    );
    assert!(shown.contains(&"update Secret key none".to_owned()), "{shown:?}");
    assert!(
        shown.contains(&"update HostConfiguration network none".to_owned()),
        "{shown:?}"
    );
    assert_eq!(delft.impact, "maintenance");
    let vlan = delft
        .objects
        .iter()
        .find(|o| o.kind == "HostConfiguration")
        .unwrap();
    let paths: Vec<&str> = vlan.fields.iter().map(|f| f.path.as_str()).collect();
    assert!(
        paths
            .iter()
            .any(|p| p.ends_with("/port_groups/VM Network/vlan_id")),
        "{paths:?}"
    );
    // Its host has no such NIC.
    assert!(
        delft.errors.iter().any(|e| e.contains("vmnic7")),
        "{:?}",
        delft.errors
    );

    // What can't be built says where.
    let essen = &plan.sites[2];
    assert!(
        essen
            .errors
            .iter()
            .any(|e| e.starts_with("sites/essen/settings.yaml:5:") && e.contains("data")),
        "{:?}",
        essen.errors
    );
    assert_eq!(plan.totals.blocked, 2);
    assert_eq!(plan.totals.impact.maintenance, 1);

    // Without the mistake: too much memory.
    let fixed = repo.commit(&files(&[("sites/essen/settings.yaml", "")]));
    let here = Arc::new(Here(repo.path().into(), from.clone(), fixed));
    let plan = s.fleet.plans().start(&s.owner, &spec, here).await.unwrap();
    let plan = done(&s.owner, &plan.id).await;
    let essen = plan.sites.iter().find(|site| site.site == "essen").unwrap();
    assert_eq!(
        essen.errors,
        ["virtual machine shop/till needs 128.0 GiB of memory; the site's largest host has 16.0 GiB"]
    );
    assert!(
        essen.notes.iter().any(|n| n.contains("next started: shop/till")),
        "{:?}",
        essen.notes
    );
    // Another class: the guest runs on with the old one until it restarts.
    assert_eq!(essen.impact, "reboot");
    assert_eq!(
        (plan.totals.impact.reboot, plan.totals.impact.maintenance),
        (1, 1)
    );

    // Who sees one site sees one site's plan.
    let there = Caller::user(&s.tenant.id, "otto", Role::Operator, Scope::Site("berlin".into()));
    let part = s.fleet.plans().get(&there, &plan.id).await.unwrap();
    assert_eq!((part.sites.len(), part.totals.changed), (1, 1));
    // What can't be fetched is said.
    let spec = PlanSpec {
        repository: "shops".into(),
        commit: Some("gone".into()),
        ..PlanSpec::default()
    };
    let plan = s.fleet.plans().start(&s.owner, &spec, source()).await.unwrap();
    let plan = done(&s.owner, &plan.id).await;
    assert_eq!(
        (plan.state, plan.message.as_str()),
        (PlanState::Failed, "there is no branch gone")
    );
    assert_eq!(
        s.fleet
            .plans()
            .list(&s.owner, &Query::default())
            .await
            .unwrap()
            .total,
        3
    );
    for odd in ["", "-x", "a..b", "a b", "x\ny"] {
        let spec = PlanSpec {
            repository: "shops".into(),
            reference: Some(odd.into()),
            ..PlanSpec::default()
        };
        assert!(
            s.fleet.plans().start(&s.owner, &spec, source()).await.is_err(),
            "{odd:?}"
        );
    }
});

/// Ten thousand sites of which a commit touches five: told apart by ids, in seconds also unoptimised.
#[test]
fn ten_thousand_sites_of_which_five_change() {
    const SITES: usize = 10_000;
    let repo = Repo::new();
    let mut first = Vec::new();
    for n in 0..SITES {
        first.push((
            format!("sites/s{n:05}/kustomization.yaml"),
            "resources: [settings.yaml]\n".to_owned(),
        ));
        first.push((
            format!("sites/s{n:05}/settings.yaml"),
            config(&format!("hello {n}")),
        ));
    }
    let from = repo.commit(&first);
    let changed: Vec<(String, String)> = (0..5)
        .map(|n| (format!("sites/s{:05}/settings.yaml", n * 1777), config("bye")))
        .collect();
    let to = repo.commit(&changed);
    let sites: Vec<SiteInput> = (0..SITES)
        .map(|n| SiteInput {
            name: format!("s{n:05}"),
            path: format!("sites/s{n:05}"),
            ..SiteInput::default()
        })
        .collect();
    #[expect(clippy::disallowed_methods, reason = "the time that it takes is measured")]
    let started = Instant::now();
    let mut planner = Planner::open(repo.path(), &from, &to, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let found = planner.changed(&sites).unwrap();
    let names: Vec<&str> = found
        .iter()
        .map(|changed| sites[changed.at].name.as_str())
        .collect();
    assert_eq!(names, ["s00000", "s01777", "s03554", "s05331", "s07108"]);
    for changed in &found {
        let plan = planner.site(&sites[changed.at], &changed.from, &[]);
        assert_eq!((plan.objects.len(), plan.errors.len()), (1, 0));
    }
    let took = started.elapsed();
    println!("10,000 sites, 5 changed: {took:?}");
    // As a rollout asks: which of them need no turn.
    #[expect(clippy::disallowed_methods, reason = "the time that it takes is measured")]
    let begun = Instant::now();
    let mut planner = Planner::open(repo.path(), &to, &to, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let same = sites
        .iter()
        .filter(|site| planner.same(&from, &site.path))
        .count();
    println!("{same} of them told to be the same: {:?}", begun.elapsed());
    assert_eq!(same, SITES - 5);
    assert!(took.as_secs() < 30, "{took:?}");
}

/// A Flux Kustomization in a site's folder that builds another folder of the same repository.
fn nested(name: &str, path: &str, more: &str) -> String {
    format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  name: {name}\n  namespace: flux-system\nspec:\n  interval: 5m\n  path: {path}\n  prune: true\n  sourceRef:\n    kind: GitRepository\n    name: selvedge-site\n{more}"
    )
}

#[test]
fn kustomizations_in_a_site_are_followed() {
    let repo = Repo::new();
    let city = "  postBuild:\n    substitute:\n      CITY: Berlin\n    substituteFrom:\n    - kind: Secret\n      name: selvedge-site-variables\n    - kind: ConfigMap\n      name: elsewhere\n";
    let from = repo.commit(&files(&[
        ("sites/berlin/namespace.yaml", NAMESPACE),
        ("sites/berlin/apps.yaml", &nested("apps", "./apps/shop", city)),
        ("sites/delft/apps.yaml", &nested("apps", "./apps/office", "")),
        ("apps/shop/inner.yaml", &nested("inner", "apps/inner", "")),
        ("apps/shop/settings.yaml", &config("hello from ${CITY} ${PIN}")),
        (
            "apps/office/desk.yaml",
            &config("desk").replace("settings", "desk"),
        ),
        (
            "apps/inner/deep.yaml",
            &config("deep").replace("settings", "deep"),
        ),
    ]));
    let site = |name: &str| SiteInput {
        name: name.into(),
        path: format!("sites/{name}"),
        secret_variables: vec!["PIN".into()],
        ..SiteInput::default()
    };
    let sites = [site("berlin"), site("delft")];
    let look = |to: &str| {
        let mut planner = Planner::open(repo.path(), &from, to, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let changed = planner.changed(&sites).unwrap();
        let plans: Vec<_> = changed
            .iter()
            .map(|changed| planner.site(&sites[changed.at], &changed.from, &[]))
            .collect();
        plans
    };
    // Two folders down, and nothing of the site's own folder has changed.
    let to = repo.commit(&files(&[
        ("apps/shop/settings.yaml", &config("bye from ${CITY} ${PIN}")),
        (
            "apps/inner/deep.yaml",
            &config("deeper").replace("settings", "deep"),
        ),
    ]));
    let plans = look(&to);
    assert_eq!(plans.len(), 1, "{plans:#?}");
    let shown: Vec<String> = plans[0]
        .objects
        .iter()
        .map(|o| format!("{} {} {}", o.action, o.name, o.fields[0].after.as_ref().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            "update deep \"deeper\"",
            "update settings \"bye from Berlin (secret)\""
        ]
    );
    assert!(
        plans[0].notes.iter().any(|n| n.contains("ConfigMap elsewhere")),
        "{:?}",
        plans[0].notes
    );
    // One goes: what it built goes with it.
    let to = repo.commit(&files(&[("apps/shop/inner.yaml", "")]));
    let plans = look(&to);
    let gone: Vec<String> = plans[0]
        .objects
        .iter()
        .filter(|o| o.action == "delete")
        .map(|o| format!("{} {}", o.kind, o.name))
        .collect();
    assert_eq!(gone, ["ConfigMap deep", "Kustomization inner"]);
    // One that is suspended keeps all that it has.
    let to = repo.commit(&files(&[(
        "sites/berlin/apps.yaml",
        &nested("apps", "./apps/shop", "  suspend: true\n"),
    )]));
    let plans = look(&to);
    let shown: Vec<String> = plans[0]
        .objects
        .iter()
        .map(|o| format!("{} {}", o.action, o.name))
        .collect();
    assert!(!shown.iter().any(|o| o.contains("settings")), "{shown:?}");
    assert!(
        plans[0].notes.iter().any(|n| n.contains("is suspended")),
        "{:?}",
        plans[0].notes
    );
    // In a circle, or too deep: refused, with the one that closes it.
    let to = repo.commit(&files(&[
        ("sites/berlin/apps.yaml", &nested("apps", "./apps/shop", "")),
        ("apps/shop/inner.yaml", &nested("inner", "./apps/inner", "")),
        ("apps/inner/deep.yaml", &nested("back", "./apps/shop/", "")),
    ]));
    let plans = look(&to);
    assert_eq!(
        plans[0].errors,
        ["Kustomization flux-system/back: spec.path leads back to \"apps/shop\", in which it is itself"]
    );
    let mut deep = vec![("apps/inner/deep.yaml".to_owned(), nested("d0", "deep/0", ""))];
    for n in 0..10 {
        deep.push((
            format!("deep/{n}/next.yaml"),
            nested(&format!("d{}", n + 1), &format!("deep/{}", n + 1), ""),
        ));
    }
    let to = repo.commit(&deep);
    let plans = look(&to);
    assert_eq!(
        plans[0].errors,
        ["Kustomization flux-system/d6: Kustomizations are within each other more than 8 deep"]
    );
}

/// Which changes cost what; see the table of `impact`.
#[test]
fn impact_is_what_guests_notice() {
    let network = |groups: &[&str], nics: &[&str]| {
        let groups: Vec<_> = groups
            .iter()
            .map(|name| json!({"name": name, "vlan_id": 10}))
            .collect();
        let profile = json!({"esx": {"network_vss": {"switches": [{"name": "vSwitch0", "bridge": {"nics": nics},
            "port_groups": groups}]}}});
        profile_of(&profile)
    };
    let none = profile_of(&json!({"esx": {"network_vss": {"switches": []}}}));
    let till = |class: &str, power: &str, more: &str| format!("{}{more}", machine("till", class, power));
    let small = till("best-effort-small", "poweredOn", "");
    let two = network(&["VM Network", "tills"], &["vmnic0", "vmnic1"]);
    let cases: &[(&str, &str, &str, &str)] = &[
        (
            "another class",
            &small,
            &till("best-effort-large", "poweredOn", ""),
            "reboot",
        ),
        (
            "a restart now",
            &small,
            &till(
                "best-effort-small",
                "poweredOn",
                "  nextRestartTime: \"1969-12-31T00:00:00Z\"\n",
            ),
            "reboot",
        ),
        (
            "a restart later",
            &small,
            &till(
                "best-effort-small",
                "poweredOn",
                "  nextRestartTime: \"2099-01-01T00:00:00Z\"\n",
            ),
            "reboot",
        ),
        (
            "off",
            &small,
            &till("best-effort-small", "poweredOff", ""),
            "maintenance",
        ),
        ("gone", &small, NAMESPACE, "maintenance"),
        ("new", NAMESPACE, &small, "none"),
        (
            "another class of one that is off",
            &till("best-effort-small", "poweredOff", ""),
            &till("best-effort-large", "poweredOff", ""),
            "none",
        ),
        (
            "a label",
            &small,
            &small.replace("namespace: shop", "namespace: shop\n  labels: {a: b}"),
            "none",
        ),
        ("another VLAN", &two, &two.replace("10", "20"), "none"),
        (
            "one uplink of two",
            &two,
            &network(&["VM Network", "tills"], &["vmnic0"]),
            "none",
        ),
        (
            "all uplinks",
            &two,
            &network(&["VM Network", "tills"], &["vmnic2"]),
            "maintenance",
        ),
        (
            "a port group less",
            &two,
            &network(&["VM Network"], &["vmnic0", "vmnic1"]),
            "maintenance",
        ),
        ("a switch less", &two, &none, "maintenance"),
    ];
    let repo = Repo::new();
    for (what, before, after, impact) in cases {
        let from = repo.commit(&files(&[("site/a.yaml", before)]));
        let to = repo.commit(&files(&[("site/a.yaml", after)]));
        let site = SiteInput {
            name: "s".into(),
            path: "site".into(),
            ..SiteInput::default()
        };
        let mut planner = Planner::open(repo.path(), &from, &to, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let plan = planner.site(&site, &from, &[]);
        assert_eq!((*what, plan.impact.as_str()), (*what, *impact), "{plan:#?}");
        assert_eq!(plan.errors, [""; 0], "{what}");
    }
}
