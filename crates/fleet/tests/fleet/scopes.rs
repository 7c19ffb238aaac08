//! Tenants are apart, and so are the parts of a tenant.

use fleet::model::{
    ActivationKeySpec, BindingSpec, ExpectedSpec, RepositorySpec, TokenSpec, UserKind, UserSpec,
};
use fleet::{Caller, Error, Query, Role, Scope, Selector};
use serde_json::json;

use crate::support::{both, make_tenant};

fn is_hidden<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::NotFound { .. })),
        "{what}: {result:?}"
    );
}

both!(a_name_with_a_nul_is_nobodys, |s| {
    let f = &s.fleet;
    let nul = "a\0b";
    is_hidden("site", f.sites().get(&s.owner, nul).await);
    is_hidden("host", f.hosts().get(&s.owner, nul).await);
    is_hidden("repository", f.repositories().get(&s.owner, nul).await);
    is_hidden("user", f.people().get(&s.owner, nul).await);
    assert!(f.tenants().find(nul).await.unwrap().is_none());
    let nobody = f.people().sign_in(Some(nul), nul, "secret", None, nul).await;
    assert!(matches!(nobody, Err(Error::Unauthenticated)), "{nobody:?}");
    for (site, state) in [(Some("\0"), None), (None, Some("\0"))] {
        let query = Query {
            site: site.map(str::to_owned),
            state: state.map(str::to_owned),
            ..Query::default()
        };
        assert_eq!(f.hosts().list(&s.owner, &query).await.unwrap().total, 0);
    }
    let odd = Caller::user(&s.tenant.id, "odd", Role::Viewer, Scope::Site(nul.to_owned()));
    assert_eq!(f.sites().list(&odd, &Query::default()).await.unwrap().total, 0);
    // Nor is a token with a line break one: it would put a header of its own into our requests.
    let mut spec = RepositorySpec {
        name: "shops".to_owned(),
        url: "https://git.example/x".to_owned(),
        auth: fleet::model::RepositoryAuth::Bearer,
        ..RepositorySpec::default()
    };
    spec.credentials = Some(fleet::model::Credentials {
        bearer: "x\r\nMetadata-Flavor: y".to_owned(),
        ..fleet::model::Credentials::default()
    });
    let refused = f.repositories().create(&s.owner, &spec).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
});

both!(another_tenants_objects_are_not_there, |s| {
    let f = &s.fleet;
    let other = make_tenant(f, "other").await;
    let eve = &Caller::user(&other.id, "eve", Role::Owner, Scope::All);
    let user = UserSpec {
        username: "bob".to_owned(),
        display_name: String::new(),
        email: String::new(),
        kind: UserKind::Local,
        disabled: false,
        platform_admin: false,
        password: None,
    };
    let user = f.people().create(&s.owner, &user).await.unwrap();
    let binding = BindingSpec {
        user: "bob".to_owned(),
        role: Role::Viewer,
        scope: Scope::All,
    };
    let binding = f.bindings().create(&s.owner, &binding).await.unwrap();
    let token = TokenSpec {
        name: "ci".to_owned(),
        role: Role::Viewer,
        scope: Scope::All,
        expires_at: None,
    };
    let token = f.tokens().create(&s.owner, &token).await.unwrap();
    let repository = RepositorySpec {
        name: "shops".to_owned(),
        url: "https://git.example/x".to_owned(),
        ..RepositorySpec::default()
    };
    let repository = f.repositories().create(&s.owner, &repository).await.unwrap();
    let site = s.site("berlin", "").await;
    let host = ExpectedSpec {
        site: "berlin".to_owned(),
        serial: "S1".to_owned(),
        ..ExpectedSpec::default()
    };
    let host = f.hosts().expect(&s.owner, &[host]).await.unwrap().remove(0);
    let key = f
        .keys()
        .create(&s.owner, &ActivationKeySpec::default())
        .await
        .unwrap();
    let patch = &json!({"displayName": "mine"});
    let nothing = &json!({});

    is_hidden("tenant", f.tenants().get(eve, "acme").await);
    is_hidden("tenant", f.tenants().update(eve, &s.tenant.id, None, patch).await);
    is_hidden("user", f.people().get(eve, &user.id).await);
    is_hidden("user", f.people().update(eve, &user.id, None, patch).await);
    is_hidden("user", f.people().delete(eve, &user.id, None).await);
    is_hidden("user", f.people().remove_totp(eve, &user.id).await);
    is_hidden("binding", f.bindings().get(eve, &binding.id).await);
    is_hidden(
        "binding",
        f.bindings()
            .update(eve, &binding.id, None, &json!({"role": "owner"}))
            .await,
    );
    is_hidden("binding", f.bindings().delete(eve, &binding.id, None).await);
    is_hidden("token", f.tokens().get(eve, &token.id).await);
    is_hidden("token", f.tokens().delete(eve, &token.id).await);
    is_hidden("repository", f.repositories().get(eve, &repository.id).await);
    is_hidden(
        "repository",
        f.repositories().update(eve, &repository.id, None, nothing).await,
    );
    is_hidden(
        "repository",
        f.repositories().delete(eve, &repository.id, None).await,
    );
    is_hidden(
        "repository",
        f.repositories().rotate_webhook(eve, &repository.id).await,
    );
    is_hidden("site", f.sites().get(eve, &site.id).await);
    is_hidden("site", f.sites().update(eve, &site.id, None, patch).await);
    is_hidden("site", f.sites().delete(eve, &site.id, None).await);
    is_hidden("site", f.sites().events(eve, &site.id, 10).await);
    is_hidden("host", f.hosts().get(eve, &host.id).await);
    is_hidden("host", f.hosts().update(eve, &host.id, None, nothing).await);
    is_hidden("host", f.hosts().delete(eve, &host.id, None).await);
    is_hidden("host", f.hosts().revoke(eve, &host.id).await);
    is_hidden("host", f.hosts().events(eve, &host.id, 10).await);
    is_hidden("host", f.hosts().require(eve, Role::Viewer, &host.id).await);
    is_hidden(
        "host",
        f.usage()
            .of(eve, &host.id, fleet::model::Time::from_millis(0), true)
            .await,
    );
    is_hidden("key", f.keys().get(eve, &key.id).await);
    is_hidden("key", f.keys().delete(eve, &key.id).await);
    // Nor can what is theirs be used as a part of something.
    let mine = fleet::model::SiteSpec {
        name: "mine".to_owned(),
        repository: Some(repository.id.clone()),
        ..fleet::model::SiteSpec::default()
    };
    assert!(matches!(
        f.sites().create(eve, &mine).await,
        Err(Error::Invalid { .. })
    ));
    let binding = BindingSpec {
        user: user.id.clone(),
        role: Role::Owner,
        scope: Scope::All,
    };
    assert!(matches!(
        f.bindings().create(eve, &binding).await,
        Err(Error::Invalid { .. })
    ));
    let all = &Query::default();
    assert_eq!(f.sites().list(eve, all).await.unwrap().total, 0);
    assert_eq!(f.hosts().list(eve, all).await.unwrap().total, 0);
    assert_eq!(f.repositories().list(eve, all).await.unwrap().total, 0);
    assert_eq!(f.people().list(eve, all).await.unwrap().total, 0);
    assert_eq!(f.audit().list(eve, all).await.unwrap().total, 1);
    assert_eq!(f.overview(eve).await.unwrap().sites.total, 0);

    // A tenant that goes takes its own along and nothing else.
    f.tenants()
        .delete(&Caller::system("", "test"), "other", None)
        .await
        .unwrap();
    assert!(f.sites().get(&s.owner, "berlin").await.is_ok());
    assert!(f.tenants().find("other").await.unwrap().is_none());
});

both!(a_scope_holds_in_every_room, |s| {
    s.site("berlin", "region=eu,tier=prod").await;
    s.site("paris", "region=eu,tier=lab").await;
    s.site("tokyo", "region=asia").await;
    let f = &s.fleet;
    for (site, serial) in [("berlin", "B1"), ("paris", "P1"), ("tokyo", "T1")] {
        let host = ExpectedSpec {
            name: format!("host-{site}"),
            site: site.to_owned(),
            serial: serial.to_owned(),
            ..ExpectedSpec::default()
        };
        f.hosts().expect(&s.owner, &[host]).await.unwrap();
    }
    let selector = Selector::parse("region=eu,tier!=lab").unwrap();
    let tenant = &s.tenant.id;
    let operator = &Caller::user(tenant, "olga", Role::Operator, Scope::Selector(selector));
    let viewer = &Caller::user(tenant, "vic", Role::Viewer, Scope::Site("paris".to_owned()));
    let names = |caller: Caller| async move {
        let page = f.sites().list(&caller, &Query::default()).await.unwrap();
        page.items.into_iter().map(|site| site.name).collect::<Vec<_>>()
    };
    assert_eq!(names(operator.clone()).await, ["berlin"]);
    assert_eq!(names(viewer.clone()).await, ["paris"]);
    let hosts = f.hosts().list(operator, &Query::default()).await.unwrap();
    assert_eq!((hosts.total, hosts.items[0].name.as_str()), (1, "host-berlin"));
    assert_eq!(f.overview(operator).await.unwrap().sites.total, 1);

    is_hidden("get", f.sites().get(operator, "tokyo").await);
    is_hidden(
        "update",
        f.sites()
            .update(operator, "tokyo", None, &json!({"path": "x"}))
            .await,
    );
    is_hidden("host", f.hosts().get(operator, "host-tokyo").await);
    is_hidden(
        "host",
        f.hosts().update(operator, "host-paris", None, &json!({})).await,
    );
    f.sites()
        .update(operator, "berlin", None, &json!({"path": "x"}))
        .await
        .unwrap();
    // What they may touch they may not move out of their sight, nor others' in.
    let out = f
        .sites()
        .update(operator, "berlin", None, &json!({"labels": {"tier": "lab"}}))
        .await;
    assert!(matches!(out, Err(Error::Denied { .. })), "{out:?}");
    let away = f
        .hosts()
        .update(operator, "host-berlin", None, &json!({"site": "tokyo"}))
        .await;
    assert!(matches!(away, Err(Error::Invalid { .. })), "{away:?}");
    let free = f
        .hosts()
        .update(operator, "host-berlin", None, &json!({"site": null}))
        .await;
    assert!(matches!(free, Err(Error::Denied { .. })), "{free:?}");
    // A viewer changes nothing, and who is bound to a part does not run the tenant.
    let no = f
        .sites()
        .update(viewer, "paris", None, &json!({"path": "x"}))
        .await;
    assert!(
        matches!(no, Err(Error::Denied { need: Role::Operator })),
        "{no:?}"
    );
    let no = f.sites().delete(operator, "berlin", None).await;
    assert!(matches!(no, Err(Error::Denied { need: Role::Owner })), "{no:?}");
    let no = f.people().list(operator, &Query::default()).await;
    assert!(matches!(no, Err(Error::Denied { .. })), "{no:?}");
    let no = f.audit().list(operator, &Query::default()).await;
    assert!(matches!(no, Err(Error::Denied { .. })), "{no:?}");
    let no = f
        .tokens()
        .list(
            &Caller::user(tenant, "o", Role::Operator, Scope::All),
            &Query::default(),
        )
        .await;
    assert!(matches!(no, Err(Error::Denied { need: Role::Owner })), "{no:?}");
    // Nobody at all sees nothing.
    let nobody = &Caller {
        grants: Vec::new(),
        ..viewer.clone()
    };
    assert_eq!(f.sites().list(nobody, &Query::default()).await.unwrap().total, 0);
    assert_eq!(f.hosts().list(nobody, &Query::default()).await.unwrap().total, 0);
    assert!(f.overview(nobody).await.is_err());

    // A binding to one site ends with it: a later site of that name does not inherit it.
    let spec = TokenSpec {
        name: "paris-only".to_owned(),
        role: Role::Viewer,
        scope: Scope::Site("paris".to_owned()),
        expires_at: None,
    };
    let secret = f.tokens().create(&s.owner, &spec).await.unwrap().secret.unwrap();
    f.hosts().delete(&s.owner, "host-paris", None).await.unwrap();
    f.sites().delete(&s.owner, "paris", None).await.unwrap();
    assert!(f.tokens().authenticate(&secret, "").await.is_err());
});
