//! The audit log: complete, without secrets, and a chain that shows tampering.

use fleet::model::{Credentials, RepositoryAuth, RepositorySpec, UserKind, UserSpec};
use fleet::{Query, args};
use serde_json::json;

use crate::support::both;

both!(tampering_shows, |s| {
    for n in 0..5 {
        s.site(&format!("site-{n}"), "region=eu").await;
    }
    let whole = s.fleet.audit().verify(&s.owner).await.unwrap();
    assert_eq!((whole.lines, whole.broken_at), (6, None));
    let tenant = s.tenant.id.as_str();
    let run = |sql: &'static str| {
        let db = s.fleet.db().clone();
        let tenant = tenant.to_owned();
        async move {
            let tenant = tenant.as_str();
            db.write(|tx| Box::pin(async move { tx.run(sql, args![tenant]).await }))
                .await
                .unwrap();
        }
    };
    run("UPDATE audit SET actor='eve' WHERE tenant=$1 AND seq=3").await;
    assert_eq!(s.fleet.audit().verify(&s.owner).await.unwrap().broken_at, Some(3));
    run("UPDATE audit SET actor='ada' WHERE tenant=$1 AND seq=3").await;
    assert_eq!(s.fleet.audit().verify(&s.owner).await.unwrap().broken_at, None);
    run("DELETE FROM audit WHERE tenant=$1 AND seq=6").await;
    assert_eq!(s.fleet.audit().verify(&s.owner).await.unwrap().broken_at, Some(6));
    run("DELETE FROM audit WHERE tenant=$1 AND seq=2").await;
    assert_eq!(s.fleet.audit().verify(&s.owner).await.unwrap().broken_at, Some(2));
});

both!(no_secret_is_stored_in_the_open, |s| {
    const SECRET: &str = "hunter2-hunter2-hunter2";
    let user = UserSpec {
        username: "bob".to_owned(),
        display_name: String::new(),
        email: String::new(),
        kind: UserKind::Local,
        disabled: false,
        platform_admin: false,
        password: Some(SECRET.to_owned()),
    };
    s.fleet.people().create(&s.owner, &user).await.unwrap();
    let repository = RepositorySpec {
        name: "shops".to_owned(),
        url: "https://git.example/shops.git".to_owned(),
        auth: RepositoryAuth::Basic,
        credentials: Some(Credentials {
            username: "robot".to_owned(),
            password: SECRET.to_owned(),
            ..Credentials::default()
        }),
        ..RepositorySpec::default()
    };
    let made = s
        .fleet
        .repositories()
        .create(&s.owner, &repository)
        .await
        .unwrap();
    assert!(made.has_credentials);
    let again = json!({"credentials": {"username": "robot", "password": SECRET}});
    s.fleet
        .repositories()
        .update(&s.owner, "shops", None, &again)
        .await
        .unwrap();
    s.site("berlin", "").await;
    let patch = json!({"secretVariables": {"WIFI": SECRET, "OTHER": SECRET}});
    let site = s
        .fleet
        .sites()
        .update(&s.owner, "berlin", None, &patch)
        .await
        .unwrap();
    assert_eq!(site.secret_variables, ["OTHER", "WIFI"]);
    let patch = json!({"secretVariables": {"OTHER": null}});
    let site = s
        .fleet
        .sites()
        .update(&s.owner, "berlin", None, &patch)
        .await
        .unwrap();
    assert_eq!(site.secret_variables, ["WIFI"]);
    let token = fleet::model::TokenSpec {
        name: "ci".to_owned(),
        role: fleet::Role::Viewer,
        scope: fleet::Scope::All,
        expires_at: None,
    };
    let token = s
        .fleet
        .tokens()
        .create(&s.owner, &token)
        .await
        .unwrap()
        .secret
        .unwrap();
    let key = s
        .fleet
        .keys()
        .create(&s.owner, &fleet::model::ActivationKeySpec::default())
        .await
        .unwrap();
    let key = key.key.unwrap();

    // Whatever is in the database, in any table.
    let mut dump = Vec::new();
    fleet::db::backup::write(s.fleet.db(), &mut dump).await.unwrap();
    let dump = String::from_utf8(dump).unwrap();
    for secret in [SECRET, &token, &key] {
        assert!(!dump.contains(secret));
    }
    let log = s.fleet.audit().list(&s.owner, &Query::default()).await.unwrap();
    let actions: Vec<_> = log.items.iter().rev().map(|line| line.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "tenant.create",
            "user.create",
            "repository.create",
            "repository.update",
            "repository.credentials",
            "site.create",
            "site.update",
            "site.secrets",
            "site.update",
            "site.secrets",
            "token.create",
            "activationKey.create"
        ]
    );
    let exported = s.fleet.audit().export(&s.owner, 10, 100).await.unwrap();
    assert_eq!(exported.iter().map(|line| line.seq).collect::<Vec<_>>(), [11, 12]);
});
