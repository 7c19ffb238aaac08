//! How fast: not checked on each run (machines differ), printed by
//! `cargo test -p fleet --test fleet -- --ignored --nocapture speed`.

use std::time::Duration;

use fleet::Query;
use fleet::model::ActivationKeySpec;
use fleet::status::Ingest;
use identity::enrol::Request;
use identity::key::FileKey;
use link::message::{Hello, Status};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{On, Setup};

async fn enrolment(on: On) {
    const HOSTS: usize = 2000;
    let s = Setup::new(on).await;
    s.site("berlin", "").await;
    let spec = ActivationKeySpec {
        name: "all".to_owned(),
        site: Some("berlin".to_owned()),
        max_uses: Some(1_000_000),
        ..ActivationKeySpec::default()
    };
    let key = s.fleet.keys().create(&s.owner, &spec).await.unwrap().key;
    let requests: Vec<Request> = (0..HOSTS)
        .map(|n| Request {
            csr: identity::csr::make(&FileKey::generate().unwrap()).unwrap(),
            serial: format!("S{n}"),
            activation_key: key.clone(),
            ..Request::default()
        })
        .collect();
    let requests = std::sync::Arc::new(requests);
    let started = Instant::now();
    let workers = (0..64).map(|w| {
        let (fleet, requests) = (s.fleet.clone(), requests.clone());
        tokio::spawn(async move {
            for request in requests.iter().skip(w).step_by(64) {
                fleet.enrolment().request(request, "").await.unwrap();
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker.unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{on:?}: {HOSTS} enrolments in {took:.2} s: {:.0}/s",
        HOSTS as f64 / took
    );
}

/// Rows of a big fleet, put there as they are.
async fn big(on: On, count: usize) -> Setup {
    let s = Setup::new(on).await;
    s.site("berlin", "region=eu").await;
    crate::status::host(&s, "till", "berlin").await;
    let tenant = s.tenant.id.as_str();
    let columns = |table: &str, change: &[(&str, &str)]| {
        let row: Vec<String> = match table {
            "site" => SITE,
            _ => HOST,
        }
        .split(',')
        .map(|column| {
            let other = change.iter().find(|(name, _)| *name == column);
            other.map_or(column.to_owned(), |(_, with)| (*with).to_owned())
        })
        .collect();
        row.join(",")
    };
    let n = "k.n";
    let numbers = match on {
        On::Sqlite => format!(
            "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<{count}) SELECT n FROM c) k"
        ),
        On::Postgres => format!("(SELECT n FROM generate_series(1,{count}) n) k"),
    };
    let state = "CASE WHEN k.n%20=0 THEN 'failing' WHEN k.n%7=0 THEN 'offline' ELSE 'healthy' END";
    let rank = "CASE WHEN k.n%20=0 THEN 0 WHEN k.n%7=0 THEN 2 ELSE 6 END";
    let sites = columns(
        "site",
        &[
            ("id", "'s'||k.n"),
            ("name", "'site-'||k.n"),
            ("state", state),
            ("rank", rank),
            ("applied", "'c'||(k.n%5)"),
        ],
    );
    let hosts = columns(
        "host",
        &[
            ("id", "'h'||k.n"),
            ("name", "'host-'||k.n"),
            ("site", "'s'||k.n"),
            ("state", state),
            ("rank", rank),
        ],
    );
    for sql in [
        format!("INSERT INTO site ({SITE}) SELECT {sites} FROM site t, {numbers} WHERE t.name='berlin'"),
        format!("INSERT INTO host ({HOST}) SELECT {hosts} FROM host t, {numbers} WHERE t.name='till'"),
        format!(
            "INSERT INTO site_label (tenant,site,label,value) SELECT '{tenant}','s'||k.n,'region',CASE WHEN {n}%3=0 THEN 'eu' ELSE 'asia' END FROM {numbers}"
        ),
        "ANALYZE".to_owned(),
    ] {
        let sql: &'static str = Box::leak(sql.into_boxed_str());
        s.fleet
            .db()
            .write(|tx| Box::pin(async move { tx.run(sql, vec![]).await }))
            .await
            .unwrap();
    }
    s
}

const SITE: &str = "tenant,id,name,display_name,labels,lat,lon,address,timezone,variables,secret_names,secret_values,repository,path,branch,policy,rollout,target,targeted,told,hosts_total,hosts_online,state,rank,reason,applied,since,updated_at,generation,words";
const HOST: &str = "tenant,id,name,site,serial,uuid,macs,labels,phase,connection,last_seen_at,connected_at,state,rank,reason,applied,attempted,quarantined,drift,compliance,versions,certificate,not_after,address,node,boot,status_generation,health,health_reason,told,acknowledged,refused,ahead,target_mode,target,since,updated_at,generation,words";

async fn timed<T>(what: &str, on: On, work: impl AsyncFn() -> T) -> Duration {
    work().await;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        work().await;
        best = best.min(started.elapsed());
    }
    println!("{on:?}: {what}: {best:.2?}");
    best
}

async fn lists(on: On) {
    let s = big(on, 50_000).await;
    timed("overview of 50,000", on, async || {
        s.fleet.overview(&s.owner).await.unwrap()
    })
    .await;
    let query = |sort: &str, selector: &str, q: &str| Query {
        sort: Some(sort.to_owned()),
        selector: Some(selector.to_owned()),
        q: Some(q.to_owned()),
        ..Query::default()
    };
    for (sort, selector, q) in [
        ("name", "", ""),
        ("state", "", ""),
        ("-updatedAt", "", ""),
        ("name", "region=eu", ""),
        ("name", "region!=eu", ""),
        ("name", "", "site-4999"),
    ] {
        let query = query(sort, selector, q);
        timed(
            &format!("page of sites by {sort} {selector} {q}"),
            on,
            async || s.fleet.sites().list(&s.owner, &query).await.unwrap(),
        )
        .await;
    }
    timed("page of hosts", on, async || {
        s.fleet.hosts().list(&s.owner, &Query::default()).await.unwrap()
    })
    .await;
    timed("map", on, async || {
        s.fleet.sites().geo(&s.owner, &Query::default()).await.unwrap()
    })
    .await;
    // All pages, one after the other.
    let started = Instant::now();
    let mut all = query("state", "", "");
    all.limit = 1000;
    while let Some(next) = s.fleet.sites().list(&s.owner, &all).await.unwrap().next {
        all.cursor = Some(next);
    }
    println!("{on:?}: all 50 pages of 1,000: {:.2?}", started.elapsed());
}

async fn reports(on: On) {
    const HOSTS: usize = 5000;
    let s = big(on, HOSTS).await;
    let ingest = Ingest::start(&s.fleet, "n");
    let tenant = s.tenant.id.clone();
    for round in 0..3_u64 {
        let started = Instant::now();
        let all = (1..=HOSTS).map(|n| {
            let (ingest, tenant) = (ingest.clone(), tenant.clone());
            async move {
                let host = format!("h{n}");
                if round == 0 {
                    ingest
                        .connected(&tenant, &host, &Hello::default(), "")
                        .await
                        .unwrap();
                    return;
                }
                let commit = format!("c{round}");
                let status = Status {
                    generation: round,
                    base: round - 1,
                    set: serde_json::from_value(json!({
                        "source": {"applied": commit, "attempted": commit}, "health": {"state": "healthy"},
                    }))
                    .unwrap(),
                    remove: Vec::new(),
                };
                ingest.status(&tenant, &host, status).await.unwrap();
            }
        });
        futures::future::join_all(all).await;
        let took = started.elapsed().as_secs_f64();
        let what = if round == 0 { "connects" } else { "reports" };
        println!(
            "{on:?}: {HOSTS} {what} in {took:.2} s: {:.0}/s",
            HOSTS as f64 / took
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn enrolment_sqlite() {
    enrolment(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn enrolment_postgres() {
    enrolment(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn lists_sqlite() {
    lists(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn lists_postgres() {
    lists(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn reports_sqlite() {
    reports(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn reports_postgres() {
    reports(On::Postgres).await;
}
