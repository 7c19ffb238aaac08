use kinds::object::Gvr;

use super::*;

fn caller(groups: &[&str]) -> Caller {
    Caller {
        user: "ada".into(),
        groups: groups.iter().map(ToString::to_string).collect(),
        from: String::new(),
    }
}

fn may(group: &str, verb: &str, api: &str, plural: &str, namespace: &str, name: &str) -> bool {
    let gvr = Gvr::new(api, plural);
    let asked = Attributes {
        verb,
        gvr: &gvr,
        namespace,
        name,
        subresource: None,
    };
    judge(&caller(&[group]), &asked).is_ok()
}

const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
const VM: &str = "vmoperator.vmware.com/v1alpha1";
const FLUX: &str = "kustomize.toolkit.fluxcd.io/v1";

#[test]
fn owners_may_do_everything_and_strangers_nothing() {
    for verb in VERBS {
        for (api, plural, namespace) in [
            ("v1", "secrets", "flux-system"),
            (VM, "virtualmachines", "shop"),
            ("v1", "namespaces", ""),
        ] {
            for group in [OWNER, MASTERS, SYSTEM] {
                assert!(
                    may(group, verb, api, plural, namespace, "x"),
                    "{group} {verb} {plural}"
                );
            }
            for group in [
                "",
                "selvedge:break-glass",
                "system:authenticated",
                "selvedge:viewers",
            ] {
                assert!(
                    !may(group, verb, api, plural, namespace, "x"),
                    "{group} {verb} {plural}"
                );
            }
        }
    }
}

#[test]
fn viewers_look_at_all_but_secrets() {
    for verb in ["get", "list", "watch"] {
        assert!(may(VIEWER, verb, VM, "virtualmachines", "", ""));
        assert!(may(VIEWER, verb, "v1", "configmaps", "flux-system", ""));
        for namespace in ["", "shop", "flux-system"] {
            assert!(!may(VIEWER, verb, "v1", "secrets", namespace, "x"));
        }
    }
    for verb in WRITES {
        assert!(
            !may(VIEWER, verb, VM, "virtualmachines", "shop", "till"),
            "{verb}"
        );
        assert!(!may(
            VIEWER,
            verb,
            FLUX,
            "kustomizations",
            "flux-system",
            "selvedge-site"
        ));
    }
}

#[test]
fn operators_write_what_is_not_the_systems() {
    for verb in VERBS {
        assert!(
            may(OPERATOR, verb, VM, "virtualmachines", "shop", "till"),
            "{verb}"
        );
        assert!(may(OPERATOR, verb, "v1", "secrets", "shop", "x"), "{verb}");
        assert!(!may(OPERATOR, verb, "v1", "secrets", "", ""), "{verb}");
        for namespace in SYSTEM_NAMESPACES {
            assert!(!may(OPERATOR, verb, "v1", "secrets", namespace, "x"), "{verb}");
        }
    }
    for verb in WRITES {
        assert!(
            !may(OPERATOR, verb, "v1", "configmaps", "flux-system", "x"),
            "{verb}"
        );
        assert!(
            !may(OPERATOR, verb, "v1", "namespaces", "", "flux-system"),
            "{verb}"
        );
    }
    assert!(may(OPERATOR, "create", "v1", "namespaces", "", "shop"));
    assert!(!may(OPERATOR, "deletecollection", "v1", "namespaces", "", ""));
    assert!(!may(OPERATOR, "deletecollection", "v1", "configmaps", "", ""));
    assert!(may(OPERATOR, "list", "v1", "configmaps", "flux-system", ""));
}

#[test]
fn operators_may_not_make_what_the_daemon_applies_for_them() {
    for namespace in ["shop", "flux-system"] {
        for verb in ["create", "delete", "deletecollection"] {
            assert!(
                !may(OPERATOR, verb, FLUX, "kustomizations", namespace, "x"),
                "{verb}"
            );
        }
        // The annotation that asks for a run; admission looks whether it is no more than that.
        assert!(may(OPERATOR, "patch", FLUX, "kustomizations", namespace, "x"));
    }
    let gvr = Gvr::new(FLUX, "kustomizations");
    let asked = Attributes {
        verb: "patch",
        gvr: &gvr,
        namespace: "shop",
        name: "x",
        subresource: Some("status"),
    };
    assert!(judge(&caller(&[OPERATOR]), &asked).is_err());
}

#[test]
fn the_highest_of_several_groups_counts() {
    assert_eq!(Role::of(&caller(&[VIEWER, OPERATOR])), Some(Role::Operator));
    assert_eq!(Role::of(&caller(&[OWNER, VIEWER])), Some(Role::Owner));
    assert_eq!(Role::of(&caller(&["x"])), None);
}
