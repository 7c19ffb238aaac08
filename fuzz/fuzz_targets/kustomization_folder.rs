//! A repository: its `kustomization.yaml`, what that names, a link, and a `.sourceignore`. Everything wrong has a file.
#![no_main]

use std::sync::LazyLock;

use kinds::registry::Registry;
use kustomize::{MemoryTree, Options, build, check};
use libfuzzer_sys::fuzz_target;

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

fuzz_target!(|input: (&[u8], &[u8], &[u8], &str, &[u8])| {
    let (kustomization, first, second, link, ignore) = input;
    let tree = MemoryTree::new()
        .file("site/kustomization.yaml", kustomization)
        .file("site/a.yaml", first)
        .file("base/kustomization.yaml", &b"resources: [b.yaml]\n"[..])
        .file("base/b.yaml", second)
        .link("site/link", link)
        .file("site/.sourceignore", ignore);
    for folder in ["site", ""] {
        match build(&tree, folder, &Options::default()) {
            Ok(built) => {
                let _ = check(&tree, built.objects, &REGISTRY);
            }
            Err(errors) => {
                for error in errors {
                    let _ = error.to_string();
                }
            }
        }
    }
});
