//! Shared by these tests.
#![allow(missing_docs, unreachable_pub, reason = "helpers of tests")]

use std::sync::Arc;

use apiserver::{
    Api, Caller, Status,
    api::{ListOptions, Patch, Target, WriteOptions, Written},
};
use kinds::{Gvr, Object, gvr, registry::Registry};
use serde_json::{Value, json};
use store::{Options, SqliteStore};
use telemetry::Clock;

pub const NOW: &str = "2026-01-02T03:04:05Z";

pub fn clock() -> Clock {
    Clock::fixed(NOW.parse().unwrap())
}

pub fn api_with(options: Options) -> Api {
    let store = Arc::new(SqliteStore::in_memory_with(options).unwrap());
    Api::new(Arc::new(Registry::builtin()), store, clock())
}

/// An API with the namespace `ns`.
pub async fn api() -> Api {
    let api = api_with(Options::default());
    api.ensure_namespaces(&["default", "ns"]).await.unwrap();
    api
}

pub fn admin() -> Caller {
    Caller {
        user: "selvedge-admin".into(),
        groups: vec!["system:masters".into()],
        ..Caller::default()
    }
}

pub fn by(manager: &str) -> WriteOptions {
    WriteOptions {
        manager: manager.into(),
        ..WriteOptions::default()
    }
}

pub fn config_map(name: &str, data: Value) -> Object {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": data})
}

pub fn machine(name: &str) -> Object {
    json!({
        "apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"imageName": "debian", "className": "small", "powerState": "poweredOn"},
    })
}

pub fn gvr_of(object: &Object) -> Gvr {
    let kind = kinds::object::kind(object).to_lowercase();
    let plural = match kind.as_str() {
        "gitrepository" => "gitrepositories".to_owned(),
        "virtualmachineclass" => "virtualmachineclasses".to_owned(),
        _ => format!("{kind}s"),
    };
    Gvr::new(kinds::object::api_version(object), &plural)
}

pub async fn create(api: &Api, object: &Object) -> Result<Written, Status> {
    let gvr = gvr_of(object);
    let namespace = kinds::object::namespace(object).to_owned();
    api.create(
        &admin(),
        Target::new(&gvr, &namespace, ""),
        object.clone(),
        &by("test"),
    )
    .await
}

pub async fn update(api: &Api, object: &Object) -> Result<Written, Status> {
    let gvr = gvr_of(object);
    let target = Target::new(
        &gvr,
        kinds::object::namespace(object),
        kinds::object::name(object),
    );
    api.update(&admin(), target, object.clone(), &by("test")).await
}

pub async fn patch(api: &Api, name: &str, patch: Patch, manager: &str) -> Result<Written, Status> {
    api.patch(
        &admin(),
        Target::new(&gvr::config_maps(), "ns", name),
        patch,
        &by(manager),
    )
    .await
}

pub async fn get(api: &Api, object: &Object) -> Result<Object, Status> {
    let gvr = gvr_of(object);
    let target = Target::new(
        &gvr,
        kinds::object::namespace(object),
        kinds::object::name(object),
    );
    api.get(&admin(), target).await
}

pub async fn names(api: &Api, gvr: &Gvr, options: &ListOptions) -> Result<Vec<String>, Status> {
    let page = api.list(&admin(), gvr, Some("ns"), options).await?;
    Ok(page
        .items
        .iter()
        .map(|object| kinds::object::name(object).to_owned())
        .collect())
}

/// Code, reason and causes of a refusal.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (u16, String, Vec<String>, String) {
    let status = outcome.expect_err("a refusal");
    let causes = status.details["causes"].as_array().into_iter().flatten();
    let causes = causes
        .map(|c| {
            format!(
                "{} {}",
                c["reason"].as_str().unwrap_or_default(),
                c["field"].as_str().unwrap_or_default()
            )
        })
        .map(|c| c.trim().to_owned())
        .collect();
    (status.code, status.reason.clone(), causes, status.message)
}
