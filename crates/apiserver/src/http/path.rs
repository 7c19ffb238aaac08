//! What a URL path names.

use kinds::Gvr;
use percent_encoding::percent_decode_str;

/// A resource path: `/api/v1/…` or `/apis/<group>/<version>/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) gvr: Gvr,
    /// Empty for cluster scope, or all namespaces.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1` and `/apis/<group>/<version>`
    GroupVersion(String, String),
    /// Objects.
    Resource(Resource),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3` and `/openapi/v3/<key>`
    OpenApiV3(Option<String>),
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz`, each also with the name of one check.
    Health(String, Option<String>),
    /// `/metrics`
    Metrics,
    /// `/`
    Root,
    /// Anything else.
    Other,
}

impl Target {
    /// Reads a path. A trailing slash changes nothing.
    pub(crate) fn parse(path: &str) -> Self {
        let trimmed = path.strip_prefix('/').unwrap_or(path);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        let Some(parts) = trimmed.split('/').map(decode).collect::<Option<Vec<_>>>() else {
            return Self::Other;
        };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            [""] => Self::Root,
            _ if parts.contains(&"") => Self::Other,
            ["api"] => Self::Core,
            ["apis"] => Self::Groups,
            ["api", version] => Self::GroupVersion(String::new(), version.into()),
            ["apis", group] => Self::Group(group.into()),
            ["apis", group, version] => Self::GroupVersion(group.into(), version.into()),
            ["api", version, ref rest @ ..] => resource("", version, rest),
            ["apis", group, version, ref rest @ ..] => resource(group, version, rest),
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiV3(None),
            ["openapi", "v3", ref key @ ..] => Self::OpenApiV3(Some(key.join("/"))),
            ["version"] => Self::Version,
            [kind @ ("healthz" | "livez" | "readyz")] => Self::Health(kind.into(), None),
            [kind @ ("healthz" | "livez" | "readyz"), check] => Self::Health(kind.into(), Some(check.into())),
            ["metrics"] => Self::Metrics,
            _ => Self::Other,
        }
    }
}

fn decode(part: &str) -> Option<String> {
    let decoded = percent_decode_str(part).decode_utf8().ok()?;
    // A name can't hold these; a decoded one may not become a path again.
    (!decoded.contains(['/', '\0']) && decoded != "." && decoded != "..").then(|| decoded.into_owned())
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Target {
    let make = |namespace: &str, plural: &str, name: &str, subresource: &str| {
        Target::Resource(Resource {
            gvr: Gvr {
                group: group.into(),
                version: version.into(),
                plural: plural.into(),
            },
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
        })
    };
    match *rest {
        // The one place where a path could mean two things: what follows a namespace's name.
        ["namespaces", name, sub @ ("status" | "finalize")] => make("", "namespaces", name, sub),
        ["namespaces", namespace, plural] => make(namespace, plural, "", ""),
        ["namespaces", namespace, plural, name] => make(namespace, plural, name, ""),
        ["namespaces", namespace, plural, name, sub] => make(namespace, plural, name, sub),
        [plural] => make("", plural, "", ""),
        [plural, name] => make("", plural, name, ""),
        [plural, name, sub] => make("", plural, name, sub),
        _ => Target::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(path: &str) -> [String; 6] {
        match Target::parse(path) {
            Target::Resource(r) => [
                r.gvr.group,
                r.gvr.version,
                r.namespace,
                r.gvr.plural,
                r.name,
                r.subresource,
            ],
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn resources() {
        for (path, expected) in [
            ("/api/v1/configmaps", ["", "v1", "", "configmaps", "", ""]),
            ("/api/v1/namespaces", ["", "v1", "", "namespaces", "", ""]),
            ("/api/v1/namespaces/a", ["", "v1", "", "namespaces", "a", ""]),
            (
                "/api/v1/namespaces/a/status",
                ["", "v1", "", "namespaces", "a", "status"],
            ),
            (
                "/api/v1/namespaces/a/configmaps/b%2Ec/",
                ["", "v1", "a", "configmaps", "b.c", ""],
            ),
            (
                "/apis/g.io/v1alpha1/namespaces/a/things/b/status",
                ["g.io", "v1alpha1", "a", "things", "b", "status"],
            ),
            (
                "/apis/g.io/v1/hosts/h/status",
                ["g.io", "v1", "", "hosts", "h", "status"],
            ),
        ] {
            assert_eq!(names(path), expected, "{path}");
        }
    }

    #[test]
    fn other_paths() {
        assert_eq!(Target::parse("/"), Target::Root);
        assert_eq!(Target::parse("/api/"), Target::Core);
        assert_eq!(
            Target::parse("/readyz/etcd"),
            Target::Health("readyz".into(), Some("etcd".into()))
        );
        assert_eq!(
            Target::parse("/openapi/v3/apis/g/v1"),
            Target::OpenApiV3(Some("apis/g/v1".into()))
        );
        for path in [
            "/api/v1//x",
            "/x",
            "/api/v1/namespaces/a%2Fb/configmaps",
            "/api/v1/configmaps/%2e%2e",
            "/api/v1/a/b/c/d",
        ] {
            assert_eq!(Target::parse(path), Target::Other, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_gives_an_answer(path in "\\PC{0,60}") {
            let _ = Target::parse(&path);
        }
    }
}
