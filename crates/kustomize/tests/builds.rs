//! Builds that go wrong, and folders without a kustomization.

use kustomize::{BuildError, Limits, MemoryTree, Options, build};

fn errors(tree: &MemoryTree, path: &str) -> Vec<String> {
    let errors: Vec<BuildError> = build(tree, path, &Options::default()).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

const A: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

/// A kustomization, the files beside it, and a part of the error.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

#[test]
fn each_mistake_is_named_with_its_place() {
    let cases: &[Case] = &[
        (
            "resources: [a.yaml]\nhelmCharts: []\n",
            &[("a.yaml", A)],
            "kustomization.yaml:2:1: helmCharts: the kustomize field `helmCharts` is not supported",
        ),
        (
            "resources: [a.yaml]\nreplacements: []\nvars: []\n",
            &[("a.yaml", A)],
            "`vars` is not supported",
        ),
        (
            "resources: [none.yaml]\n",
            &[],
            "resources: there is no `none.yaml`",
        ),
        (
            "resources: [../../x]\n",
            &[],
            "`../../x` leads out of the repository",
        ),
        (
            "resources: [\"https://example.com/x.yaml\"]\n",
            &[],
            "is on another server",
        ),
        (
            "resources: [\"github.com/a/b?ref=c\"]\n",
            &[],
            "is on another server",
        ),
        (
            "resources: [sub]\n",
            &[("sub/a.yaml", A)],
            "the folder `sub` has no kustomization.yaml",
        ),
        (
            "resources: [sub]\n",
            &[("sub/kustomization.yaml", "resources: [..]\n")],
            "include each other",
        ),
        (
            "resources: [a.yaml, b.yaml]\n",
            &[("a.yaml", A), ("b.yaml", A)],
            "ConfigMap a is there twice; the first is at a.yaml:1",
        ),
        (
            "resources: [a.yaml]\n",
            &[("a.yaml", "just: text\n")],
            "a.yaml:1: a document that is no manifest",
        ),
        ("namePrefix: [x]\n", &[], "kustomization.yaml:1:1: namePrefix: "),
        ("a: [\n", &[], "kustomization.yaml:"),
        (
            "apiVersion: apps/v1\nkind: Deployment\n",
            &[],
            "is not the API of kustomize",
        ),
        (
            "resources: [a.yaml]\npatches: [{patch: '{\"kind\": \"X\", \"metadata\": {\"name\": \"y\"}}'}]\n",
            &[("a.yaml", A)],
            "which is not there",
        ),
        (
            "resources: [a.yaml]\npatches: [{path: p.yaml}]\n",
            &[("a.yaml", A)],
            "there is no `p.yaml`",
        ),
        (
            "resources: [a.yaml]\npatches: [{patch: '[{\"op\": \"remove\", \"path\": \"/x\"}]'}]\n",
            &[("a.yaml", A)],
            "needs a `target`",
        ),
        (
            "resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '[{\"op\": \"remove\", \"path\": \"/x\"}]'}]\n",
            &[("a.yaml", A)],
            "does not fit ConfigMap a",
        ),
        (
            "resources: [a.yaml]\npatches: [{target: {kind: \"(\"}, patch: 'a: b'}]\n",
            &[("a.yaml", A)],
            "no regular expression",
        ),
        (
            "resources: [a.yaml]\npatches: [{patch: 'a: b: c'}]\n",
            &[("a.yaml", A)],
            "line 1 of an inline patch: mapping values",
        ),
        (
            "configMapGenerator: [{name: c, literals: [a]}]\n",
            &[],
            "has no `=`",
        ),
        (
            "configMapGenerator: [{name: c, literals: [a=b, a=c]}]\n",
            &[],
            "is there twice",
        ),
        (
            "configMapGenerator: [{name: c, behavior: merge}]\n",
            &[],
            "there is no ConfigMap c to merge",
        ),
        (
            "configMapGenerator: [{name: c, files: [../../x]}]\n",
            &[],
            "leads out of the repository",
        ),
        (
            "components: [c]\n",
            &[("c/a.yaml", A)],
            "a component needs a kustomization.yaml",
        ),
    ];
    for (kustomization, files, wanted) in cases {
        let mut tree = MemoryTree::new().file("kustomization.yaml", *kustomization);
        for (path, text) in *files {
            tree = tree.file(path, *text);
        }
        let found = errors(&tree, "");
        assert!(
            found.iter().any(|e| e.contains(wanted)),
            "{kustomization}\nwanted {wanted}\nfound  {found:?}"
        );
    }
}

#[test]
fn all_errors_of_a_folder_are_found() {
    let tree = MemoryTree::new()
        .file("s/a.yaml", "a: [\n")
        .file("s/b/b.yml", "apiVersion: v1\nmetadata: {name: x}\n")
        .file("s/c.yaml", A)
        .file("s/d.yaml", format!("---\n{A}"))
        .file("s/sub/kustomization.yaml", "resources: [none]\n");
    let found = errors(&tree, "s");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[1].contains("s/b/b.yml:1: a manifest without kind"),
        "{found:?}"
    );
    let tree = MemoryTree::new()
        .file("s/c.yaml", A)
        .file("s/d.yaml", format!("---\n{A}"));
    assert_eq!(
        errors(&tree, "s"),
        ["s/d.yaml:2: ConfigMap a is there twice; the first is at s/c.yaml:1"]
    );
    assert!(errors(&tree, "none")[0].contains("there is no `none`"));
    assert!(errors(&tree, "../x")[0].contains("leads out"));
    assert!(errors(&tree, "s/c.yaml")[0].contains("is no folder"));
}

#[test]
fn what_is_no_manifest_is_skipped_and_named() {
    let tree = MemoryTree::new()
        .file("a.yaml", A)
        .file(".github/workflows/ci.yaml", "on: push\n")
        .file("azure-pipelines.yml", "trigger: none\n")
        .file("empty.yaml", "# nothing\n")
        .file("README.md", "# hello\n")
        .file("x/.sourceignore", "/old\n")
        .file("x/old/broken.yaml", "[")
        .file(
            "x/sub/kustomization.yaml",
            "resources: [b.yaml]\nnamePrefix: p-\n",
        )
        .file("x/sub/b.yaml", A)
        .file("x/sub/unused.yaml", A)
        .link("l.yaml", "x/sub/b.yaml")
        .link("folder", "x");
    let options = Options {
        ignore: None,
        ..Options::default()
    };
    let built = build(&tree, "", &options);
    // A `.sourceignore` of one's own takes the place of the default exclusions, for all that comes after it.
    let errors = built.err().unwrap_or_default();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].message.contains("ConfigMap a is there twice"),
        "{errors:?}"
    );
    let tree = MemoryTree::new()
        .file("a.yaml", A)
        .file(".github/workflows/ci.yaml", "on: push\n")
        .file("azure-pipelines.yml", "trigger: none\n")
        .file("empty.yaml", "# nothing\n")
        .file(
            "x/sub/kustomization.yaml",
            "resources: [b.yaml]\nnamePrefix: p-\n",
        )
        .file("x/sub/b.yaml", A)
        .file("x/sub/unused.yaml", A)
        .link("folder", "x");
    let built = build(&tree, "", &options).unwrap();
    let names: Vec<String> = built
        .objects
        .iter()
        .map(|l| format!("{} {}", l.place(), kinds::object::name(&l.object)))
        .collect();
    assert_eq!(names, ["a.yaml:1 a", "x/sub/b.yaml:1 p-a"]);
    let skipped: Vec<&str> = built.skipped.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(skipped, ["azure-pipelines.yml", "empty.yaml", "folder"]);
}

#[test]
fn bounds_end_the_build() {
    let mut tree = MemoryTree::new();
    for n in 0..20 {
        tree = tree.file(&format!("{n}.yaml"), A.replace("name: a", &format!("name: a{n}")));
    }
    for options in [
        Options {
            files: 10,
            ..Options::default()
        },
        Options {
            bytes: 100,
            ..Options::default()
        },
        Options {
            objects: 10,
            ..Options::default()
        },
    ] {
        let errors = build(&tree, "", &options).err().unwrap_or_default();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].message.contains("the folder has more than"),
            "{errors:?}"
        );
    }
    let limits = Limits {
        bytes: 10,
        ..Limits::default()
    };
    let errors = build(
        &tree,
        "",
        &Options {
            limits,
            ..Options::default()
        },
    )
    .err()
    .unwrap_or_default();
    assert_eq!(errors.len(), 20);
    let mut deep = String::new();
    for _ in 0..100 {
        deep.push_str("d/");
    }
    let tree = MemoryTree::new().file(&format!("{deep}a.yaml"), A);
    assert!(build(&tree, "", &Options::default()).is_err());
}

#[test]
fn objects_come_in_the_order_of_the_apply() {
    let one = |kind: &str| {
        format!(
            "apiVersion: v1\nkind: {kind}\nmetadata: {{name: {}}}\n---\n",
            kind.to_lowercase()
        )
    };
    let kinds = [
        "VirtualMachine",
        "ConfigMap",
        "Namespace",
        "HostConfiguration",
        "CustomResourceDefinition",
        "Service",
    ];
    let text: String = kinds.iter().map(|k| one(k)).collect();
    let built = build(&MemoryTree::new().file("a.yaml", text), "", &Options::default()).unwrap();
    let order: Vec<&str> = built
        .objects
        .iter()
        .map(|l| kinds::object::kind(&l.object))
        .collect();
    assert_eq!(
        order,
        [
            "CustomResourceDefinition",
            "Namespace",
            "ConfigMap",
            "HostConfiguration",
            "VirtualMachine",
            "Service"
        ]
    );
}
