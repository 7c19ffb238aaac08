//! What hosts report, and what sites and lists make of it.

use std::time::Duration;

use fleet::model::{Connection, Host, State, Time};
use fleet::status::{Ingest, Outcome};
use fleet::{Query, args};
use identity::enrol::{Answer, Request};
use identity::key::FileKey;
use link::message::{Event, Hello, Status};
use serde_json::json;

use crate::support::{On, Setup, both, options, until};

/// An enrolled host at a site.
pub(crate) async fn host(s: &Setup, name: &str, site: &str) -> Host {
    let spec = fleet::model::ExpectedSpec {
        name: name.to_owned(),
        site: site.to_owned(),
        serial: name.to_owned(),
        ..fleet::model::ExpectedSpec::default()
    };
    s.fleet.hosts().expect(&s.owner, &[spec]).await.unwrap();
    let request = Request {
        csr: identity::csr::make(&FileKey::generate().unwrap()).unwrap(),
        serial: name.to_owned(),
        ..Request::default()
    };
    let answer = s.fleet.enrolment().request(&request, "").await.unwrap();
    assert!(matches!(answer, Answer::Granted(_)));
    s.fleet.hosts().get(&s.owner, name).await.unwrap()
}

fn status(generation: u64, base: u64, set: serde_json::Value) -> Status {
    Status {
        generation,
        base,
        set: serde_json::from_value(set).unwrap(),
        remove: Vec::new(),
    }
}

async fn site(s: &Setup, name: &str) -> fleet::model::Site {
    s.fleet.sites().get(&s.owner, name).await.unwrap()
}

both!(deltas_build_on_each_other, |s| {
    s.site("berlin", "").await;
    let h = host(&s, "till", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let ingest = Ingest::start(&s.fleet, "node-1");
    let connected = ingest
        .connected(t, id, &Hello::default(), "10.0.0.1:5")
        .await
        .unwrap();
    assert_eq!(connected.status_generation, 0);
    assert_eq!(site(&s, "berlin").await.state, State::Progressing);

    let full = status(
        7,
        0,
        json!({
            "health": {"state": "healthy", "reason": ""},
            "source": {"applied": "abc", "attempted": "abc", "quarantined": [{"commit": "bad", "reason": "no"}],
                       "target": {"mode": "pinned", "commit": "abc"}},
            "versions": {"selvedge": "1.0"},
            "compliance": {"state": "compliant", "drift": false},
            "vm/default/web": {"power": "on"},
        }),
    );
    assert_eq!(ingest.status(t, id, full.clone()).await.unwrap(), Outcome::Ack(7));
    let shown = s.fleet.hosts().get(&s.owner, "till").await.unwrap();
    assert_eq!(
        (shown.state, shown.applied.as_deref()),
        (State::Healthy, Some("abc"))
    );
    assert_eq!((shown.status_generation, shown.quarantined.len()), (7, 1));
    assert_eq!(shown.status.unwrap()["vm/default/web"]["power"], "on");
    let summary = site(&s, "berlin").await;
    assert_eq!(
        (summary.state, summary.hosts.online, summary.reason.as_str()),
        (State::Healthy, 1, "")
    );
    assert_eq!(summary.applied.as_deref(), Some("abc"));

    // Built on something else: not taken in.
    let gap = status(9, 8, json!({"health": {"state": "failing"}}));
    assert_eq!(ingest.status(t, id, gap).await.unwrap(), Outcome::Resync);
    let mut delta = status(
        8,
        7,
        json!({"health": {"state": "failing", "reason": "VM web does not start"}}),
    );
    delta.remove = vec!["vm/default/web".to_owned()];
    assert_eq!(ingest.status(t, id, delta).await.unwrap(), Outcome::Ack(8));
    let shown = s.fleet.hosts().get(&s.owner, "till").await.unwrap();
    assert_eq!(shown.state, State::Failing);
    assert!(!shown.status.unwrap().contains_key("vm/default/web"));
    assert_eq!(shown.applied.as_deref(), Some("abc"));
    assert_eq!(site(&s, "berlin").await.reason, "VM web does not start");

    // Everything anew: what is not in it is gone.
    let anew = status(20, 0, json!({"health": {"state": "healthy"}}));
    assert_eq!(ingest.status(t, id, anew).await.unwrap(), Outcome::Ack(20));
    let shown = s.fleet.hosts().get(&s.owner, "till").await.unwrap();
    assert_eq!(shown.status.unwrap().keys().collect::<Vec<_>>(), ["health"]);
    assert_eq!((shown.applied, shown.versions.selvedge.as_str()), (None, ""));

    // A reconnect learns what we have.
    let again = ingest.connected(t, id, &Hello::default(), "").await.unwrap();
    assert_eq!(again.status_generation, 20);
    assert!(again.session > connected.session);
    // A host that is not there, or not enrolled, reports nothing.
    assert!(ingest.status(t, "nobody", status(1, 0, json!({}))).await.is_err());
});

both!(what_is_kept_of_a_host_is_bounded, |s| {
    s.site("berlin", "").await;
    let h = host(&s, "till", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let ingest = Ingest::start(&s.fleet, "node-1");
    ingest.connected(t, id, &Hello::default(), "").await.unwrap();
    let some = |from: usize, each: &str| {
        (from..from + 1500)
            .map(|n| (format!("vm/default/v{n}"), json!({ "message": each })))
            .collect::<serde_json::Map<_, _>>()
    };
    let first = status(1, 0, some(0, "").into());
    ingest.status(t, id, first).await.unwrap();
    ingest
        .status(t, id, status(2, 1, some(1500, "").into()))
        .await
        .unwrap();
    // Each report fits, all of them together do not.
    let more = ingest.status(t, id, status(3, 2, some(3000, "").into())).await;
    assert!(more.is_err(), "{more:?}");
    let long = ingest
        .status(t, id, status(3, 2, some(0, &"x".repeat(8000)).into()))
        .await;
    assert!(long.is_err(), "{long:?}");
    // What was kept stays, and reports that fit are taken.
    let mut swap = status(3, 2, some(3000, "").into());
    swap.remove = (0..1500).map(|n| format!("vm/default/v{n}")).collect();
    ingest.status(t, id, swap).await.unwrap();
    let row = s
        .fleet
        .db()
        .row("SELECT COUNT(*) FROM section", vec![])
        .await
        .unwrap();
    assert_eq!(row.unwrap().int(0), 3000);
});

both!(nothing_is_rewritten_when_unchanged, |s| {
    s.site("berlin", "").await;
    let h = host(&s, "till", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let ingest = Ingest::start(&s.fleet, "node-1");
    ingest.connected(t, id, &Hello::default(), "").await.unwrap();
    let set = json!({"health": {"state": "healthy"}, "objects": {"digest": "x"}});
    ingest.status(t, id, status(1, 0, set.clone())).await.unwrap();
    let before = s.fleet.changes().newest().await.unwrap();
    let updated = site(&s, "berlin").await.updated_at;
    s.later(60);
    ingest.status(t, id, status(2, 0, set)).await.unwrap();
    for _ in 0..100 {
        ingest.beat(t, id);
    }
    assert_eq!(s.fleet.changes().newest().await.unwrap(), before);
    assert_eq!(site(&s, "berlin").await.updated_at, updated);
});

both!(a_site_is_as_its_hosts, |s| {
    s.site("berlin", "").await;
    let (a, b) = (host(&s, "a", "berlin").await, host(&s, "b", "berlin").await);
    let t = s.tenant.id.as_str();
    let ingest = Ingest::start(&s.fleet, "node-1");
    for host in [&a, &b] {
        ingest
            .connected(t, &host.id, &Hello::default(), "")
            .await
            .unwrap();
        ingest
            .status(t, &host.id, status(1, 0, json!({"health": {"state": "healthy"}})))
            .await
            .unwrap();
    }
    assert_eq!(site(&s, "berlin").await.state, State::Healthy);
    let sick = json!({"health": {"state": "degraded", "reason": "disk is slow"}});
    ingest.status(t, &b.id, status(2, 1, sick)).await.unwrap();
    let shown = site(&s, "berlin").await;
    assert_eq!(
        (shown.state, shown.reason.as_str()),
        (State::Degraded, "host b: disk is slow")
    );
    s.fleet.hosts().revoke(&s.owner, "b").await.unwrap();
    let shown = site(&s, "berlin").await;
    assert_eq!((shown.state, shown.hosts.total), (State::Healthy, 1));
    // A revoked host's reports are not taken in any more.
    assert!(ingest.status(t, &b.id, status(3, 2, json!({}))).await.is_err());
    let overview = s.fleet.overview(&s.owner).await.unwrap();
    assert_eq!(
        (
            overview.sites.by_state["healthy"],
            overview.hosts.by_connection["online"]
        ),
        (1, 1)
    );
});

both!(events_are_kept_up_to_a_bound, |s| {
    s.site("berlin", "").await;
    let h = host(&s, "till", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let ingest = Ingest::start(&s.fleet, "node-1");
    for round in 0..6 {
        let items = (0..50)
            .map(|n| Event {
                time: "2026-03-01T11:00:00Z".to_owned(),
                kind: "Warning".to_owned(),
                reason: "Failed".to_owned(),
                message: format!("event {round}/{n}\0"),
                ..Event::default()
            })
            .collect();
        ingest.events(t, id, items).await.unwrap();
    }
    let events = s.fleet.hosts().events(&s.owner, "till", 1000).await.unwrap();
    assert_eq!((events.len(), events[0].message.as_str()), (200, "event 5/49"));
    assert_eq!(
        s.fleet
            .sites()
            .events(&s.owner, "berlin", 10)
            .await
            .unwrap()
            .len(),
        10
    );
});

both!(use_is_remembered_and_condensed, |s| {
    s.site("berlin", "").await;
    let h = host(&s, "till", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let ingest = Ingest::start(&s.fleet, "node-1");
    for n in 0..24_u64 {
        let usage = json!({"usage": {"time": s.clock.now().to_string(), "cpu": 0.5, "memory": 2.0, "disk": 0.1,
                                     "rxBytes": 10, "txBytes": 1}});
        ingest.status(t, id, status(n + 1, n, usage)).await.unwrap();
        s.later(300);
    }
    s.fleet.usage().condense().await.unwrap();
    let from = Time::from_millis(0);
    let (span, fine) = s.fleet.usage().of(&s.owner, "till", from, true).await.unwrap();
    assert_eq!((span, fine.len(), fine[0].memory), (300, 24, 1.0));
    let (span, coarse) = s.fleet.usage().of(&s.owner, "till", from, false).await.unwrap();
    assert_eq!((span, coarse.len(), coarse[0].rx_bytes), (3600, 2, 120));
    s.later(25 * 3600);
    s.fleet.usage().condense().await.unwrap();
    assert_eq!(
        s.fleet
            .usage()
            .of(&s.owner, "till", from, true)
            .await
            .unwrap()
            .1
            .len(),
        0
    );
    assert_eq!(
        s.fleet
            .usage()
            .of(&s.owner, "till", from, false)
            .await
            .unwrap()
            .1
            .len(),
        2
    );
    s.later(31 * 24 * 3600);
    s.fleet.usage().condense().await.unwrap();
    assert_eq!(
        s.fleet
            .usage()
            .of(&s.owner, "till", from, false)
            .await
            .unwrap()
            .1
            .len(),
        0
    );
});

async fn beats_are_missed(on: On) {
    let mut quick = options();
    quick.heartbeat = Duration::from_millis(100);
    let s = Setup::with(on, quick).await;
    s.site("berlin", "").await;
    let h = host(&s, "till", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let ingest = Ingest::start(&s.fleet, "node-1");
    ingest.connected(t, id, &Hello::default(), "").await.unwrap();
    ingest
        .status(t, id, status(1, 0, json!({"health": {"state": "healthy"}})))
        .await
        .unwrap();
    let connection = async || s.fleet.hosts().get(&s.owner, "till").await.unwrap().connection;
    until("stale", async || connection().await == Connection::Stale).await;
    ingest.beat(t, id);
    until("online", async || connection().await == Connection::Online).await;
    until("offline", async || connection().await == Connection::Offline).await;
    let shown = site(&s, "berlin").await;
    assert_eq!((shown.state, shown.hosts.online), (State::Offline, 0));
    assert!(
        shown
            .reason
            .starts_with("it has not been heard of since 2026-03-01"),
        "{}",
        shown.reason
    );
    assert_eq!(ingest.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_beats_sqlite() {
    beats_are_missed(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_beats_postgres() {
    beats_are_missed(On::Postgres).await;
}

both!(a_dead_processes_hosts_are_set_free, |s| {
    s.site("berlin", "").await;
    let h = host(&s, "till", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let nodes = s.fleet.nodes();
    nodes.beat("dead", "https://a").await.unwrap();
    nodes.beat("alive", "https://b").await.unwrap();
    let ingest = Ingest::start(&s.fleet, "dead");
    ingest.connected(t, id, &Hello::default(), "").await.unwrap();
    assert_eq!(nodes.of_host(t, id).await.unwrap().unwrap().1, "https://a");
    let term = Duration::from_millis(50);
    until("it is taken out", async || {
        nodes.beat("alive", "https://b").await.unwrap();
        nodes.reap("alive", term).await.unwrap() == ["dead"]
    })
    .await;
    assert_eq!(nodes.of_host(t, id).await.unwrap(), None);
    let connection = async || s.fleet.hosts().get(&s.owner, "till").await.unwrap().connection;
    s.fleet.sweep().await.unwrap();
    assert_eq!(connection().await, Connection::Online);
    s.later(67);
    assert_eq!(s.fleet.sweep().await.unwrap(), 1);
    assert_eq!(connection().await, Connection::Stale);
    s.later(66);
    assert_eq!(s.fleet.sweep().await.unwrap(), 1);
    assert_eq!(connection().await, Connection::Offline);
    assert_eq!(s.fleet.sweep().await.unwrap(), 0);
    // It came back at another process: the dead one's late word does not count.
    let other = Ingest::start(&s.fleet, "alive");
    other.connected(t, id, &Hello::default(), "").await.unwrap();
    let row = s
        .fleet
        .db()
        .row("SELECT node FROM host WHERE id=$1", args![id])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.str(0), "alive");
    assert_eq!(connection().await, Connection::Online);
    let online = Query {
        state: Some("online".to_owned()),
        ..Query::default()
    };
    assert_eq!(s.fleet.hosts().list(&s.owner, &online).await.unwrap().total, 1);
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_processes_leads() {
    let s = Setup::new(On::Postgres).await;
    let other = fleet::Fleet::open(&s.url, s.keys(), &s.clock, options())
        .await
        .unwrap();
    let term = Duration::from_millis(300);
    assert!(s.fleet.nodes().lead("house", "a", term).await.unwrap());
    assert!(!other.nodes().lead("house", "b", term).await.unwrap());
    // While the first renews, the second never gets it, however long it asks.
    for _ in 0..20 {
        assert!(s.fleet.nodes().lead("house", "a", term).await.unwrap());
        assert!(!other.nodes().lead("house", "b", term).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("the second leads", async || {
        other.nodes().lead("house", "b", term).await.unwrap()
    })
    .await;
    assert!(!s.fleet.nodes().lead("house", "a", term).await.unwrap());
    other.nodes().resign("house", "b").await.unwrap();
    assert!(s.fleet.nodes().lead("house", "a", term).await.unwrap());
}
