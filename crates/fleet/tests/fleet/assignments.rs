//! What hosts are told, its generations, and an orchestrator that was put back to an older state.

use fleet::model::{Credentials, Head, RepositoryAuth, RepositorySpec, SiteSpec};
use fleet::status::Ingest;
use fleet::{Fleet, Kind};
use link::message::{Hello, Status, Target};
use serde_json::json;
use tokio::io::BufReader;

use crate::status::host;
use crate::support::{On, Setup, both, database, options};

async fn prepared(s: &Setup) -> fleet::model::Host {
    let repository = RepositorySpec {
        name: "shops".to_owned(),
        url: "https://git.example/shops.git".to_owned(),
        auth: RepositoryAuth::Basic,
        credentials: Some(Credentials {
            username: "robot".to_owned(),
            password: "secret".to_owned(),
            ..Credentials::default()
        }),
        ..RepositorySpec::default()
    };
    s.fleet
        .repositories()
        .create(&s.owner, &repository)
        .await
        .unwrap();
    let site = SiteSpec {
        name: "berlin".to_owned(),
        labels: crate::support::map("region=eu,tier=prod"),
        variables: crate::support::map("CITY=Berlin"),
        secret_variables: [("WIFI".to_owned(), Some("psst".to_owned()))].into(),
        repository: Some("shops".to_owned()),
        path: "sites/berlin".to_owned(),
        ..SiteSpec::default()
    };
    s.fleet.sites().create(&s.owner, &site).await.unwrap();
    host(s, "till", "berlin").await
}

both!(generations_rise_with_each_change, |s| {
    let h = prepared(&s).await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let of = async || s.fleet.assignments().of(t, id).await.unwrap().unwrap();
    let first = of().await;
    let source = first.assignment.source.clone().unwrap();
    assert_eq!(
        (source.url.as_str(), source.branch.as_str()),
        ("https://git.example/shops.git", "main")
    );
    assert_eq!(
        (source.username.as_deref(), source.password.as_deref()),
        (Some("robot"), Some("secret"))
    );
    assert_eq!(first.assignment.secret_variables["WIFI"], "psst");
    assert_eq!(first.assignment.target, Target::Follow);
    assert_eq!(of().await, first);

    let mut tail = s.fleet.changes().tail(&[Kind::Assignment], None).await.unwrap();
    let mut last = first.generation;
    let mut rose = async |what: &str| {
        let now = of().await;
        assert!(now.generation > last, "{what}");
        last = now.generation;
        let rows = tail.next().await.unwrap();
        let hosts = s
            .fleet
            .assignments()
            .hosts_of(t, &rows[0].name, [rows[0].id.as_str()])
            .await
            .unwrap();
        assert_eq!(hosts, [id], "{what}");
        now.assignment
    };
    let sites = s.fleet.sites();
    sites
        .update(&s.owner, "berlin", None, &json!({"variables": {"CITY": "B"}}))
        .await
        .unwrap();
    assert_eq!(rose("variables").await.variables["CITY"], "B");
    sites
        .update(
            &s.owner,
            "berlin",
            None,
            &json!({"secretVariables": {"WIFI": "new"}}),
        )
        .await
        .unwrap();
    assert_eq!(rose("secrets").await.secret_variables["WIFI"], "new");
    let url = json!({"url": "https://git.example/new.git"});
    s.fleet
        .repositories()
        .update(&s.owner, "shops", None, &url)
        .await
        .unwrap();
    assert_eq!(
        rose("repository").await.source.unwrap().url,
        "https://git.example/new.git"
    );
    s.fleet
        .hosts()
        .update(&s.owner, "till", None, &json!({"labels": {"tier": "lab"}}))
        .await
        .unwrap();
    let labels = rose("host").await.labels;
    assert_eq!(
        (labels["tier"].as_str(), labels["region"].as_str()),
        ("lab", "eu")
    );
    // Where it stands on the map is nothing to its hosts.
    sites
        .update(
            &s.owner,
            "berlin",
            None,
            &json!({"location": {"lat": 1.0, "lon": 2.0}}),
        )
        .await
        .unwrap();
    assert_eq!(of().await.generation, last);

    // What the host says it has is remembered; what it lacks is given.
    let said = |g, why| {
        let (fleet, t, id) = (s.fleet.clone(), t.to_owned(), id.to_owned());
        async move { fleet.assignments().said(&t, &id, g, why).await.unwrap() }
    };
    assert_eq!(said(0, None).await.unwrap().generation, last);
    assert_eq!(said(first.generation, None).await.unwrap().generation, last);
    assert!(said(last, None).await.is_none());
});

both!(a_head_is_what_followers_want, |s| {
    let h = prepared(&s).await;
    let repository = s.fleet.repositories().get(&s.owner, "shops").await.unwrap();
    let head = Head {
        commit: "c0ffee".to_owned(),
        subject: "Open earlier".to_owned(),
        ..Head::default()
    };
    let set = async || {
        let repositories = s.fleet.repositories();
        repositories
            .set_head(&s.tenant.id, &repository.id, "main", &head)
            .await
            .unwrap()
    };
    assert!(set().await);
    assert!(!set().await);
    let site = s.fleet.sites().get(&s.owner, "berlin").await.unwrap();
    assert_eq!(site.desired.as_deref(), Some("c0ffee"));
    // A target goes before the head, and reaches the hosts.
    let assignments = s.fleet.assignments();
    let before = assignments
        .of(&s.tenant.id, &h.id)
        .await
        .unwrap()
        .unwrap()
        .generation;
    let targets = &[(site.id.clone(), Some("abad1dea".to_owned()))];
    let tenant = s.tenant.id.as_str();
    s.fleet
        .db()
        .write(|tx| Box::pin(async move { assignments.set_targets(tx, tenant, targets).await }))
        .await
        .unwrap();
    let now = assignments.of(&s.tenant.id, &h.id).await.unwrap().unwrap();
    assert!(now.generation > before);
    let pinned = Target::Pinned {
        commit: "abad1dea".to_owned(),
    };
    assert_eq!(now.assignment.target, pinned);
    let shown = s.fleet.hosts().get(&s.owner, "till").await.unwrap();
    assert_eq!(shown.desired.as_deref(), Some("abad1dea"));
});

fn pinned(commit: &str) -> Target {
    Target::Pinned {
        commit: commit.to_owned(),
    }
}

async fn set_target(fleet: &Fleet, tenant: &str, site: &str, commit: &str) {
    let assignments = fleet.assignments();
    let targets = &[(site.to_owned(), Some(commit.to_owned()))];
    fleet
        .db()
        .write(|tx| Box::pin(async move { assignments.set_targets(tx, tenant, targets).await }))
        .await
        .unwrap();
}

/// A backup is made, life goes on, the backup is restored (into the other database too).
async fn restored(from: On, to: On) {
    let s = Setup::new(from).await;
    let h = prepared(&s).await;
    let still = host(&s, "still", "berlin").await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let site = s.fleet.sites().get(&s.owner, "berlin").await.unwrap();
    set_target(&s.fleet, t, &site.id, "old").await;
    let old = s.fleet.assignments().of(t, id).await.unwrap().unwrap();
    for host in [id, &still.id] {
        assert!(
            s.fleet
                .assignments()
                .said(t, host, old.generation, None)
                .await
                .unwrap()
                .is_none()
        );
    }
    let mut backup = Vec::new();
    fleet::db::backup::write(s.fleet.db(), &mut backup).await.unwrap();
    let before = s
        .fleet
        .sites()
        .list(&s.owner, &fleet::Query::default())
        .await
        .unwrap();

    // One of the two hosts hears of a newer target, the backup does not.
    s.later(60);
    set_target(&s.fleet, t, &site.id, "new").await;
    let new = s.fleet.assignments().of(t, id).await.unwrap().unwrap();
    assert!(
        s.fleet
            .assignments()
            .said(t, id, new.generation, None)
            .await
            .unwrap()
            .is_none()
    );

    s.later(3600);
    let dir = tempfile::tempdir().unwrap();
    let url = database(to, &dir);
    let rows = fleet::db::backup::restore(&url, &s.clock, &mut BufReader::new(&backup[..]))
        .await
        .unwrap();
    assert!(rows > 10);
    let again = fleet::db::backup::restore(&url, &s.clock, &mut BufReader::new(&backup[..])).await;
    assert!(matches!(again, Err(fleet::Error::Conflict { .. })), "{again:?}");
    let fleet = Fleet::open(&url, s.keys(), &s.clock, options()).await.unwrap();
    assert!(fleet.epoch().await.unwrap() > s.fleet.epoch().await.unwrap());
    let after = fleet
        .sites()
        .list(&s.owner, &fleet::Query::default())
        .await
        .unwrap();
    assert_eq!(after, before);
    assert_eq!(fleet.audit().verify(&s.owner).await.unwrap().broken_at, None);

    let assignments = fleet.assignments();
    // Who has what the backup has is told nothing; who knows more is not taken back.
    assert!(
        assignments
            .said(t, &still.id, old.generation, None)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        assignments
            .said(t, id, new.generation, None)
            .await
            .unwrap()
            .is_none()
    );
    assert!(assignments.of(t, id).await.unwrap().is_none());
    // Somebody changes a variable: it would come with the old target. Nothing is sent before the host said its own.
    fleet
        .sites()
        .update(&s.owner, "berlin", None, &json!({"variables": {"X": "1"}}))
        .await
        .unwrap();
    assert!(assignments.of(t, id).await.unwrap().is_none());
    let ingest = Ingest::start(&fleet, "node-2");
    ingest.connected(t, id, &Hello::default(), "").await.unwrap();
    let status = Status {
        generation: 1,
        set: serde_json::from_value(json!({"source": {"target": {"mode": "pinned", "commit": "new"}}}))
            .unwrap(),
        ..Status::default()
    };
    ingest.status(t, id, status).await.unwrap();
    let sent = assignments
        .said(t, id, new.generation, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (sent.assignment.target, sent.assignment.variables["X"].as_str()),
        (pinned("new"), "1")
    );
    assert!(sent.generation > new.generation);
    assert!(
        assignments
            .said(t, id, sent.generation, None)
            .await
            .unwrap()
            .is_none()
    );
    let sent = assignments.of(t, &still.id).await.unwrap().unwrap();
    assert_eq!(sent.assignment.target, pinned("old"));
    // A target that is set now counts for all.
    set_target(&fleet, t, &site.id, "newest").await;
    for host in [id, &still.id] {
        assert_eq!(
            assignments.of(t, host).await.unwrap().unwrap().assignment.target,
            pinned("newest")
        );
    }

    // The same backup once more: what was told in the meantime is not known to it either.
    let third = tempfile::tempdir().unwrap();
    let url = database(to, &third);
    let told = assignments.of(t, id).await.unwrap().unwrap().generation;
    s.later(60);
    fleet::db::backup::restore(&url, &s.clock, &mut BufReader::new(&backup[..]))
        .await
        .unwrap();
    let fleet = Fleet::open(&url, s.keys(), &s.clock, options()).await.unwrap();
    assert!(
        fleet
            .assignments()
            .said(t, id, told, None)
            .await
            .unwrap()
            .is_none()
    );
    assert!(fleet.assignments().of(t, id).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_does_not_take_hosts_back_sqlite() {
    restored(On::Sqlite, On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_moves_to_postgres() {
    restored(On::Sqlite, On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_moves_to_sqlite() {
    restored(On::Postgres, On::Sqlite).await;
}

#[tokio::test]
async fn a_disk_put_back_is_found_out() {
    let s = Setup::new(On::Sqlite).await;
    let h = prepared(&s).await;
    let (t, id) = (s.tenant.id.as_str(), h.id.as_str());
    let epoch = s.fleet.epoch().await.unwrap();
    let ours = s.fleet.assignments().of(t, id).await.unwrap().unwrap().generation;
    // Nobody restored anything, and yet a host has a number that was never given.
    assert!(
        s.fleet
            .assignments()
            .said(t, id, ours + 5, None)
            .await
            .unwrap()
            .is_none()
    );
    s.later(10);
    assert!(s.fleet.epoch().await.unwrap() > epoch);
    assert!(s.fleet.assignments().of(t, id).await.unwrap().is_none());
    fleet_changes(&s).await;
    assert!(s.fleet.assignments().of(t, id).await.unwrap().is_none());
}

async fn fleet_changes(s: &Setup) {
    s.fleet
        .sites()
        .update(&s.owner, "berlin", None, &json!({"variables": {"X": "1"}}))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_backup_cut_short_is_refused() {
    let s = Setup::new(On::Sqlite).await;
    prepared(&s).await;
    let mut backup = Vec::new();
    fleet::db::backup::write(s.fleet.db(), &mut backup).await.unwrap();
    let text = String::from_utf8(backup).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let cut = lines[..lines.len() - 3].join("\n");
    let less = [&lines[..lines.len() - 4], &lines[lines.len() - 3..]]
        .concat()
        .join("\n");
    let other = text.replacen("berlin", "munich", 1);
    for bad in [cut.as_str(), less.as_str(), other.as_str(), "", "{}", "[1]\n[2]"] {
        let dir = tempfile::tempdir().unwrap();
        let url = database(On::Sqlite, &dir);
        let result = fleet::db::backup::restore(&url, &s.clock, &mut BufReader::new(bad.as_bytes())).await;
        assert!(result.is_err(), "{:?}", bad.get(..40));
        if bad.len() > 100 {
            let open = Fleet::open(&url, s.keys(), &s.clock, options()).await;
            assert!(matches!(open, Err(fleet::Error::Conflict { .. })));
        }
    }
}
