//! The query language over real rows.

use fleet::{Caller, Error, Role, Scope};
use serde_json::json;

use crate::steering::world::World;
use crate::support::both;

both!(one_language_for_everything, |s| {
    let policy = json!({"name": "careful"});
    let sites = [
        ("berlin", "region=eu,tier=lab"),
        ("boston", "region=us"),
        ("delft", "region=eu"),
    ];
    let mut world = World::new(&s, policy, &sites).await;
    world.push("abcdef0123").await;
    world
        .report(
            "berlin",
            json!({
                "health": {"state": "failing", "reason": "VM till does not start"},
                "source": {"applied": "abcdef0123"},
                "inventory": {"serial": "host-berlin"},
                "compliance": {"state": "nonCompliant", "drift": true},
                "vm/shop/till-1": {"power": "poweredOn", "ready": false, "reason": "Start%d", "ip": "10.0.0.7", "class": "small"},
                "vm/shop/cam_1": {"power": "poweredOff", "ready": true, "class": "large", "image": "Registry/Cam:2"},
            }),
        )
        .await;
    world
        .report(
            "delft",
            json!({"health": {"state": "healthy"}, "source": {"applied": "abcd000000"}}),
        )
        .await;
    let found = async |caller: &Caller, q: &str| {
        let hits = s.fleet.search(caller, q, 0).await.unwrap();
        hits.items
            .iter()
            .map(|hit| format!("{}:{}", hit.kind, hit.name))
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (q, wanted) in [
        ("berlin kind:site", "site:berlin"),
        ("label:region=eu kind:site", "site:berlin site:delft"),
        ("label:region=eu -label:tier", "site:delft host:host-delft"),
        ("label:region kind:site -state:failing", "site:boston site:delft"),
        ("state:failing", "site:berlin host:host-berlin"),
        ("commit:abcd kind:host", "host:host-berlin host:host-delft"),
        (
            "commit:abcdef",
            "site:berlin host:host-berlin commit:Change of abcdef0123",
        ),
        ("condition:Ready=False kind:vm", "vm:till-1"),
        (
            "condition:Ready=False kind:host",
            "host:host-berlin host:host-boston",
        ),
        ("condition:Drift", "site:berlin host:host-berlin"),
        (
            "condition:Compliant=False kind:host",
            "host:host-berlin host:host-boston host:host-delft",
        ),
        ("condition:Online=False kind:host", ""),
        ("serial:HOST-b", "host:host-berlin host:host-boston"),
        ("serial:host-b", "host:host-berlin host:host-boston"),
        ("class:small", "vm:till-1"),
        ("image:cam", "vm:cam_1"),
        ("power:poweredOff site:berlin", "vm:cam_1"),
        ("vm:till-1", "host:host-berlin vm:till-1"),
        ("ip:10.0.0", "vm:till-1"),
        ("start%d", "vm:till-1"),
        // `%` and `_` stand for themselves.
        ("name:%", ""),
        ("cam_1 kind:vm", "vm:cam_1"),
        ("cam-1", ""),
        ("repository:shops state:healthy", "site:delft host:host-delft"),
        ("policy:careful kind:site name:b", "site:berlin site:boston"),
        ("\"change of\"", "commit:Change of abcdef0123"),
        ("", ""),
    ] {
        assert_eq!(found(&s.owner, q).await, wanted, "{q}");
    }
    // Nobody finds what they may not see.
    let there = Caller::user(&s.tenant.id, "otto", Role::Viewer, Scope::Site("delft".into()));
    assert_eq!(found(&there, "label:region=eu kind:site").await, "site:delft");
    assert_eq!(found(&there, "till").await, "");
    let stranger = Caller::user("another", "eve", Role::Owner, Scope::All);
    assert_eq!(found(&stranger, "berlin").await, "");
    match s.fleet.search(&s.owner, "state:sleepy", 0).await {
        Err(Error::Invalid { field, message }) => {
            assert_eq!(field, "q");
            assert!(message.starts_with("at character 7:"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let first = s.fleet.search(&s.owner, "kind:site region", 1).await.unwrap();
    assert_eq!((first.items.len(), first.more), (1, true));
    let first = s.fleet.search(&s.owner, "kind:host host", 2).await.unwrap();
    assert_eq!((first.items.len(), first.more), (2, true));
});

/// How long queries take over fifty thousand sites with a host and a virtual machine each: printed by
/// `cargo test -p fleet --test fleet -- --ignored --nocapture fifty_thousand`.
mod fifty_thousand {
    use fleet::args;
    use tokio::time::Instant;

    use crate::support::{On, Setup};

    async fn measure(on: On) {
        let s = Setup::new(on).await;
        s.site("model", "region=eu,ring=canary").await;
        crate::steering::world::host(&s, "model", "model").await;
        let tenant = s.tenant.id.as_str();
        s.fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    for n in 0..50_000_i64 {
                        let (id, name) = (format!("s{n:05}"), format!("site-{n:05}"));
                        let state = if n % 50 == 0 { "offline" } else { "healthy" };
                        tx.run(
                            "INSERT INTO site SELECT tenant,$2,$3,display_name,labels,lat,lon,address,timezone,variables,secret_names,
                             secret_values,repository,path,branch,policy,rollout,target,targeted,told,hosts_total,hosts_online,$4,rank,
                             reason,$5,since,updated_at,generation,$6 FROM site WHERE tenant=$1 AND name='model'",
                            args![tenant, &id, &name, state, format!("{n:04x}abcdef"), format!("{name} region=eu ring=r{}", n % 100)],
                        )
                        .await?;
                        tx.run(
                            "INSERT INTO site_label (tenant,site,label,value) VALUES ($1,$2,'region','eu'),($1,$2,'ring',$3)",
                            args![tenant, &id, format!("r{}", n % 100)],
                        )
                        .await?;
                        tx.run(
                            "INSERT INTO vm (tenant,host,namespace,name,power,ready,reason,ip,class,image,words)
                             VALUES ($1,(SELECT id FROM host WHERE tenant=$1 AND name='model'),$2,'till','poweredOn',1,'',$3,'small','',$4)",
                            args![tenant, &id, format!("10.0.{}.{}", n / 250, n % 250), format!("{id}/till small")],
                        )
                        .await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
        for q in [
            "site-04711",
            "nothing-like-this",
            "name:site-047",
            "label:ring=r7 state:offline",
            "label:region=eu -state:healthy kind:site",
            "commit:1267",
            "condition:Ready=False",
            "ip:10.0.17",
            "serial:nobody",
        ] {
            let mut times = Vec::new();
            for _ in 0..5 {
                let started = Instant::now();
                s.fleet.search(&s.owner, q, 0).await.unwrap();
                times.push(started.elapsed());
            }
            times.sort();
            println!("{on:?} {q}: median {:?}, worst {:?}", times[2], times[4]);
        }
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
