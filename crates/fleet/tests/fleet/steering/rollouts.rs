//! The driver, with hosts that report as real ones do.

use std::sync::Arc;
use std::time::Duration;

use fleet::model::RolloutState;
use fleet::rollout::Driver;
use fleet::{Caller, Error, Query, Role, Scope};
use serde_json::json;

use crate::steering::repo::{Here, Repo, config, files};
use crate::steering::world::World;
use crate::support::{On, Setup, both};

const SITES: [(&str, &str); 4] = [
    ("berlin", "ring=canary"),
    ("delft", ""),
    ("essen", ""),
    ("gent", "ring=canary"),
];

fn careful() -> serde_json::Value {
    json!({"name": "careful", "waves": [{"name": "canary", "selector": "ring=canary", "batch": "1"}, {"name": "all", "batch": "all"}],
           "gate": {"healthyFor": "0s", "failingFor": "0s"}, "failureBudget": "0"})
}

async fn rollout(s: &Setup, number: i64) -> fleet::model::Rollout {
    s.fleet
        .rollouts()
        .get(&s.owner, &number.to_string())
        .await
        .unwrap()
}

/// The hosts report until a rollout is where it should be.
async fn until_state(s: &Setup, world: &mut World, number: i64, state: RolloutState) {
    let tried = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            world.turn().await;
            let found = s.fleet.rollouts().get(&s.owner, &number.to_string()).await;
            if found.is_ok_and(|rollout| rollout.state == state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if tried.await.is_err() {
        let now = s
            .fleet
            .rollouts()
            .list(&s.owner, &Query::default())
            .await
            .unwrap();
        panic!("rollout {number} is not {state:?}: {now:#?}");
    }
}

both!(a_commit_goes_through_and_a_bad_one_does_not, |s| {
    let mut world = World::new(&s, careful(), &SITES).await;
    let driver = tokio::spawn(Driver::new(s.fleet.clone(), "n1").run());
    // Without any commit a site under a policy is told to hold what it has.
    assert_eq!(world.target("berlin").await, None);
    world.push("c1").await;
    until_state(&s, &mut world, 1, RolloutState::Succeeded).await;
    assert!(world.all_at("c1").await);
    let first = rollout(&s, 1).await;
    assert_eq!(
        (
            first.waves.len(),
            first.waves[0].succeeded,
            first.waves[1].succeeded
        ),
        (2, 2, 2)
    );
    assert_eq!(
        (first.subject.as_str(), first.policy.as_str(), first.previous),
        ("Change of c1", "careful", None)
    );
    assert_eq!(
        world.audit().await,
        [
            "rollout.create",
            "rollout.wave canary",
            "rollout.batch berlin",
            "rollout.phase running",
            "rollout.batch gent",
            "rollout.wave all",
            "rollout.batch delft+essen",
            "rollout.wave rest",
            "rollout.phase succeeded"
        ]
    );
    world.refuse.push(("berlin".into(), "c2".into()));
    world.push("c2").await;
    until_state(&s, &mut world, 2, RolloutState::Halted).await;
    let halted = rollout(&s, 2).await;
    assert!(
        halted.reason.contains("site berlin") && halted.reason.contains("the gateway was cut off"),
        "{halted:?}"
    );
    assert_eq!(
        world.target("gent").await.as_deref(),
        Some("c1"),
        "nobody else is told"
    );
    let sites = s
        .fleet
        .rollouts()
        .sites(&s.owner, "2", &Query::default())
        .await
        .unwrap();
    let shown: Vec<(&str, &str, &str)> = sites
        .items
        .iter()
        .map(|x| (x.site.as_str(), x.wave.as_str(), x.state.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("berlin", "canary", "failed"),
            ("delft", "all", "waiting"),
            ("essen", "all", "waiting"),
            ("gent", "canary", "waiting")
        ]
    );
    // Who may only look can't.
    let viewer = Caller::user(&s.tenant.id, "vera", Role::Viewer, Scope::All);
    assert!(matches!(
        s.fleet.rollouts().revert(&viewer, "2").await,
        Err(Error::Denied { .. })
    ));
    let here = Caller::user(&s.tenant.id, "otto", Role::Operator, Scope::Site("berlin".into()));
    assert!(matches!(
        s.fleet.rollouts().revert(&here, "2").await,
        Err(Error::Denied { .. })
    ));
    let sites = s
        .fleet
        .rollouts()
        .sites(&here, "2", &Query::default())
        .await
        .unwrap();
    assert_eq!(sites.total, 1);
    let stranger = Caller::user("another", "eve", Role::Owner, Scope::All);
    assert!(matches!(
        s.fleet.rollouts().get(&stranger, &halted.id).await,
        Err(Error::NotFound { .. })
    ));

    assert!(matches!(
        s.fleet.rollouts().approve(&s.owner, "2").await,
        Err(Error::Conflict { .. })
    ));
    s.fleet.rollouts().revert(&s.owner, "2").await.unwrap();
    until_state(&s, &mut world, 2, RolloutState::Reverted).await;
    assert!(world.all_at("c1").await);
    world.push("c3").await;
    until_state(&s, &mut world, 3, RolloutState::Succeeded).await;
    assert!(world.all_at("c3").await);
    assert_eq!(rollout(&s, 3).await.previous.as_deref(), Some("c1"));
    driver.abort();
});

both!(a_commit_concerns_only_the_sites_that_it_changes, |s| {
    let repo = Repo::new();
    let mut first = files(&[
        ("base/kustomization.yaml", "resources: [settings.yaml]\n"),
        ("base/settings.yaml", &config("hello")),
        ("sites/berlin/kustomization.yaml", "resources: [../../base]\n"),
    ]);
    for site in ["delft", "essen", "gent"] {
        first.push((format!("sites/{site}/settings.yaml"), config(site)));
    }
    let c1 = repo.commit(&first);
    let mut world = World::new(&s, careful(), &SITES).await;
    let source = Arc::new(Here(repo.path().into(), c1.clone(), c1.clone()));
    let driver = tokio::spawn(Driver::new(s.fleet.clone(), "n1").reading(source).run());
    world.push(&c1).await;
    until_state(&s, &mut world, 1, RolloutState::Succeeded).await;
    let commits = [
        // One folder.
        (
            files(&[("sites/delft/settings.yaml", &config("hi"))]),
            vec!["delft"],
        ),
        // What a folder is built from, outside of it.
        (files(&[("base/settings.yaml", &config("bye"))]), vec!["berlin"]),
        // A file of a folder that is not built, and a comment.
        (
            files(&[
                ("sites/essen/readme.txt", "x"),
                (
                    "sites/essen/settings.yaml",
                    &format!("# new\n{}", config("essen")),
                ),
            ]),
            vec![],
        ),
        // What can't be built can't be compared.
        (files(&[("sites/gent/settings.yaml", "kind: [")]), vec!["gent"]),
    ];
    for (n, (changes, concerned)) in (2..).zip(commits) {
        let commit = repo.commit(&changes);
        world.push(&commit).await;
        until_state(&s, &mut world, n, RolloutState::Succeeded).await;
        // All are held at the commit; whom it does not concern had no turn.
        assert!(world.all_at(&commit).await);
        let page = s
            .fleet
            .rollouts()
            .sites(&s.owner, &n.to_string(), &Query::default())
            .await
            .unwrap();
        for site in &page.items {
            let wanted = if concerned.contains(&site.site.as_str()) {
                "succeeded"
            } else {
                "unchanged"
            };
            assert_eq!(
                (site.site.as_str(), site.state.as_str()),
                (site.site.as_str(), wanted),
                "rollout {n}"
            );
        }
        let found = rollout(&s, n).await;
        let count = |of: fn(&fleet::model::WaveProgress) -> i64| found.waves.iter().map(of).sum::<i64>();
        assert_eq!(
            (count(|w| w.total), count(|w| w.unchanged), count(|w| w.pending)),
            (
                i64::try_from(concerned.len()).unwrap(),
                4 - i64::try_from(concerned.len()).unwrap(),
                0
            )
        );
        // Wanted is the new commit everywhere, and what hosts report follows.
        world.turn().await;
        for name in ["berlin", "delft", "essen", "gent"] {
            let site = s.fleet.sites().get(&s.owner, name).await.unwrap();
            assert_eq!(
                (site.desired.as_deref(), site.state),
                (Some(commit.as_str()), fleet::model::State::Healthy)
            );
        }
    }
    let batches: Vec<String> = world
        .audit()
        .await
        .into_iter()
        .filter(|a| a.starts_with("rollout.batch"))
        .skip(3)
        .collect();
    assert_eq!(
        batches,
        [
            "rollout.batch delft",
            "rollout.batch berlin",
            "rollout.batch gent"
        ]
    );
    driver.abort();
});

both!(a_newer_commit_supersedes_and_persons_decide, |s| {
    let policy = json!({"name": "careful", "waves": [{"name": "canary", "selector": "ring=canary"}, {"name": "shops", "approval": true}],
                        "gate": {"healthyFor": "0s"}});
    let mut world = World::new(&s, policy, &SITES).await;
    let driver = tokio::spawn(Driver::new(s.fleet.clone(), "n1").run());
    world.push("c1").await;
    until_state(&s, &mut world, 1, RolloutState::AwaitingApproval).await;
    assert_eq!(rollout(&s, 1).await.reason, "wave shops waits to be approved");
    world.push("c2").await;
    until_state(&s, &mut world, 2, RolloutState::AwaitingApproval).await;
    assert_eq!(rollout(&s, 1).await.state, RolloutState::Superseded);
    assert!(matches!(
        s.fleet.rollouts().approve(&s.owner, "1").await,
        Err(Error::Conflict { .. })
    ));
    s.fleet.rollouts().halt(&s.owner, "2").await.unwrap();
    assert_eq!(rollout(&s, 2).await.reason, "halted by ada");
    s.fleet.rollouts().resume(&s.owner, "2").await.unwrap();
    until_state(&s, &mut world, 2, RolloutState::AwaitingApproval).await;
    s.fleet.rollouts().approve(&s.owner, "2").await.unwrap();
    until_state(&s, &mut world, 2, RolloutState::Succeeded).await;
    assert!(world.all_at("c2").await);
    let page = s
        .fleet
        .rollouts()
        .list(&s.owner, &Query::default())
        .await
        .unwrap();
    assert_eq!(page.items.iter().map(|r| r.number).collect::<Vec<_>>(), [2, 1]);
    // The policy is in use.
    let kept = s.fleet.policies().delete(&s.owner, "careful", None).await;
    assert!(matches!(kept, Err(Error::Conflict { .. })), "{kept:?}");
    driver.abort();
});

/// Cut off anywhere, again and again, by time limits from a tenth of a millisecond on: what is done is done whole, nothing is
/// done twice, and in the end every site has the commit.
async fn cut_off(on: On) {
    let s = Setup::new(on).await;
    let mut world = World::new(&s, careful(), &SITES).await;
    world.push("c1").await;
    let mut random = 1_u64;
    let mut cut = 0;
    for _ in 0..400 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let patience = Duration::from_micros(100 << ((random >> 33) % 9));
        let mut driver = Driver::new(s.fleet.clone(), "n1");
        cut += usize::from(tokio::time::timeout(patience, driver.wake()).await.is_err());
        drop(driver);
        world.turn().await;
        if s.fleet
            .rollouts()
            .get(&s.owner, "1")
            .await
            .is_ok_and(|r| r.state == RolloutState::Succeeded)
        {
            break;
        }
    }
    let driver = tokio::spawn(Driver::new(s.fleet.clone(), "n1").run());
    until_state(&s, &mut world, 1, RolloutState::Succeeded).await;
    driver.abort();
    assert!(cut >= 3, "it was cut off {cut} times");
    assert!(world.all_at("c1").await);
    // One rollout, each wave and each batch once and in order, however often it was cut off.
    let audit = world.audit().await;
    let steps: Vec<&str> = audit
        .iter()
        .map(String::as_str)
        .filter(|a| !a.starts_with("rollout.phase"))
        .collect();
    assert_eq!(
        steps,
        [
            "rollout.create",
            "rollout.wave canary",
            "rollout.batch berlin",
            "rollout.batch gent",
            "rollout.wave all",
            "rollout.batch delft+essen",
            "rollout.wave rest"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_anywhere_sqlite() {
    cut_off(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_anywhere_postgres() {
    cut_off(On::Postgres).await;
}

/// Two processes, and both think that they lead: nothing is told twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_drive_do_not_double() {
    let s = Setup::new(On::Postgres).await;
    let mut world = World::new(&s, careful(), &SITES).await;
    // The same name: the lease is no hindrance.
    let drivers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(Driver::new(s.fleet.clone(), "n1").run()))
        .collect();
    for (number, commit) in [(1, "c1"), (2, "c2"), (3, "c3")] {
        world.push(commit).await;
        until_state(&s, &mut world, number, RolloutState::Succeeded).await;
    }
    drivers.iter().for_each(tokio::task::JoinHandle::abort);
    let audit = world.audit().await;
    assert_eq!(
        audit.iter().filter(|a| a.starts_with("rollout.create")).count(),
        3
    );
    assert_eq!(
        audit.iter().filter(|a| a.starts_with("rollout.batch")).count(),
        9,
        "{audit:#?}"
    );
}

/// With the lease held by another process nothing is driven here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_process_leads() {
    let s = Setup::new(On::Postgres).await;
    let world = World::new(&s, careful(), &SITES).await;
    let mut first = Driver::new(s.fleet.clone(), "n1");
    first.wake().await.unwrap();
    world.push("c1").await;
    let mut second = Driver::new(s.fleet.clone(), "n2");
    second.wake().await.unwrap();
    assert!(matches!(
        s.fleet.rollouts().get(&s.owner, "1").await,
        Err(Error::NotFound { .. })
    ));
    // The one that leads sees the push.
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while s.fleet.rollouts().get(&s.owner, "1").await.is_err() {
            let wait = first.wake().await.unwrap();
            tokio::time::sleep(wait.min(Duration::from_millis(50))).await;
        }
    });
    told.await.unwrap();
}

both!(policies_are_checked, |s| {
    let spec = |json: serde_json::Value| serde_json::from_value::<fleet::model::PolicySpec>(json);
    let wrong = spec(json!({"name": "p", "waves": [{"name": "a", "batch": "0"}]})).unwrap();
    match s.fleet.policies().create(&s.owner, &wrong).await {
        Err(Error::Invalid { field, .. }) => assert_eq!(field, "waves[0].batch"),
        other => panic!("{other:?}"),
    }
    let good = spec(careful()).unwrap();
    let made = s.fleet.policies().create(&s.owner, &good).await.unwrap();
    assert!(matches!(
        s.fleet.policies().create(&s.owner, &good).await,
        Err(Error::Conflict { .. })
    ));
    let patch = json!({"window": {"days": ["mon"], "from": "22:00", "to": "04:00"}});
    let changed = s
        .fleet
        .policies()
        .update(&s.owner, "careful", Some(made.generation), &patch)
        .await
        .unwrap();
    assert_eq!(changed.rules.waves, made.rules.waves);
    assert_eq!(changed.generation, 2);
    let stale = s
        .fleet
        .policies()
        .update(&s.owner, "careful", Some(1), &json!({"window": null}))
        .await;
    assert!(matches!(stale, Err(Error::Precondition { .. })));
    assert_eq!(
        s.fleet
            .policies()
            .list(&s.owner, &Query::default())
            .await
            .unwrap()
            .total,
        1
    );
    s.fleet
        .policies()
        .delete(&s.owner, "careful", None)
        .await
        .unwrap();
    assert!(matches!(
        s.fleet.policies().get(&s.owner, "careful").await,
        Err(Error::NotFound { .. })
    ));
});

/// One turn of a rollout over twenty thousand sites that are all told at once: printed by
/// `cargo test -p fleet --test fleet -- --ignored --nocapture twenty_thousand`.
mod twenty_thousand {
    use fleet::args;
    use fleet::rollout::Driver;
    use serde_json::json;
    use tokio::time::Instant;

    use crate::steering::world::World;
    use crate::support::{On, Setup};

    async fn measure(on: On) {
        const SITES: i64 = 20_000;
        let s = Setup::new(on).await;
        let policy = json!({"name": "careful", "gate": {"healthyFor": "0s"}});
        let world = World::new(&s, policy, &[("model", "")]).await;
        let tenant = s.tenant.id.as_str();
        s.fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    for n in 0..SITES {
                        let id = format!("s{n:05}");
                        tx.run(
                            "INSERT INTO site SELECT tenant,$2,$2,display_name,labels,lat,lon,address,timezone,variables,secret_names,
                             secret_values,repository,path,branch,policy,rollout,target,targeted,told,hosts_total,hosts_online,state,rank,
                             reason,applied,since,updated_at,generation,words FROM site WHERE tenant=$1 AND name='model'",
                            args![tenant, &id],
                        )
                        .await?;
                        tx.run(
                            "INSERT INTO host (tenant,id,name,site,serial,uuid,macs,labels,phase,connection,state,rank,reason,quarantined,
                             drift,compliance,versions,address,boot,status_generation,health,health_reason,told,acknowledged,refused,ahead,
                             target_mode,since,updated_at,generation,words)
                             VALUES ($1,$2,$2,$2,'','','[]','{}','enrolled','online','healthy',5,'','[]',0,'compliant','{}','','',1,'healthy','',1,1,'',0,'',0,0,1,'')",
                            args![tenant, &id],
                        )
                        .await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
        world.push("c1").await;
        let mut driver = Driver::new(s.fleet.clone(), "n1");
        let started = Instant::now();
        driver.wake().await.unwrap();
        println!("{on:?}: {SITES} sites told in {:?}", started.elapsed());
        let mut driver = Driver::new(s.fleet.clone(), "n1");
        let started = Instant::now();
        driver.wake().await.unwrap();
        println!("{on:?}: a look that finds nothing to do: {:?}", started.elapsed());
        let started = Instant::now();
        driver.wake().await.unwrap();
        println!("{on:?}: a wake when nothing has changed: {:?}", started.elapsed());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "measures"]
    async fn sqlite() {
        measure(On::Sqlite).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "measures"]
    async fn postgres() {
        measure(On::Postgres).await;
    }
}
