//! Machines become hosts, and only those that may.

use fleet::hosts::Standing;
use fleet::model::{ActivationKeySpec, ExpectedSpec, Phase};
use fleet::{Caller, Error, Query, Role, Scope};
use identity::csr;
use identity::enrol::{Answer, Granted, Renewal, Request};
use identity::key::FileKey;
use identity::proof;
use identity::verify::ClientVerifier;

use crate::support::{Setup, both, make_tenant};

fn request(key: &FileKey, serial: &str) -> Request {
    Request {
        csr: csr::make(key).unwrap(),
        serial: serial.to_owned(),
        uuid: String::new(),
        macs: vec!["52:54:00:00:00:01".to_owned()],
        hostname: format!("node-{serial}.lan"),
        activation_key: None,
        tenant: None,
    }
}

fn granted(answer: Answer) -> Granted {
    match answer {
        Answer::Granted(granted) => *granted,
        Answer::Waiting(waiting) => panic!("it waits: {waiting:?}"),
    }
}

async fn key(s: &Setup, max_uses: i64) -> String {
    let spec = ActivationKeySpec {
        name: "first".to_owned(),
        site: Some("berlin".to_owned()),
        max_uses: Some(max_uses),
        expires_at: Some(fleet::model::Time::from(s.clock.now()).plus_seconds(3600)),
    };
    s.fleet.keys().create(&s.owner, &spec).await.unwrap().key.unwrap()
}

fn forbidden<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Forbidden { .. })), "{result:?}");
}

both!(an_activation_key_is_used_up_once, |s| {
    s.site("berlin", "region=eu").await;
    let secret = key(&s, 1).await;
    // Twenty machines come with it at once.
    let tries = (0..20).map(|n| {
        let (fleet, secret) = (s.fleet.clone(), secret.clone());
        tokio::spawn(async move {
            let key = FileKey::generate().unwrap();
            let mut request = request(&key, &format!("S{n}"));
            request.activation_key = Some(secret);
            fleet.enrolment().request(&request, "10.0.0.1").await
        })
    });
    let answers = futures::future::join_all(tries).await;
    let (in_, out): (Vec<_>, Vec<_>) = answers.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((in_.len(), out.len()), (1, 19));
    for one in out {
        forbidden(one);
    }
    let hosts = s.fleet.hosts().list(&s.owner, &Query::default()).await.unwrap();
    assert_eq!((hosts.total, hosts.items[0].site.as_deref()), (1, Some("berlin")));
    let site = s.fleet.sites().get(&s.owner, "berlin").await.unwrap();
    assert_eq!(
        (site.hosts.total, site.reason.as_str()),
        (1, "it has not connected yet")
    );
    let used = s.fleet.keys().list(&s.owner, &Query::default()).await.unwrap();
    assert_eq!((used.items[0].uses, used.items[0].max_uses), (1, 1));
    // One that is past its time, or another's, is no better.
    let mut late = request(&FileKey::generate().unwrap(), "S99");
    late.activation_key = Some(key(&s, 5).await);
    late.tenant = Some("other".to_owned());
    forbidden(s.fleet.enrolment().request(&late, "").await);
    make_tenant(&s.fleet, "other").await;
    forbidden(s.fleet.enrolment().request(&late, "").await);
    late.tenant = None;
    s.later(3601);
    forbidden(s.fleet.enrolment().request(&late, "").await);
    late.activation_key = Some("SLV-nonsense".to_owned());
    assert!(matches!(
        s.fleet.enrolment().request(&late, "").await,
        Err(Error::Invalid { .. })
    ));
    assert_eq!(s.fleet.audit().verify(&s.owner).await.unwrap().broken_at, None);
});

both!(a_lost_answer_is_given_again, |s| {
    s.site("berlin", "").await;
    let mine = FileKey::generate().unwrap();
    let mut asked = request(&mine, "S1");
    asked.activation_key = Some(key(&s, 1).await);
    let first = granted(s.fleet.enrolment().request(&asked, "").await.unwrap());
    // The same key of the host: the used-up activation key is not asked for again.
    let again = granted(s.fleet.enrolment().request(&asked, "").await.unwrap());
    assert_eq!(first.host_id, again.host_id);
    assert_eq!(
        (first.tenant.as_str(), first.site.as_deref()),
        ("acme", Some("berlin"))
    );
    assert_eq!(first.assignment.unwrap()["site"], "berlin");
    // Installed anew: another key of the host, another activation key, the same host.
    let mut anew = request(&FileKey::generate().unwrap(), "S1");
    anew.activation_key = Some(key(&s, 1).await);
    let new = granted(s.fleet.enrolment().request(&anew, "").await.unwrap());
    assert_eq!(new.host_id, first.host_id);
    let verifier = ClientVerifier::new(&s.clock);
    verifier.set_authority(&s.tenant.id, &new.ca).unwrap();
    let old = verifier.check_expired(&first.certificate).unwrap();
    let old = s
        .fleet
        .hosts()
        .by_certificate(&old.tenant, &old.host, &old.serial)
        .await
        .unwrap();
    assert_eq!(old, Standing::Revoked);
});

both!(a_key_of_one_site_takes_no_host_of_another, |s| {
    s.site("berlin", "").await;
    s.site("lab", "").await;
    let mut asked = request(&FileKey::generate().unwrap(), "S1");
    asked.activation_key = Some(key(&s, 1).await);
    let mine = granted(s.fleet.enrolment().request(&asked, "").await.unwrap());
    // Somebody at the lab has read the serial number off the box in Berlin.
    let spec = ActivationKeySpec {
        name: "lab".to_owned(),
        site: Some("lab".to_owned()),
        max_uses: Some(9),
        expires_at: None,
    };
    let lab = s.fleet.keys().create(&s.owner, &spec).await.unwrap().key;
    let mut thief = request(&FileKey::generate().unwrap(), "S1");
    thief.activation_key = lab;
    forbidden(s.fleet.enrolment().request(&thief, "").await);
    let verifier = ClientVerifier::new(&s.clock);
    verifier.set_authority(&s.tenant.id, &mine.ca).unwrap();
    let held = verifier.check_expired(&mine.certificate).unwrap();
    let hosts = s.fleet.hosts();
    let standing = hosts
        .by_certificate(&held.tenant, &held.host, &held.serial)
        .await
        .unwrap();
    assert!(matches!(standing, Standing::Known { .. }), "{standing:?}");
});

both!(one_address_does_not_take_all_places_to_wait, |s| {
    // As if a thousand were there already.
    s.fleet
        .db()
        .write(|tx| {
            let tenant = s.tenant.id.clone();
            Box::pin(async move {
                for n in 0..1000 {
                    tx.run(
                        "INSERT INTO host (tenant,id,name,serial,uuid,macs,labels,phase,connection,state,rank,reason,\
                         quarantined,drift,compliance,versions,address,boot,status_generation,health,health_reason,\
                         told,acknowledged,refused,ahead,target_mode,since,updated_at,generation,words) \
                         VALUES ($1,$2,$2,'','','[]','{}','pending','never','pending',0,'','[]',0,'unknown','{}',\
                         '10.0.0.1','',0,'','',0,0,'',0,'',0,0,1,'')",
                        fleet::args![tenant.as_str(), format!("flood-{n}")],
                    )
                    .await?;
                }
                Ok(())
            })
        })
        .await
        .unwrap();
    let one = request(&FileKey::generate().unwrap(), "S1");
    let more = s.fleet.enrolment().request(&one, "10.0.0.1").await;
    assert!(matches!(more, Err(Error::Throttled { .. })), "{more:?}");
    let other = s.fleet.enrolment().request(&one, "10.0.0.2").await;
    assert!(matches!(other, Ok(Answer::Waiting(_))), "{other:?}");
});

both!(asking_again_and_again_fills_no_table, |s| {
    s.site("berlin", "").await;
    let mut asked = request(&FileKey::generate().unwrap(), "S1");
    asked.activation_key = Some(key(&s, 1).await);
    let mut last = None;
    for _ in 0..40 {
        last = Some(granted(s.fleet.enrolment().request(&asked, "").await.unwrap()));
        s.later(1);
    }
    let last = last.unwrap();
    let rows = s
        .fleet
        .db()
        .row("SELECT COUNT(*) FROM certificate", vec![])
        .await
        .unwrap();
    assert!(rows.unwrap().int(0) <= 33);
    let verifier = ClientVerifier::new(&s.clock);
    verifier.set_authority(&s.tenant.id, &last.ca).unwrap();
    let newest = verifier.check_expired(&last.certificate).unwrap();
    let standing = s
        .fleet
        .hosts()
        .by_certificate(&newest.tenant, &newest.host, &newest.serial)
        .await
        .unwrap();
    assert!(matches!(standing, Standing::Known { .. }), "{standing:?}");
});

both!(an_expected_machine_is_let_in_once, |s| {
    s.site("berlin", "").await;
    let expected = ExpectedSpec {
        name: "till-1".to_owned(),
        site: "berlin".to_owned(),
        serial: " abc-1 ".to_owned(),
        macs: vec!["52-54-00-00-00-01".to_owned()],
        ..ExpectedSpec::default()
    };
    s.fleet
        .hosts()
        .expect(&s.owner, std::slice::from_ref(&expected))
        .await
        .unwrap();
    let twice = s
        .fleet
        .hosts()
        .expect(&s.owner, std::slice::from_ref(&expected))
        .await;
    assert!(matches!(twice, Err(Error::Conflict { .. })), "{twice:?}");
    // All that is known must fit.
    let mut wrong = request(&FileKey::generate().unwrap(), "ABC-1");
    wrong.macs = vec!["52:54:00:00:00:99".to_owned()];
    assert!(matches!(
        s.fleet.enrolment().request(&wrong, "").await,
        Ok(Answer::Waiting(_))
    ));
    let right = request(&FileKey::generate().unwrap(), "ABC-1");
    let in_ = granted(s.fleet.enrolment().request(&right, "").await.unwrap());
    let host = s.fleet.hosts().get(&s.owner, "till-1").await.unwrap();
    assert_eq!((host.id, host.phase), (in_.host_id, Phase::Enrolled));
    // Another machine that says the same waits for a person.
    let copy = request(&FileKey::generate().unwrap(), "ABC-1");
    assert!(matches!(
        s.fleet.enrolment().request(&copy, "").await,
        Ok(Answer::Waiting(_))
    ));
    // What makers forget to fill in names no machine.
    let filler = ExpectedSpec {
        serial: "To be filled by O.E.M.".to_owned(),
        site: "berlin".to_owned(),
        ..ExpectedSpec::default()
    };
    assert!(matches!(
        s.fleet.hosts().expect(&s.owner, &[filler]).await,
        Err(Error::Invalid { .. })
    ));
});

both!(a_stranger_waits_for_a_persons_word, |s| {
    s.site("berlin", "").await;
    let mine = FileKey::generate().unwrap();
    let Answer::Waiting(waiting) = s
        .fleet
        .enrolment()
        .request(&request(&mine, "S1"), "10.1.1.1")
        .await
        .unwrap()
    else {
        panic!("it is in");
    };
    let pending = s
        .fleet
        .enrolment()
        .pending(&s.owner, &Query::default())
        .await
        .unwrap();
    assert_eq!(
        (pending.items.len(), pending.items[0].host.name.as_str()),
        (1, "node-s1")
    );
    let fingerprint = csr::Csr::parse(&csr::make(&mine).unwrap()).unwrap().fingerprint();
    assert_eq!(pending.items[0].fingerprint, fingerprint);
    let proof = proof::prove_request(&mine, &waiting.request).unwrap();
    assert!(matches!(
        s.fleet.enrolment().poll(&waiting.request, &proof).await,
        Ok(Answer::Waiting(_))
    ));
    // Without the key one learns nothing.
    let forged = proof::prove_request(&FileKey::generate().unwrap(), &waiting.request).unwrap();
    assert!(matches!(
        s.fleet.enrolment().poll(&waiting.request, &forged).await,
        Err(Error::NotFound { .. })
    ));
    let viewer = Caller::user(&s.tenant.id, "v", Role::Viewer, Scope::All);
    assert!(
        s.fleet
            .enrolment()
            .approve(&viewer, "node-s1", "berlin")
            .await
            .is_err()
    );
    let host = s
        .fleet
        .enrolment()
        .approve(&s.owner, "node-s1", "berlin")
        .await
        .unwrap();
    assert_eq!(host.phase, Phase::Enrolled);
    let in_ = granted(s.fleet.enrolment().poll(&waiting.request, &proof).await.unwrap());
    assert_eq!(in_.host_id, host.id);
    assert!(matches!(
        s.fleet.enrolment().approve(&s.owner, "node-s1", "berlin").await,
        Err(Error::Conflict { .. })
    ));
    // With a second tenant a machine that names none is nobody's.
    make_tenant(&s.fleet, "other").await;
    forbidden(
        s.fleet
            .enrolment()
            .request(&request(&FileKey::generate().unwrap(), "S2"), "")
            .await,
    );
});

both!(a_certificate_is_renewed_and_revoked, |s| {
    s.site("berlin", "").await;
    let mine = FileKey::generate().unwrap();
    let mut asked = request(&mine, "S1");
    asked.activation_key = Some(key(&s, 1).await);
    let first = granted(s.fleet.enrolment().request(&asked, "").await.unwrap());
    let verifier = ClientVerifier::new(&s.clock);
    verifier.set_authority(&s.tenant.id, &first.ca).unwrap();
    // A month offline: the certificate has expired, the key still proves who it is.
    s.later(60 * 24 * 3600);
    let peer = verifier.check_expired(&first.certificate).unwrap();
    let new = FileKey::generate().unwrap();
    let renewal = |by: &FileKey| {
        let nonce = s.fleet.enrolment().nonce().unwrap();
        let csr = csr::make(&new).unwrap();
        Renewal {
            proof: proof::prove_renewal(by, &nonce, &csr).unwrap(),
            csr,
            certificate: first.certificate.clone(),
            nonce,
        }
    };
    forbidden(s.fleet.enrolment().renew(&peer, &renewal(&new), "").await);
    let late = renewal(&mine);
    s.later(3600);
    forbidden(s.fleet.enrolment().renew(&peer, &late, "").await);
    let second = s
        .fleet
        .enrolment()
        .renew(&peer, &renewal(&mine), "")
        .await
        .unwrap();
    assert_eq!(second.host_id, first.host_id);
    assert_ne!(second.certificate, first.certificate);
    let peer2 = verifier.check_expired(&second.certificate).unwrap();
    let host = s.fleet.hosts().get(&s.owner, "node-s1").await.unwrap();
    assert_eq!(host.certificate.unwrap().serial, peer2.serial);

    s.fleet.hosts().revoke(&s.owner, "node-s1").await.unwrap();
    forbidden(s.fleet.enrolment().renew(&peer, &renewal(&mine), "").await);
    for peer in [&peer, &peer2] {
        let standing = s
            .fleet
            .hosts()
            .by_certificate(&peer.tenant, &peer.host, &peer.serial)
            .await
            .unwrap();
        assert_eq!(standing, Standing::Revoked);
    }
    assert_eq!(
        s.fleet.hosts().revoked().await.unwrap(),
        [(s.tenant.id.clone(), first.host_id)]
    );
    // Nor does an activation key bring it back.
    let mut back = request(&FileKey::generate().unwrap(), "S1");
    back.activation_key = Some(key(&s, 1).await);
    forbidden(s.fleet.enrolment().request(&back, "").await);
});

both!(among_several_tenants_a_machine_says_whose_it_is, |s| {
    s.site("berlin", "").await;
    let expected = ExpectedSpec {
        site: "berlin".to_owned(),
        serial: "S1".to_owned(),
        ..ExpectedSpec::default()
    };
    s.fleet.hosts().expect(&s.owner, &[expected]).await.unwrap();
    make_tenant(&s.fleet, "other").await;
    let key = FileKey::generate().unwrap();
    let mut request = request(&key, "S1");
    // Another could expect the same serial number, to have the machine.
    forbidden(s.fleet.enrolment().request(&request, "10.0.0.1").await);
    request.tenant = Some("other".to_owned());
    assert!(matches!(
        s.fleet.enrolment().request(&request, "10.0.0.1").await,
        Ok(Answer::Waiting(_))
    ));
    let key = FileKey::generate().unwrap();
    let mut request = crate::enrolment::request(&key, "S1");
    request.tenant = Some("acme".to_owned());
    granted(s.fleet.enrolment().request(&request, "10.0.0.1").await.unwrap());
});
