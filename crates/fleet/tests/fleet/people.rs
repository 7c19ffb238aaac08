//! Signing in, second factors, sessions, tokens.

use fleet::model::{BindingSpec, TokenSpec, UserKind, UserSpec};
use fleet::{Error, Query, Role, Scope};
use serde_json::json;

use crate::support::both;

fn user(name: &str) -> UserSpec {
    UserSpec {
        username: name.to_owned(),
        display_name: String::new(),
        email: String::new(),
        kind: UserKind::Local,
        disabled: false,
        platform_admin: false,
        password: Some("correct horse battery".to_owned()),
    }
}

const RIGHT: &str = "correct horse battery";

both!(a_person_signs_in_and_out, |s| {
    let people = s.fleet.people();
    people.create(&s.owner, &user("ada")).await.unwrap();
    let binding = BindingSpec {
        user: "ada".to_owned(),
        role: Role::Owner,
        scope: Scope::All,
    };
    s.fleet.bindings().create(&s.owner, &binding).await.unwrap();

    let wrong = people
        .sign_in(Some("acme"), "ada", "wrong horse", None, "10.0.0.1")
        .await;
    assert!(matches!(wrong, Err(Error::Unauthenticated)));
    let nobody = people.sign_in(None, "bob", RIGHT, None, "10.0.0.1").await;
    assert!(matches!(nobody, Err(Error::Unauthenticated)));
    let person = people
        .sign_in(None, "ada", RIGHT, None, "10.0.0.1")
        .await
        .unwrap();
    assert_eq!(person.tenant.name, "acme");
    assert_eq!(person.user.bindings.len(), 1);

    let new = s.fleet.sessions().create(&person, "10.0.0.1").await.unwrap();
    let session = s.fleet.sessions().find(&new.secret).await.unwrap().unwrap();
    assert_eq!(session.csrf, new.csrf);
    let caller = s
        .fleet
        .sessions()
        .caller(&session, &s.tenant.id, "10.0.0.1")
        .await
        .unwrap();
    assert_eq!(caller.role(), Some(Role::Owner));
    // In another tenant they are nobody, and it is not there for them.
    let elsewhere = s.fleet.sessions().caller(&session, "other", "").await;
    assert!(matches!(elsewhere, Err(Error::NotFound { .. })), "{elsewhere:?}");
    let admin = fleet::people::Session {
        platform_admin: true,
        ..session.clone()
    };
    let elsewhere = s.fleet.sessions().caller(&admin, "other", "").await.unwrap();
    assert_eq!(elsewhere.role_anywhere(), None);

    // A new password ends all sessions; so does time.
    people
        .set_own_password(&caller, RIGHT, "another fine one")
        .await
        .unwrap();
    assert!(s.fleet.sessions().find(&new.secret).await.unwrap().is_none());
    let person = people
        .sign_in(None, "ada", "another fine one", None, "")
        .await
        .unwrap();
    let new = s.fleet.sessions().create(&person, "").await.unwrap();
    s.later(12 * 3600 + 1);
    assert!(s.fleet.sessions().find(&new.secret).await.unwrap().is_none());

    // Nobody can take the last owner away.
    let gone = people.delete(&s.owner, "ada", None).await;
    assert!(matches!(gone, Err(Error::Conflict { .. })), "{gone:?}");
    let off = people
        .update(&s.owner, "ada", None, &json!({"disabled": true}))
        .await;
    assert!(matches!(off, Err(Error::Conflict { .. })), "{off:?}");
});

both!(tries_are_slowed_down, |s| {
    let people = s.fleet.people();
    people.create(&s.owner, &user("ada")).await.unwrap();
    let mut throttled = 0;
    for _ in 0..12 {
        match people
            .sign_in(None, "ada", "guess number x", None, "10.0.0.9")
            .await
        {
            Err(Error::Throttled { retry_after }) => {
                assert!(retry_after > 0);
                throttled += 1;
            }
            Err(Error::Unauthenticated) => {}
            other => panic!("{other:?}"),
        }
    }
    // The clock stands: five are free, the sixth makes the rest wait.
    assert_eq!(throttled, 6);
    // Right now even the right password waits from there, but not from elsewhere.
    let there = people.sign_in(None, "ada", RIGHT, None, "10.0.0.9").await;
    assert!(matches!(there, Err(Error::Throttled { .. })));
    people
        .sign_in(None, "ada", RIGHT, None, "10.0.0.8")
        .await
        .unwrap();
    s.later(3);
    people
        .sign_in(None, "ada", RIGHT, None, "10.0.0.9")
        .await
        .unwrap();
    s.later(7200);
    people.forget_tries().await.unwrap();
    let left = s
        .fleet
        .db()
        .row("SELECT COUNT(*) FROM throttle", vec![])
        .await
        .unwrap();
    assert_eq!(left.unwrap().int(0), 0);
});

both!(a_code_counts_once, |s| {
    let people = s.fleet.people();
    people.create(&s.owner, &user("ada")).await.unwrap();
    let ada = fleet::Caller::user(&s.tenant.id, "ada", Role::Viewer, Scope::All);
    let start = people.start_totp(&ada).await.unwrap();
    assert!(start.url.starts_with("otpauth://totp/Selvedge:ada?secret="));
    let secret = totp_rs::Secret::try_from_base32(&start.secret).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let code = |offset: u64| {
        let now = u64::try_from(s.clock.now().as_second()).unwrap();
        totp.generate(now + offset).to_string()
    };
    // Begun only: not asked for yet.
    people.sign_in(None, "ada", RIGHT, None, "a").await.unwrap();
    assert!(people.confirm_totp(&ada, "000000").await.is_err());
    people.confirm_totp(&ada, &code(0)).await.unwrap();

    let without = people.sign_in(None, "ada", RIGHT, None, "a").await;
    assert!(matches!(without, Err(Error::SecondFactor)));
    // The code that confirmed it was used.
    let replayed = people.sign_in(None, "ada", RIGHT, Some(&code(0)), "a").await;
    assert!(matches!(replayed, Err(Error::Unauthenticated)));
    s.later(30);
    let now = code(0);
    people.sign_in(None, "ada", RIGHT, Some(&now), "a").await.unwrap();
    let replayed = people.sign_in(None, "ada", RIGHT, Some(&now), "b").await;
    assert!(matches!(replayed, Err(Error::Unauthenticated)));
    s.later(30);
    // A clock that is one step ahead is let in, two is not.
    let far = people.sign_in(None, "ada", RIGHT, Some(&code(60)), "c").await;
    assert!(matches!(far, Err(Error::Unauthenticated)));
    people
        .sign_in(None, "ada", RIGHT, Some(&code(30)), "c")
        .await
        .unwrap();

    people.remove_totp(&s.owner, "ada").await.unwrap();
    people.sign_in(None, "ada", RIGHT, None, "d").await.unwrap();
});

both!(tokens_work_until_they_end, |s| {
    let tokens = s.fleet.tokens();
    let spec = TokenSpec {
        name: "ci".to_owned(),
        role: Role::Operator,
        scope: Scope::Site("berlin".to_owned()),
        expires_at: Some(fleet::model::Time::from(s.clock.now()).plus_seconds(3600)),
    };
    let made = tokens.create(&s.owner, &spec).await.unwrap();
    let secret = made.secret.unwrap();
    assert_eq!(secret.len(), 47);
    let caller = tokens.authenticate(&secret, "10.0.0.1").await.unwrap();
    assert_eq!(
        (caller.tenant.as_str(), caller.actor.as_str()),
        (s.tenant.id.as_str(), "ci")
    );
    assert_eq!(caller.role(), None);
    assert_eq!(
        caller.role_at("berlin", &fleet::model::Map::new()),
        Some(Role::Operator)
    );
    let shown = tokens.get(&s.owner, "ci").await.unwrap();
    assert!(shown.secret.is_none() && shown.last_used_at.is_some());
    assert!(matches!(
        tokens.authenticate("slv_wrong", "").await,
        Err(Error::Unauthenticated)
    ));
    assert!(matches!(
        tokens.create(&s.owner, &spec).await,
        Err(Error::Conflict { .. })
    ));
    s.later(3601);
    assert!(matches!(
        tokens.authenticate(&secret, "").await,
        Err(Error::Unauthenticated)
    ));

    let forever = TokenSpec {
        name: "other".to_owned(),
        expires_at: None,
        ..spec
    };
    let secret = tokens.create(&s.owner, &forever).await.unwrap().secret.unwrap();
    tokens.delete(&s.owner, "other").await.unwrap();
    assert!(matches!(
        tokens.authenticate(&secret, "").await,
        Err(Error::Unauthenticated)
    ));
    assert_eq!(
        tokens
            .list(&s.owner, &Query::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
});

both!(a_network_is_one_stranger_and_an_open_session_no_oracle, |s| {
    let people = s.fleet.people();
    people.create(&s.owner, &user("ada")).await.unwrap();
    // A line has 2^64 addresses of IPv6.
    let mut slowed = false;
    for n in 0..40 {
        let from = format!("2001:db8::{n:x}");
        let tried = people
            .sign_in(None, &format!("nobody{n}"), "wrong horse", None, &from)
            .await;
        slowed |= matches!(tried, Err(Error::Throttled { .. }));
    }
    assert!(slowed);
    let elsewhere = people.sign_in(None, "ada", RIGHT, None, "2001:db8:0:1::1").await;
    assert!(elsewhere.is_ok(), "{elsewhere:?}");

    let ada = fleet::Caller::user(&s.tenant.id, "ada", Role::Viewer, Scope::All);
    let new = "another horse battery";
    let mut slowed = false;
    for _ in 0..8 {
        let tried = people.set_own_password(&ada, "wrong horse", new).await;
        slowed |= matches!(tried, Err(Error::Throttled { .. }));
    }
    assert!(slowed);
    s.later(901);
    people.set_own_password(&ada, RIGHT, new).await.unwrap();
});

both!(a_provider_vouches_for_a_person, |s| {
    let mut who = fleet::people::OidcPerson {
        issuer: "https://id.example".to_owned(),
        subject: "42".to_owned(),
        username: "grace@example.com".to_owned(),
        email: "grace@example.com".to_owned(),
        display_name: "Grace".to_owned(),
        admitted: false,
    };
    let people = s.fleet.people();
    let nobody = people.sign_in_oidc(&s.tenant.id, &who, "").await;
    assert!(matches!(nobody, Err(Error::Forbidden { .. })));
    who.admitted = true;
    let first = people.sign_in_oidc(&s.tenant.id, &who, "").await.unwrap();
    let again = people.sign_in_oidc(&s.tenant.id, &who, "").await.unwrap();
    assert_eq!(first.user.id, again.user.id);
    assert!(first.user.bindings.is_empty());
    // No password opens it.
    let local = people.sign_in(None, "grace@example.com", "", None, "").await;
    assert!(matches!(local, Err(Error::Unauthenticated)));
    people
        .update(&s.owner, "grace@example.com", None, &json!({"disabled": true}))
        .await
        .unwrap();
    let off = people.sign_in_oidc(&s.tenant.id, &who, "").await;
    assert!(matches!(off, Err(Error::Unauthenticated)));
});

both!(a_new_password_from_the_command_line_takes_no_rights_away, |s| {
    let people = s.fleet.people();
    let first = people
        .make_owner(&s.tenant.id, "root", "a first long password", true)
        .await
        .unwrap();
    assert!(first.platform_admin);
    let again = people
        .make_owner(&s.tenant.id, "root", "a second long password", false)
        .await
        .unwrap();
    assert!(again.platform_admin);
});
