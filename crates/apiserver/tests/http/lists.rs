//! Lists: pages, tables, metadata only.

use reqwest::header::ACCEPT;
use serde_json::{Value, json};

use super::site::Site;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

async fn filled(count: usize) -> Site {
    let site = Site::start().await;
    for n in 0..count {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("m{n:03}"), "namespace": "default"}, "data": {"a": "x".repeat(1_000)},
        });
        site.client().create(&map).await.unwrap();
    }
    site
}

async fn get(site: &Site, path: &str, accept: &str) -> Value {
    let request = site
        .admin()
        .get(format!("{}{path}", site.url))
        .header(ACCEPT, accept);
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn long_lists_come_whole_and_valid() {
    let site = filled(200).await;
    let list = get(&site, "/api/v1/configmaps", "application/json").await;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("ConfigMapList"), &json!("v1"))
    );
    assert_eq!(list["items"].as_array().unwrap().len(), 200);
    assert_eq!(
        list["metadata"]["resourceVersion"],
        site.api.revision().to_string()
    );
    let empty = get(&site, "/api/v1/secrets", "application/json").await;
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn pages_add_up() {
    let site = filled(25).await;
    let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = get(
            &site,
            &format!("/api/v1/configmaps?limit=10&continue={token}"),
            "application/json",
        )
        .await;
        names.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        let Some(next) = page["metadata"]["continue"].as_str() else {
            break;
        };
        token = next.to_owned();
    }
    assert_eq!(pages, 3);
    assert_eq!(names, (0..25).map(|n| format!("m{n:03}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn tables() {
    let site = filled(60).await;
    let table = get(&site, "/api/v1/configmaps", TABLE).await;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        (&table["kind"], columns),
        (&json!("Table"), vec!["Name", "Data", "Age"])
    );
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 60);
    assert_eq!(rows[0]["cells"][0], "m000");
    assert_eq!(rows[0]["cells"][1], 1);
    assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
    let whole = get(&site, "/api/v1/configmaps?includeObject=Object&limit=1", TABLE).await;
    assert_eq!(whole["rows"][0]["object"]["kind"], "ConfigMap");
    assert!(whole["metadata"]["continue"].is_string());
    let bare = get(&site, "/api/v1/configmaps?includeObject=None&limit=1", TABLE).await;
    assert_eq!(bare["rows"][0].get("object"), None);
    let one = get(&site, "/api/v1/namespaces/default/configmaps/m001", TABLE).await;
    assert_eq!(
        (&one["kind"], one["rows"].as_array().unwrap().len()),
        (&json!("Table"), 1)
    );
}

#[tokio::test]
async fn metadata_only() {
    let site = filled(3).await;
    let list = get(&site, "/api/v1/configmaps", PARTIAL).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let item = &list["items"][1];
    assert_eq!(
        (&item["kind"], &item["metadata"]["name"], item.get("data")),
        (&json!("PartialObjectMetadata"), &json!("m001"), None)
    );
}

#[tokio::test]
async fn old_and_impossible_revisions() {
    let site = filled(3).await;
    let before = site.api.revision();
    let gvr = kinds::Gvr::new("v1", "configmaps");
    site.client().delete(&gvr, "default", "m001").await.unwrap();
    let at = get(
        &site,
        &format!("/api/v1/configmaps?resourceVersion={before}&resourceVersionMatch=Exact"),
        "application/json",
    )
    .await;
    assert_eq!(at["items"].as_array().unwrap().len(), 3);
    let future = get(
        &site,
        "/api/v1/configmaps?resourceVersion=999999&resourceVersionMatch=NotOlderThan",
        "application/json",
    )
    .await;
    assert_eq!(
        (&future["code"], &future["reason"]),
        (&json!(504), &json!("Timeout"))
    );
    let wrong = get(
        &site,
        "/api/v1/configmaps?sendInitialEvents=true",
        "application/json",
    )
    .await;
    assert_eq!(
        (&wrong["code"], &wrong["details"]["causes"][0]["field"]),
        (&json!(422), &json!("sendInitialEvents"))
    );
    let deleted: Value = site
        .admin()
        .delete(format!("{}/api/v1/namespaces/default/configmaps", site.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(deleted["status"], "Success");
    assert_eq!(
        get(&site, "/api/v1/configmaps", "application/json").await["items"],
        json!([])
    );
}
