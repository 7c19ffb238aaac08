//! How long an apply of an unchanged object takes: `cargo run --release -p merge --example apply_speed`.

use std::hint::black_box;

use merge::apply::{ApplyOptions, server_side_apply};
use serde_json::{Value, json};

#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() -> Result<(), merge::apply::ApplyError> {
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "className": text,
        "networkInterfaces": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": text, "networkName": text}}},
        "data": {"type": "object", "additionalProperties": text}
    }}}});
    let data: serde_json::Map<String, Value> = (0..40)
        .map(|i| {
            (
                format!("key-{i}"),
                Value::from("a value of some length, as texts are".repeat(2)),
            )
        })
        .collect();
    let cards: Vec<Value> = (0..10)
        .map(|i| json!({"name": format!("eth{i}"), "networkName": format!("net-{i}")}))
        .collect();
    let applied = json!({"apiVersion": "example.dev/v1", "kind": "Thing",
        "metadata": {"name": "one", "namespace": "site", "labels": {"app": "x"}},
        "spec": {"className": "small", "networkInterfaces": cards, "data": data}});
    let options = ApplyOptions {
        manager: "gitops",
        force: true,
        subresource: None,
        now: "2026-01-01T00:00:00Z",
        schema: &schema,
    };
    let live = server_side_apply(None, &applied, &options)?.object;
    let changed = {
        let mut changed = applied.clone();
        changed["spec"]["className"] = "large".into();
        changed
    };
    println!(
        "object {} bytes, stored {} bytes",
        applied.to_string().len(),
        live.to_string().len()
    );
    for (what, applied) in [("unchanged", &applied), ("one field changed", &changed)] {
        let runs = 20_000_u32;
        let start = now();
        for _ in 0..runs {
            black_box(server_side_apply(
                Some(black_box(&live)),
                black_box(applied),
                &options,
            )?);
        }
        println!("{what}: {:?} each", start.elapsed() / runs);
    }
    Ok(())
}
