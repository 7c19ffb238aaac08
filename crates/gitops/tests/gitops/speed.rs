//! Large commits: that they come out right, and how long they take (shown with `--nocapture`). The figures
//! that count are those of the optimised build in `bench`; the bounds here only catch what is far off.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::common::{Repo, Site, config_map};

async fn request(site: &Site, mark: &str) -> Duration {
    let mut object = site.get("Kustomization", "flux-system", "site").await.unwrap();
    object["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"] = json!(mark);
    let start = Instant::now();
    site.client.update(&object).await.unwrap();
    loop {
        let object = site.get("Kustomization", "flux-system", "site").await.unwrap();
        if object["status"]["lastHandledReconcileAt"] == mark {
            return start.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects() {
    let repo = Repo::new();
    for n in 0..1_000 {
        repo.write(
            &format!("c{}/{n}.yaml", n % 10),
            &config_map(&format!("c{n}"), "1"),
        );
    }
    let commit = repo.push();
    let site = Site::start().await;
    let start = Instant::now();
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({})).await;
    let object = site.applied("site", &commit).await;
    let first = start.elapsed();
    assert_eq!(
        object["status"]["inventory"]["entries"].as_array().unwrap().len(),
        1_000
    );
    let mut again = Duration::MAX;
    for n in 0..5 {
        again = again.min(request(&site, &format!("r{n}")).await);
    }
    eprintln!("1,000 objects: first apply {first:?}, unchanged {again:?}");
    assert!(
        first < Duration::from_secs(15) && again < Duration::from_secs(2),
        "{first:?} {again:?}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kustomizations() {
    let repo = Repo::new();
    for n in 0..100 {
        repo.write(&format!("k{n}/a.yaml"), &config_map(&format!("k{n}"), "1"));
    }
    let first = repo.push();
    let site = Site::start().await;
    site.source(&repo.url(), json!({})).await;
    for n in 0..100 {
        site.kustomization(&format!("k{n}"), json!({"path": format!("k{n}")}))
            .await;
    }
    for n in 0..100 {
        site.applied(&format!("k{n}"), &first).await;
    }
    for n in 0..100 {
        repo.write(&format!("k{n}/a.yaml"), &config_map(&format!("k{n}"), "2"));
    }
    let second = repo.push();
    let start = Instant::now();
    site.fetch_now();
    for n in 0..100 {
        site.applied(&format!("k{n}"), &second).await;
    }
    let took = start.elapsed();
    eprintln!("100 Kustomizations after a push: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    site.stop().await;
}
