//! Builds that must come out as `kubectl kustomize` makes them.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use kustomize::{Limits, MemoryTree, Options, build, parse_manifests};
use serde_json::Value;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: runner
      tolerations: [{key: a}, {key: b}]
      volumes:
      - {name: v1, configMap: {name: settings}}
      - {name: v2, secret: {secretName: keys}}
      containers:
      - name: main
        image: registry:5000/web:1.0
        args: [a, b]
        env:
        - {name: A, value: \"1\"}
        - {name: B, valueFrom: {configMapKeyRef: {name: settings, key: b}}}
        ports: [{containerPort: 80}]
      - {name: side, image: nginx}
      initContainers:
      - {name: init, image: \"nginx@sha256:aaaa\", envFrom: [{secretRef: {name: keys}}]}
";

const OTHERS: &str = "apiVersion: v1
kind: Service
metadata: {name: svc}
spec: {ports: [{port: 80}, {port: 81, name: x}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: binding}
roleRef: {kind: ClusterRole, name: reader, apiGroup: rbac.authorization.k8s.io}
subjects: [{kind: ServiceAccount, name: runner, namespace: default}, {kind: ServiceAccount, name: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: \"0 1 * * *\"
  jobTemplate: {spec: {template: {spec: {containers: [{name: x, image: nginx:1}]}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec: {serviceName: svc, volumeClaimTemplates: [{metadata: {name: data}}], template: {spec: {containers: []}}}
---
apiVersion: vmoperator.vmware.com/v1alpha1
kind: VirtualMachine
metadata: {name: vm, annotations: {a: b}}
spec: {imageName: a.ova, networkInterfaces: [{networkName: one}, {networkName: two}]}
---
apiVersion: example.com/v1
kind: Thing
metadata: {name: thing}
spec: {containers: [{name: c, image: nginx:1}], list: [{name: a, v: 1}], template: {metadata: {}}}
";

/// A name, the files beside those above, and the kustomization.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const CASES: &[Case] = &[
    ("resources", &[], "resources: [d.yaml, o.yaml]"),
    ("namespace", &[], "resources: [d.yaml, o.yaml]\nnamespace: other"),
    ("prefix and suffix", &[], "resources: [d.yaml, o.yaml]\nnamePrefix: p-\nnameSuffix: -s"),
    ("labels", &[], "resources: [d.yaml, o.yaml]\nlabels:\n- pairs: {a: b}\n- pairs: {c: d}\n  includeTemplates: true\n- pairs: {e: f}\n  includeSelectors: true"),
    ("common labels", &[], "resources: [d.yaml, o.yaml]\ncommonLabels: {team: x}\ncommonAnnotations: {note: z}"),
    ("images", &[], "resources: [d.yaml, o.yaml]\nimages:\n- {name: \"registry:5000/web\", newName: other/web, newTag: \"2\"}\n- {name: nginx, digest: sha256:bbbb}"),
    ("image tag only", &[], "resources: [d.yaml, o.yaml]\nimages:\n- {name: nginx, newTag: v9}\n- {name: nothing, newTag: v1}"),
    ("image name only", &[], "resources: [d.yaml, o.yaml]\nimages:\n- {name: nginx, newName: mirror/nginx}"),
    ("replicas", &[], "resources: [d.yaml, o.yaml]\nreplicas: [{name: web, count: 5}, {name: db, count: 2}]"),
    (
        "strategic merge",
        &[],
        "resources: [d.yaml, o.yaml]
patches:
- patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web}
    spec:
      replicas: null
      template:
        spec:
          tolerations: [{key: z}]
          containers:
          - {name: new, image: img}
          - {name: main, args: [c], env: [{name: C, value: c}, {name: A, value: '2'}], ports: [{containerPort: 90}]}
          - {name: side, $patch: delete}
          volumes: [{name: v2, $patch: delete}, {name: v3, emptyDir: {}}]
- patch: |
    apiVersion: vmoperator.vmware.com/v1alpha1
    kind: VirtualMachine
    metadata: {name: vm, annotations: {a: null, c: d}}
    spec: {networkInterfaces: [{networkName: three}], className: x}
- patch: |
    apiVersion: v1
    kind: Service
    metadata: {name: svc}
    spec: {ports: [{port: 81, name: renamed}, {port: 82}]}
- patch: |
    $patch: delete
    apiVersion: v1
    kind: Namespace
    metadata: {name: shop}
- patch: |
    apiVersion: example.com/v1
    kind: Thing
    metadata: {name: thing}
    spec: {list: [{name: b}], template: {$patch: replace, x: z}}",
    ),
    (
        "targets",
        &[("p.json", "[{\"op\": \"add\", \"path\": \"/metadata/labels\", \"value\": {\"patched\": \"yes\"}}]")],
        "resources: [d.yaml, o.yaml]
patches:
- {path: p.json, target: {kind: \"Service|Thing\"}}
- {target: {name: \"v.\"}, patch: '[{\"op\": \"replace\", \"path\": \"/spec/networkInterfaces/0/networkName\", \"value\": \"x\"}]'}
- target: {labelSelector: \"app in (web, x),!none\"}
  patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: whatever, annotations: {chosen: really}}
- target: {kind: StatefulSet, group: apps, version: v1}
  patch: |
    - {op: test, path: /spec/serviceName, value: svc}
    - {op: remove, path: /spec/serviceName}
- target: {kind: Nothing}
  patch: '[{\"op\": \"remove\", \"path\": \"/x\"}]'",
    ),
    (
        "old patch fields",
        &[("s.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: svc}\nspec: {type: NodePort}\n"), ("j.yaml", "- {op: add, path: /metadata/annotations, value: {j: k}}\n")],
        "resources: [d.yaml, o.yaml]\npatchesStrategicMerge: [s.yaml]\npatchesJson6902:\n- {path: j.yaml, target: {version: v1, kind: Service, name: svc}}",
    ),
    (
        "generators",
        &[("f.txt", "some <text> & more\n"), ("e.env", "# c\nX=1\n  Z=\"q\" \n\nW\n")],
        "resources: [d.yaml, o.yaml]
configMapGenerator:
- {name: settings, literals: [b=1, \"c='quoted'\", d=e=f], files: [f.txt, other.txt=f.txt], envs: [e.env]}
- {name: plain, literals: [a=b], options: {disableNameSuffixHash: true, labels: {l: m}, immutable: true}}
- {name: empty}
secretGenerator:
- {name: keys, literals: [k=v], type: example/kind}
generatorOptions: {annotations: {made: here}}",
    ),
    (
        "generators in layers",
        &[
            ("base/kustomization.yaml", "resources: [../d.yaml]\nnamePrefix: b-\nconfigMapGenerator:\n- {name: settings, literals: [b=1, c=2]}\nsecretGenerator:\n- {name: keys, literals: [k=v]}\n"),
        ],
        "resources: [base]\nnamespace: ns\nnameSuffix: -top\nconfigMapGenerator:\n- {name: settings, behavior: merge, literals: [c=3, d=4]}\nsecretGenerator:\n- {name: keys, behavior: replace, literals: [z=1]}",
    ),
    (
        "two copies of one base",
        &[
            ("base/kustomization.yaml", "resources: [../d.yaml]\nconfigMapGenerator:\n- {name: settings, literals: [b=1]}\n"),
            ("one/kustomization.yaml", "resources: [../base]\nnamePrefix: one-\n"),
            ("two/kustomization.yml", "bases: [../base]\nnamePrefix: two-\n"),
        ],
        "resources: [one, two]",
    ),
    (
        "components",
        &[("c/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [cm.yaml]\nnamePrefix: c-\npatches:\n- {target: {kind: Service}, patch: '[{\"op\": \"add\", \"path\": \"/spec/type\", \"value\": \"NodePort\"}]'}\n"), ("c/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n")],
        "resources: [d.yaml, o.yaml]\ncomponents: [c]",
    ),
    (
        "a patch that renames",
        &[],
        "resources: [d.yaml, o.yaml]\npatches:\n- {target: {kind: ServiceAccount}, options: {allowNameChange: true}, patch: '[{\"op\": \"replace\", \"path\": \"/metadata/name\", \"value\": \"walker\"}]'}",
    ),
];

fn by_key(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    objects
        .into_iter()
        .map(|o| {
            (
                format!(
                    "{} {} {}",
                    o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]
                ),
                o,
            )
        })
        .collect()
}

fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("version")
        .arg("--client")
        .output()
        .is_ok_and(|out| out.status.success())
}

fn write(root: &Path, path: &str, text: &str) -> std::io::Result<()> {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap_or(root))?;
    fs::write(file, text)
}

/// The minor version of the machine's kubectl; 0 if it does not say.
fn kubectl_minor() -> u32 {
    let Ok(said) = Command::new("kubectl")
        .args(["version", "--client", "-o", "json"])
        .output()
    else {
        return 0;
    };
    let version: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
    minor.trim_end_matches('+').parse().unwrap_or(0)
}

#[test]
fn builds_are_those_of_kubectl() {
    if !is_there("kubectl") {
        eprintln!("left out: there is no kubectl to compare with");
        return;
    }
    let minor = kubectl_minor();
    if minor < 28 {
        // That of Debian 12 has a Kustomize of 2019 in it.
        eprintln!("left out: kubectl 1.{minor} is too old to compare with");
        return;
    }
    let mut wrong = Vec::new();
    for (name, files, kustomization) in CASES {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<(&str, &str)> = [
            ("d.yaml", DEPLOYMENT),
            ("o.yaml", OTHERS),
            ("kustomization.yaml", *kustomization),
        ]
        .into_iter()
        .chain(files.iter().copied())
        .collect();
        let mut tree = MemoryTree::new();
        for (path, text) in all {
            write(dir.path(), path, text).unwrap();
            tree = tree.file(path, text);
        }
        let out = Command::new("kubectl")
            .args(["kustomize", "--load-restrictor=LoadRestrictionsNone"])
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let theirs = parse_manifests("kubectl", &out.stdout, &Limits::default()).unwrap();
        let theirs = by_key(theirs.into_iter().map(|l| l.object));
        let ours = match build(&tree, "", &Options::default()) {
            Ok(built) => by_key(built.objects.into_iter().map(|l| l.object)),
            Err(errors) => {
                wrong.push(format!("{name}: {errors:?}"));
                continue;
            }
        };
        if ours.keys().ne(theirs.keys()) {
            wrong.push(format!(
                "{name}:\n  ours   {:?}\n  theirs {:?}",
                ours.keys(),
                theirs.keys()
            ));
            continue;
        }
        for (key, object) in &ours {
            if *object != theirs[key] {
                wrong.push(format!(
                    "{name}: {key}\n  ours   {object}\n  theirs {}",
                    theirs[key]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
