use apiserver::api::{DeleteOptions, ListOptions, Target};
use kinds::gvr;
use serde_json::json;
use store::Options;

use super::common::*;

fn options(change: impl FnOnce(&mut ListOptions)) -> ListOptions {
    let mut options = ListOptions::default();
    change(&mut options);
    options
}

#[tokio::test]
async fn pages_show_one_revision() {
    let api = api().await;
    for n in 0..5 {
        create(&api, &config_map(&format!("c{n}"), json!({})))
            .await
            .unwrap();
    }
    let gvr = gvr::config_maps();
    let first = api
        .list(&admin(), &gvr, Some("ns"), &options(|o| o.limit = 2))
        .await
        .unwrap();
    assert_eq!((first.items.len(), first.remaining), (2, Some(3)));
    api.delete(&admin(), Target::new(&gvr, "ns", "c3"), &DeleteOptions::default())
        .await
        .unwrap();
    create(&api, &config_map("c9", json!({}))).await.unwrap();
    let next = options(|o| {
        o.limit = 2;
        o.continue_token = first.continue_token.clone().unwrap();
    });
    let second = api.list(&admin(), &gvr, Some("ns"), &next).await.unwrap();
    assert_eq!(second.revision, first.revision);
    let last = options(|o| o.continue_token = second.continue_token.clone().unwrap());
    let last = api.list(&admin(), &gvr, Some("ns"), &last).await.unwrap();
    let seen: Vec<_> = second
        .items
        .iter()
        .chain(&last.items)
        .map(|o| kinds::object::name(o).to_owned())
        .collect();
    assert_eq!(seen, ["c2", "c3", "c4"]);
    assert!(last.continue_token.is_none());
}

#[tokio::test]
async fn selectors_fill_their_pages() {
    let api = api().await;
    for n in 0..20 {
        let mut object = config_map(&format!("c{n:02}"), json!({}));
        object["metadata"]["labels"] = json!({"third": (n % 3).to_string()});
        create(&api, &object).await.unwrap();
    }
    let gvr = gvr::config_maps();
    let mut seen = Vec::new();
    let mut page_options = options(|o| {
        o.limit = 2;
        o.label_selector = "third in (1, 2),third!=2".into();
    });
    loop {
        let page = api.list(&admin(), &gvr, None, &page_options).await.unwrap();
        assert!(page.items.len() <= 2 && page.remaining.is_none());
        seen.extend(page.items.iter().map(|o| kinds::object::name(o).to_owned()));
        match page.continue_token {
            Some(token) => page_options.continue_token = token,
            None => break,
        }
    }
    assert_eq!(seen, ["c01", "c04", "c07", "c10", "c13", "c16", "c19"]);
    for (fields, count) in [
        ("metadata.name=c05", 1),
        ("metadata.name=c05,metadata.namespace=ns", 1),
        ("metadata.name=c05,metadata.namespace=default", 0),
        ("metadata.name=none", 0),
        ("metadata.name!=c05", 19),
        ("metadata.namespace=default", 0),
    ] {
        for namespace in [Some("ns"), None] {
            let list = options(|o| o.field_selector = fields.into());
            let count_in = if namespace.is_some() && fields == "metadata.namespace=default" {
                0
            } else {
                count
            };
            let page = api.list(&admin(), &gvr, namespace, &list).await.unwrap();
            assert_eq!(page.items.len(), count_in, "{fields} {namespace:?}");
            assert!(page.revision > 0);
        }
    }
}

#[tokio::test]
async fn revisions_of_a_list() {
    let api = api().await;
    create(&api, &config_map("a", json!({}))).await.unwrap();
    let then = api.revision();
    create(&api, &config_map("b", json!({}))).await.unwrap();
    let (now, gvr) = (api.revision(), gvr::config_maps());
    // resourceVersion, resourceVersionMatch, limit: names, or the refusal.
    let both: Result<&[&str], u16> = Ok(&["a", "b"]);
    let one: Result<&[&str], u16> = Ok(&["a"]);
    let table = [
        (String::new(), "", 0, both),
        ("0".into(), "", 0, both),
        ("0".into(), "NotOlderThan", 0, both),
        (then.to_string(), "", 0, both),
        (then.to_string(), "NotOlderThan", 0, both),
        (then.to_string(), "NotOlderThan", 10, both),
        (then.to_string(), "", 10, one),
        (then.to_string(), "Exact", 0, one),
        (now.to_string(), "Exact", 0, both),
        ((now + 100).to_string(), "", 0, Err(504)),
        ((now + 100).to_string(), "NotOlderThan", 0, Err(504)),
        ((now + 100).to_string(), "Exact", 0, Err(504)),
        ("0".into(), "Exact", 0, Err(422)),
        (String::new(), "Exact", 0, Err(422)),
        ("x".into(), "", 0, Err(400)),
        (then.to_string(), "Roughly", 0, Err(400)),
    ];
    for (revision, how, limit, expected) in table {
        let list = ListOptions {
            resource_version: revision.clone(),
            resource_version_match: how.into(),
            limit,
            ..ListOptions::default()
        };
        let found = names(&api, &gvr, &list).await.map_err(|status| status.code);
        let expected = expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(found, expected, "{revision:?} {how:?} {limit}");
    }
    let status = names(&api, &gvr, &options(|o| o.resource_version = "999".into()))
        .await
        .unwrap_err();
    assert_eq!(status.details["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_page_whose_revision_is_gone_comes_with_a_token_to_go_on() {
    let api = api_with(Options {
        history_count: 8,
        ..Options::default()
    });
    api.ensure_namespaces(&["ns"]).await.unwrap();
    for n in 0..4 {
        create(&api, &config_map(&format!("c{n}"), json!({})))
            .await
            .unwrap();
    }
    let gvr = gvr::config_maps();
    let first = api
        .list(&admin(), &gvr, Some("ns"), &options(|o| o.limit = 2))
        .await
        .unwrap();
    for n in 0..40 {
        create(&api, &config_map(&format!("d{n}"), json!({})))
            .await
            .unwrap();
    }
    let next = options(|o| o.continue_token = first.continue_token.clone().unwrap());
    let status = api.list(&admin(), &gvr, Some("ns"), &next).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(
        status
            .message
            .starts_with("The provided continue parameter is too old to display a consistent list result.")
    );
    let on = options(|o| o.continue_token = status.continue_token.clone().unwrap());
    assert_eq!(
        status.to_value()["metadata"]["continue"],
        on.continue_token.as_str()
    );
    let rest = api.list(&admin(), &gvr, Some("ns"), &on).await.unwrap();
    assert_eq!(rest.items.len(), 42);
    let old = options(|o| {
        o.resource_version = first.revision.to_string();
        o.resource_version_match = "Exact".into();
    });
    let status = api.list(&admin(), &gvr, None, &old).await.unwrap_err();
    assert_eq!(
        (status.code, status.message.as_str()),
        (410, "The resourceVersion for the provided list is too old.")
    );
    assert!(status.continue_token.is_none());
}

#[tokio::test]
async fn tokens_that_make_no_sense() {
    let api = api().await;
    let gvr = gvr::config_maps();
    for (token, revision, how, code) in [("???", "", "", 400), ("e30", "", "", 400)] {
        let list = ListOptions {
            continue_token: token.into(),
            resource_version: revision.to_owned(),
            resource_version_match: String::from(how),
            ..ListOptions::default()
        };
        assert_eq!(names(&api, &gvr, &list).await.unwrap_err().code, code);
    }
    create(&api, &config_map("a", json!({}))).await.unwrap();
    create(&api, &config_map("b", json!({}))).await.unwrap();
    let token = api
        .list(&admin(), &gvr, None, &options(|o| o.limit = 1))
        .await
        .unwrap()
        .continue_token
        .unwrap();
    for (revision, how, code) in [("5", "", 400), ("", "Exact", 422)] {
        let list = ListOptions {
            continue_token: token.clone(),
            resource_version: revision.into(),
            resource_version_match: how.into(),
            ..ListOptions::default()
        };
        assert_eq!(names(&api, &gvr, &list).await.unwrap_err().code, code);
    }
    assert_eq!(
        names(&api, &gvr, &options(|o| o.label_selector = "a in (".into()))
            .await
            .unwrap_err()
            .code,
        400
    );
}

#[tokio::test]
async fn raw_lists_are_what_is_stored() {
    let api = api().await;
    let made = create(&api, &machine("vm")).await.unwrap().object;
    let gvr = gvr::virtual_machines();
    let raw = api
        .list_raw(
            &admin(),
            &gvr,
            None,
            &options(|o| o.field_selector = "spec.className=small".into()),
        )
        .await
        .unwrap();
    assert_eq!(raw.items.len(), 1);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&raw.items[0]).unwrap(),
        made
    );
    let one = api
        .get_raw(&admin(), Target::new(&gvr, "ns", "vm"))
        .await
        .unwrap();
    assert_eq!(one, raw.items[0]);
}
