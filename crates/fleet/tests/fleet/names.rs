//! What hosts are called that nobody named.

use fleet::Query;
use fleet::model::ExpectedSpec;
use identity::enrol::{Answer, Request};
use identity::{csr, key::FileKey};
use serde_json::json;

use crate::support::{Setup, both};

async fn expect(s: &Setup, name: &str, mac: &str) -> String {
    let spec = ExpectedSpec {
        name: name.to_owned(),
        site: "berlin".to_owned(),
        macs: vec![mac.to_owned()],
        ..ExpectedSpec::default()
    };
    s.fleet
        .hosts()
        .expect(&s.owner, &[spec])
        .await
        .unwrap()
        .remove(0)
        .name
}

/// A machine comes in; what it is called then.
async fn comes(s: &Setup, mac: &str, hostname: &str) -> String {
    let request = Request {
        csr: csr::make(&FileKey::generate().unwrap()).unwrap(),
        serial: format!("SN-{mac}"),
        macs: vec![mac.to_owned()],
        hostname: hostname.to_owned(),
        ..Request::default()
    };
    let answer = s.fleet.enrolment().request(&request, "10.0.0.1").await.unwrap();
    let Answer::Granted(granted) = answer else {
        panic!("it waits");
    };
    let host = s.fleet.hosts().get(&s.owner, &granted.host_id).await.unwrap();
    // It is told by that name, and found by it.
    let told = s
        .fleet
        .assignments()
        .of(&s.tenant.id, &host.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(told.assignment.host, host.name);
    let query = Query {
        q: Some(host.name.clone()),
        ..Query::default()
    };
    assert!(
        s.fleet.hosts().list(&s.owner, &query).await.unwrap().total >= 1,
        "{}",
        host.name
    );
    host.name
}

both!(an_expected_host_takes_its_own_name, |s| {
    s.site("berlin", "").await;
    assert_eq!(expect(&s, "", "52:54:00:00:00:01").await, "52-54-00-00-00-01");
    assert_eq!(
        comes(&s, "52:54:00:00:00:01", "Till-1.shop.example").await,
        "till-1"
    );
    // The name is taken: with a part of the id behind it.
    expect(&s, "", "52:54:00:00:00:02").await;
    let second = comes(&s, "52:54:00:00:00:02", "till-1").await;
    assert!(
        second.starts_with("till-1-") && second.len() == "till-1-".len() + 8,
        "{second}"
    );
    // A person named it, beforehand or afterwards.
    assert_eq!(expect(&s, "front", "52:54:00:00:00:03").await, "front");
    assert_eq!(comes(&s, "52:54:00:00:00:03", "till-3").await, "front");
    let unnamed = expect(&s, "", "52:54:00:00:00:04").await;
    let patch = json!({"name": "back"});
    s.fleet
        .hosts()
        .update(&s.owner, &unnamed, None, &patch)
        .await
        .unwrap();
    assert_eq!(comes(&s, "52:54:00:00:00:04", "till-4").await, "back");
    // Names that name nobody.
    for (mac, hostname) in [
        ("52:54:00:00:00:05", ""),
        ("52:54:00:00:00:06", "localhost.localdomain"),
        ("52:54:00:00:00:07", "---"),
    ] {
        let unnamed = expect(&s, "", mac).await;
        assert_eq!(comes(&s, mac, hostname).await, unnamed, "{hostname}");
    }
});
