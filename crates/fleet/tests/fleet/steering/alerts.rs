//! Alerts, and messages to a real socket on the other side.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet::alert::{Courier, Smtp, SmtpTls, Thresholds, Watch, signature};
use fleet::model::{ChannelKind, ChannelSpec, ReachState, Severity};
use fleet::{Caller, Error, Query, Role, Scope, args};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::steering::world::World;
use crate::support::{Setup, both, until};

/// What a webhook was sent: headers in lower case, and the body.
type Posts = Arc<Mutex<Vec<(Vec<(String, String)>, String)>>>;

/// A webhook that answers with each of `answers` in turn, and then 204.
async fn webhook(answers: &'static [u16]) -> (String, Posts) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=hush", listener.local_addr().unwrap());
    let posts = Posts::default();
    let seen = Arc::clone(&posts);
    tokio::spawn(async move {
        let mut answers = answers.iter();
        while let Ok((socket, _)) = listener.accept().await {
            let mut socket = BufReader::new(socket);
            let mut headers = Vec::new();
            loop {
                let mut line = String::new();
                socket.read_line(&mut line).await.unwrap();
                match line.trim_end().split_once(": ") {
                    Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
                    None if line.trim_end().is_empty() => break,
                    None => {}
                }
            }
            let length = headers
                .iter()
                .find(|(name, _)| name == "content-length")
                .unwrap()
                .1
                .parse()
                .unwrap();
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await.unwrap();
            let status = answers.next().copied().unwrap_or(204);
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
            seen.lock()
                .unwrap()
                .push((headers, String::from_utf8(body).unwrap()));
        }
    });
    (url, posts)
}

/// A mail server that takes everything: the messages, with the recipients.
async fn mail_server() -> (u16, Arc<Mutex<Vec<(Vec<String>, String)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mails = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&mails);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut socket = BufReader::new(socket);
                socket.write_all(b"220 sink ESMTP\r\n").await.unwrap();
                let (mut to, mut line) = (Vec::new(), String::new());
                while socket.read_line(&mut line).await.is_ok_and(|n| n > 0) {
                    let command = std::mem::take(&mut line).trim_end().to_owned();
                    let upper = command.to_ascii_uppercase();
                    let answer = if upper.starts_with("EHLO") {
                        "250-sink\r\n250 8BITMIME\r\n"
                    } else if upper.starts_with("RCPT TO:") {
                        to.push(command[8..].to_owned());
                        "250 ok\r\n"
                    } else if upper == "DATA" {
                        socket.write_all(b"354 go on\r\n").await.unwrap();
                        let mut text = String::new();
                        loop {
                            socket.read_line(&mut line).await.unwrap();
                            if line == ".\r\n" {
                                break;
                            }
                            text.push_str(&line);
                            line.clear();
                        }
                        line.clear();
                        seen.lock().unwrap().push((std::mem::take(&mut to), text));
                        "250 taken\r\n"
                    } else if upper == "QUIT" {
                        "221 bye\r\n"
                    } else {
                        "250 ok\r\n"
                    };
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (port, mails)
}

async fn open(s: &Setup) -> Vec<String> {
    let query = Query {
        state: Some("open".into()),
        ..Query::default()
    };
    let mut titles: Vec<String> = s
        .fleet
        .alerts()
        .list(&s.owner, &query)
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|a| a.title)
        .collect();
    titles.sort();
    titles
}

async fn sql(s: &Setup, text: &'static str, args: Vec<fleet::db::Value>) {
    let args = &args;
    s.fleet
        .db()
        .write(|tx| Box::pin(async move { tx.run(text, args.clone()).await.map(drop) }))
        .await
        .unwrap();
}

both!(conditions_become_alerts_and_go_again, |s| {
    let mut world = World::new(&s, json!({"name": "careful"}), &[("berlin", ""), ("delft", "")]).await;
    let watch = Watch::new(s.fleet.clone(), "n1", Thresholds::default());
    world.push("c1").await;
    watch.look().await.unwrap();
    assert_eq!(open(&s).await, [""; 0]);

    world
        .report(
            "berlin",
            json!({"source": {"quarantined": [{"commit": "c1", "reason": "no gateway"}, {"commit": "old", "reason": "x"}]},
                   "compliance": {"state": "compliant", "drift": true}, "usage": {"disk": 0.96}}),
        )
        .await;
    sql(
        &s,
        "UPDATE site SET state='offline' WHERE tenant=$1 AND name='delft'",
        args![&s.tenant.id],
    )
    .await;
    world.clock("delft", -600).await;
    watch.look().await.unwrap();
    // Offline for five minutes, not at once.
    let at_once = [
        "host host-berlin refuses commit c1",
        "host host-berlin was changed by somebody else",
        "the clock of host host-delft is wrong",
        "the disk of host host-berlin is filling up",
    ];
    assert_eq!(open(&s).await, at_once);
    s.later(301);
    watch.look().await.unwrap();
    watch.look().await.unwrap();
    assert_eq!(open(&s).await.len(), 5);
    assert!(open(&s).await.contains(&"site delft is offline".to_owned()));
    let all = s.fleet.alerts().list(&s.owner, &Query::default()).await.unwrap();
    assert_eq!(all.total, 5, "each once");
    let disk = all.items.iter().find(|a| a.title.contains("disk")).unwrap();
    assert_eq!(
        (disk.severity, disk.count, disk.site.as_deref()),
        (Severity::Critical, 1, Some("berlin"))
    );

    // Seen by a person.
    let offline = all.items.iter().find(|a| a.title.contains("offline")).unwrap();
    let viewer = Caller::user(&s.tenant.id, "vera", Role::Viewer, Scope::All);
    assert!(s.fleet.alerts().acknowledge(&viewer, &offline.id).await.is_err());
    let seen = s.fleet.alerts().acknowledge(&s.owner, &offline.id).await.unwrap();
    assert_eq!(seen.acknowledged_by.as_deref(), Some("ada"));
    let elsewhere = Caller::user(&s.tenant.id, "otto", Role::Operator, Scope::Site("berlin".into()));
    assert!(matches!(
        s.fleet.alerts().get(&elsewhere, &offline.id).await,
        Err(Error::NotFound { .. })
    ));
    assert_eq!(
        s.fleet
            .alerts()
            .list(&elsewhere, &Query::default())
            .await
            .unwrap()
            .total,
        3
    );

    // Back, away again before two minutes are over: the same alert. Then back for good.
    let state = async |state: &'static str| {
        sql(
            &s,
            "UPDATE site SET state=$2 WHERE tenant=$1 AND name='delft'",
            args![&s.tenant.id, state],
        )
        .await;
    };
    state("healthy").await;
    watch.look().await.unwrap();
    s.later(60);
    state("offline").await;
    watch.look().await.unwrap();
    let again = s.fleet.alerts().get(&s.owner, &offline.id).await.unwrap();
    assert_eq!((again.count, again.resolved_at), (2, None));
    state("healthy").await;
    watch.look().await.unwrap();
    s.later(121);
    watch.look().await.unwrap();
    // It flapped: four minutes now.
    assert_eq!(
        s.fleet
            .alerts()
            .get(&s.owner, &offline.id)
            .await
            .unwrap()
            .resolved_at,
        None
    );
    s.later(121);
    watch.look().await.unwrap();
    assert!(
        s.fleet
            .alerts()
            .get(&s.owner, &offline.id)
            .await
            .unwrap()
            .resolved_at
            .is_some()
    );
    assert!(matches!(
        s.fleet.alerts().acknowledge(&s.owner, &offline.id).await,
        Err(Error::Conflict { .. })
    ));
    // A certificate that ends soon.
    sql(
        &s,
        "UPDATE host SET not_after=$2 WHERE tenant=$1 AND name='host-delft'",
        args![&s.tenant.id, s.fleet.db().now().plus_seconds(3600)],
    )
    .await;
    watch.look().await.unwrap();
    assert!(
        open(&s)
            .await
            .contains(&"the certificate of host host-delft ends soon".to_owned())
    );
});

both!(messages_are_signed_and_tried_again, |s| {
    let (url, posts) = webhook(&[500, 302]).await;
    let (port, mails) = mail_server().await;
    let hook = ChannelSpec {
        name: "hook".into(),
        url: url.clone(),
        ..ChannelSpec::default()
    };
    let channels = s.fleet.channels();
    let made = channels.create(&s.owner, &hook).await.unwrap();
    let secret = made.secret.unwrap();
    let people = ChannelSpec {
        name: "people".into(),
        kind: ChannelKind::Email,
        to: vec![
            "Ada <ada@example.com>".replace("Ada <", "").replace('>', ""),
            "otto@example.com".into(),
        ],
        severity: Severity::Critical,
        ..ChannelSpec::default()
    };
    channels.create(&s.owner, &people).await.unwrap();
    for (bad, field) in [
        (json!({"url": "ftp://x/"}), "url"),
        (json!({"url": "http://user:pw@x/"}), "url"),
        (json!({"secret": "short"}), "secret"),
        (json!({"to": ["x"]}), "to"),
    ] {
        match channels.update(&s.owner, "hook", None, &bad).await {
            Err(Error::Invalid { field: at, .. }) => assert_eq!(at, field),
            other => panic!("{bad}: {other:?}"),
        }
    }

    s.site("berlin", "").await;
    sql(
        &s,
        "UPDATE site SET state='offline' WHERE tenant=$1",
        args![&s.tenant.id],
    )
    .await;
    s.later(600);
    let watch = Watch::new(s.fleet.clone(), "n1", Thresholds::default());
    watch.look().await.unwrap();
    let smtp = Smtp {
        host: "127.0.0.1".into(),
        port,
        tls: SmtpTls::None,
        credentials: None,
        from: "Selvedge <alerts@example.com>".into(),
        ca_pem: None,
    };
    let tls = {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = rustls::RootCertStore::empty();
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let courier = Courier::new(s.fleet.clone(), "n1", Some(&smtp), Some(tls)).unwrap();
    assert_eq!(courier.round().await.unwrap(), 2);
    let shown = channels.get(&s.owner, "hook").await.unwrap();
    assert_eq!(shown.failure, "the webhook answered 500");
    // Not at once again, and a redirection is no success either.
    assert_eq!(courier.round().await.unwrap(), 0);
    s.later(10);
    assert_eq!(courier.round().await.unwrap(), 1);
    assert_eq!(
        channels.get(&s.owner, "hook").await.unwrap().failure,
        "the webhook answered 302"
    );
    s.later(20);
    assert_eq!(courier.round().await.unwrap(), 1);
    let shown = channels.get(&s.owner, "hook").await.unwrap();
    assert_eq!(
        (shown.failure.as_str(), shown.told_at.is_some(), shown.secret),
        ("", true, None)
    );
    s.later(100_000);
    assert_eq!(courier.round().await.unwrap(), 0);

    let posts = posts.lock().unwrap().clone();
    assert_eq!(posts.len(), 3);
    for (headers, body) in &posts {
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).unwrap().1.clone();
        let signed = header("x-selvedge-signature");
        let seconds: i64 = signed[2..].split(',').next().unwrap().parse().unwrap();
        assert_eq!(signed, signature(secret.as_bytes(), seconds, body));
        assert_eq!(
            header("x-selvedge-delivery"),
            posts[0]
                .0
                .iter()
                .find(|(n, _)| n == "x-selvedge-delivery")
                .unwrap()
                .1
        );
    }
    let body: Value = serde_json::from_str(&posts[2].1).unwrap();
    assert_eq!(
        (body["event"].as_str(), body["tenant"].as_str()),
        (Some("open"), Some("acme"))
    );
    assert_eq!(body["alert"]["title"], "site berlin is offline");
    let mails = mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].0, ["<ada@example.com>", "<otto@example.com>"]);
    assert!(
        mails[0].1.contains("Subject: [critical] site berlin is offline"),
        "{}",
        mails[0].1
    );
    assert!(
        mails[0].1.contains("From: Selvedge <alerts@example.com>"),
        "{}",
        mails[0].1
    );

    // Neither the secret nor the address's token is in the audit log.
    let rows = s
        .fleet
        .db()
        .rows("SELECT COALESCE(after,'') FROM audit", vec![])
        .await
        .unwrap();
    let whole: String = rows.iter().map(|row| row.text(0)).collect();
    assert!(whole.contains("hook") && !whole.contains("hush") && !whole.contains(&secret));
});

both!(queues_are_bounded, |s| {
    let hook = ChannelSpec {
        name: "hook".into(),
        url: "http://127.0.0.1:9/".into(),
        ..ChannelSpec::default()
    };
    let made = s.fleet.channels().create(&s.owner, &hook).await.unwrap();
    for n in 0..1050_i64 {
        let args = args![&s.tenant.id, format!("old-{n:05}"), &made.id, n];
        sql(&s, "INSERT INTO delivery (tenant,id,channel,body,tries,next_at,created_at) VALUES ($1,$2,$3,'{}',0,9999999999999,$4)", args).await;
    }
    s.site("berlin", "").await;
    sql(
        &s,
        "UPDATE site SET state='offline' WHERE tenant=$1",
        args![&s.tenant.id],
    )
    .await;
    s.later(600);
    Watch::new(s.fleet.clone(), "n1", Thresholds::default())
        .look()
        .await
        .unwrap();
    let row = s
        .fleet
        .db()
        .row("SELECT COUNT(*),MIN(id) FROM delivery", vec![])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.int(0), fleet::alert::MOST_WAITING);
    let shown = s.fleet.channels().get(&s.owner, "hook").await.unwrap();
    assert!(
        shown.failure.contains("the oldest were given up"),
        "{}",
        shown.failure
    );
    s.fleet.channels().delete(&s.owner, "hook", None).await.unwrap();
    until("nothing waits for a channel that is gone", || async {
        s.fleet
            .db()
            .row("SELECT COUNT(*) FROM delivery", vec![])
            .await
            .unwrap()
            .unwrap()
            .int(0)
            == 0
    })
    .await;
    let _ = Duration::ZERO;
});

both!(a_wrong_clock_is_seen_and_forgotten, |s| {
    let world = World::new(&s, json!({"name": "careful"}), &[("berlin", "")]).await;
    let watch = Watch::new(s.fleet.clone(), "n1", Thresholds::default());
    let skew = async || {
        s.fleet
            .hosts()
            .get(&s.owner, "host-berlin")
            .await
            .unwrap()
            .clock_skew_seconds
    };
    // A minute is what networks and whole seconds may cost.
    for (off, is) in [(0, 0), (-59, 0), (60, 0), (61, 61), (-75, -75), (4000, 4000)] {
        world.clock("berlin", off).await;
        assert_eq!(skew().await, is, "{off}");
        watch.look().await.unwrap();
        let wanted: &[&str] = if is.abs() > 60 {
            &["the clock of host host-berlin is wrong"]
        } else {
            &[]
        };
        assert_eq!(open(&s).await, wanted, "{off}");
    }
    let all = s.fleet.alerts().list(&s.owner, &Query::default()).await.unwrap();
    assert_eq!(
        all.items[0].message,
        "it is about 66 minutes ahead; is its NTP server reachable?"
    );
    // The same again is written only once; what is no time says nothing.
    let before = s.fleet.changes().newest().await.unwrap();
    world.clock("berlin", 4001).await;
    let host = s.fleet.hosts().get(&s.owner, "host-berlin").await.unwrap();
    world.ingest.clock(&s.tenant.id, &host.id, "soon").await.unwrap();
    assert_eq!(
        (skew().await, s.fleet.changes().newest().await.unwrap()),
        (4000, before)
    );
    world.clock("berlin", 3).await;
    assert_eq!(skew().await, 0);
    // A new connection says it too, and one that does not say it leaves what is known.
    let hello = async |off: Option<i64>| {
        let time = off.map_or(String::new(), |off| {
            s.fleet.db().now().plus_seconds(off).to_string()
        });
        let hello = link::message::Hello {
            time,
            ..Default::default()
        };
        world
            .ingest
            .connected(&s.tenant.id, &host.id, &hello, "")
            .await
            .unwrap();
    };
    for (off, is) in [(Some(-90), -90), (None, -90), (Some(0), 0)] {
        hello(off).await;
        assert_eq!(skew().await, is);
    }
    watch.look().await.unwrap();
    s.later(121);
    watch.look().await.unwrap();
    assert_eq!(open(&s).await, [""; 0]);
});

both!(a_repository_that_refuses_us_is_told_once, |s| {
    let world = World::new(&s, json!({"name": "careful"}), &[("berlin", "")]).await;
    let watch = Watch::new(s.fleet.clone(), "n1", Thresholds::default());
    let reach = async |state, why| {
        s.fleet
            .repositories()
            .set_reach(&s.tenant.id, &world.repository, state, why)
            .await
            .unwrap();
        watch.look().await.unwrap();
    };
    world.push("c1").await;
    let before = s.fleet.sites().get(&s.owner, "berlin").await.unwrap();
    for _ in 0..3 {
        reach(ReachState::Failed, "the server refuses the credentials").await;
        s.later(60);
    }
    assert_eq!(open(&s).await, ["repository shops can't be reached"]);
    let all = s.fleet.alerts().list(&s.owner, &Query::default()).await.unwrap();
    assert_eq!(
        (all.total, all.items[0].count, all.items[0].severity),
        (1, 1, Severity::Warning)
    );
    assert_eq!(all.items[0].message, "the server refuses the credentials");
    // Sites are as they were.
    let after = s.fleet.sites().get(&s.owner, "berlin").await.unwrap();
    assert_eq!(
        (after.state, after.desired, after.applied),
        (before.state, before.desired, before.applied)
    );
    reach(ReachState::Ok, "").await;
    s.later(121);
    watch.look().await.unwrap();
    assert_eq!(open(&s).await, [""; 0]);
});
