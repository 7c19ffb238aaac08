//! Lists with any continue token and any selectors: what is answered lies in the namespace that was asked for, and
//! what is refused is the client's mistake, never the server's.
#![no_main]

use std::sync::{Arc, LazyLock};

use apiserver::{
    Api, Caller,
    api::{ListOptions, Target, WriteOptions},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kinds::{Gvr, registry::Registry};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tokio::runtime::Runtime;

struct Server {
    runtime: Runtime,
    api: Api,
    admin: Caller,
    maps: Gvr,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    let store = store::SqliteStore::in_memory_with(store::Options::default()).expect("a store");
    let clock = telemetry::Clock::fixed("2026-01-02T03:04:05Z".parse().expect("a time"));
    let api = Api::new(Arc::new(Registry::builtin()), Arc::new(store), clock);
    let admin = Caller {
        user: "fuzz".into(),
        groups: vec!["system:masters".into()],
        ..Caller::default()
    };
    let maps = Gvr::new("v1", "configmaps");
    runtime.block_on(async {
        api.ensure_namespaces(&["a", "b"]).await.expect("namespaces");
        for (namespace, name) in [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("b", "y")] {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace, "labels": {"l": name}}});
            let target = Target::new(&maps, namespace, "");
            api.create(&admin, target, object, &WriteOptions::default())
                .await
                .expect("it is right");
        }
    });
    drop(_inside);
    Server {
        runtime,
        api,
        admin,
        maps,
    }
});

fuzz_target!(|input: (bool, bool, u8, String, String, String, String)| {
    let (everywhere, encode, limit, token, labels, fields, revision) = input;
    let server = &*SERVER;
    let options = ListOptions {
        label_selector: labels,
        field_selector: fields,
        limit: usize::from(limit),
        continue_token: if encode {
            URL_SAFE_NO_PAD.encode(token)
        } else {
            token
        },
        resource_version: revision,
        ..ListOptions::default()
    };
    let namespace = (!everywhere).then_some("a");
    let listed = server
        .runtime
        .block_on(server.api.list(&server.admin, &server.maps, namespace, &options));
    match listed {
        Ok(page) => {
            for item in &page.items {
                assert!(everywhere || kinds::object::namespace(item) == "a");
            }
            assert!(limit == 0 || page.items.len() <= usize::from(limit));
        }
        Err(status) => assert!(
            (400..500).contains(&status.code) || status.code == 504,
            "{status:?}"
        ),
    }
});
