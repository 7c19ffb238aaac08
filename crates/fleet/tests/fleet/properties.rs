//! Parsers of foreign text, and the two ways a selector is looked at.

use fleet::model::{Map, SiteSpec};
use fleet::{Query, Role, Scope, Selector};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use crate::support::{On, Setup, both};

fn term() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["a", "b", "c", "x.io/d"]);
    let value = prop::sample::select(vec!["1", "2", "3", ""]);
    (key, prop::collection::vec(value, 1..4), 0..7_u8).prop_map(|(key, values, kind)| {
        let first = values[0];
        let all = values.join(",");
        match kind {
            0 => format!("{key}={first}"),
            1 => format!("{key}=={first}"),
            2 => format!("{key}!={first}"),
            3 => format!("{key} in ({all})"),
            4 => format!("{key} notin ({all})"),
            5 => key.to_owned(),
            _ => format!("!{key}"),
        }
    })
}

fn labels() -> impl Strategy<Value = Map> {
    let key = prop::sample::select(vec!["a", "b", "c", "x.io/d"]).prop_map(str::to_owned);
    let value = prop::sample::select(vec!["1", "2", "3", ""]).prop_map(str::to_owned);
    prop::collection::btree_map(key, value, 0..4)
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}|[a-z=!,() in]{0,40}") {
        if let Ok(selector) = Selector::parse(&text) {
            // What was read is written so that it reads the same.
            let again = Selector::parse(&selector.to_string()).unwrap();
            prop_assert_eq!(again, selector);
        }
    }

    #[test]
    fn a_selector_reads_as_it_is_written(terms in prop::collection::vec(term(), 0..5), labels in labels()) {
        let selector = Selector::parse(&terms.join(",")).unwrap();
        let again = Selector::parse(&selector.to_string()).unwrap();
        prop_assert_eq!(selector.matches(&labels), again.matches(&labels));
        let each = terms.iter().all(|term| Selector::parse(term).unwrap().matches(&labels));
        prop_assert_eq!(selector.matches(&labels), each);
    }

    #[test]
    fn a_scope_reads_as_it_is_written(terms in prop::collection::vec(term(), 0..3), site in "[a-z]{1,8}") {
        let selector = Selector::parse(&terms.join(",")).unwrap();
        for scope in [Scope::All, Scope::Site(site), Scope::Selector(selector)] {
            let text = serde_json::to_string(&scope).unwrap();
            prop_assert_eq!(serde_json::from_str::<Scope>(&text).unwrap(), scope);
        }
    }
}

both!(the_database_selects_what_memory_does, |s| {
    let mut made = Vec::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for n in 0..24 {
        let labels = labels().new_tree(&mut runner).unwrap().current();
        let spec = SiteSpec {
            name: format!("s{n:02}"),
            labels: labels.clone(),
            ..SiteSpec::default()
        };
        s.fleet.sites().create(&s.owner, &spec).await.unwrap();
        made.push((spec.name, labels));
    }
    for _ in 0..150 {
        let terms = prop::collection::vec(term(), 1..4)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let text = terms.join(",");
        let selector = Selector::parse(&text).unwrap();
        let expected: Vec<&str> = made
            .iter()
            .filter(|(_, labels)| selector.matches(labels))
            .map(|(name, _)| name.as_str())
            .collect();
        let query = Query {
            selector: Some(text.clone()),
            ..Query::default()
        };
        let page = s.fleet.sites().list(&s.owner, &query).await.unwrap();
        let listed: Vec<_> = page.items.iter().map(|site| site.name.as_str()).collect();
        assert_eq!(listed, expected, "{text}");
        // As a scope it shows the same.
        let caller = fleet::Caller::user(&s.tenant.id, "x", Role::Viewer, Scope::Selector(selector));
        let page = s.fleet.sites().list(&caller, &Query::default()).await.unwrap();
        let listed: Vec<_> = page.items.iter().map(|site| site.name.as_str()).collect();
        assert_eq!(listed, expected, "{text}");
    }
});

#[test]
fn any_cursor_is_refused_or_harmless() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for on in [On::Sqlite, On::Postgres] {
        let s = runtime.block_on(Setup::new(on));
        runtime.block_on(async {
            for n in 0..3 {
                s.site(&format!("s{n}"), "").await;
            }
        });
        let json =
            r#"\{"s":"(name|state)","(t|n)":("[a-z\\\\u0]{0,4}"|-?[0-9]{1,21}),"i":"[a-z0-9\\\\u]{0,8}"\}"#;
        let strategy = prop_oneof![
            "\\PC{0,60}".prop_map(|text: String| text),
            json.prop_map(|text: String| {
                use base64::Engine as _;
                base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
            }),
        ];
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
        runner
            .run(&strategy, |cursor| {
                let query = Query {
                    cursor: Some(cursor),
                    ..Query::default()
                };
                let page = runtime.block_on(s.fleet.sites().list(&s.owner, &query));
                match page {
                    Ok(_) | Err(fleet::Error::Invalid { .. }) => Ok(()),
                    Err(other) => Err(TestCaseError::fail(format!("{other:?}"))),
                }
            })
            .unwrap();
    }
}

both!(foreign_text_never_breaks_a_list, |s| {
    s.site("berlin", "").await;
    for text in [
        "\0",
        "'",
        "\"; DROP TABLE site; --",
        "%",
        "_",
        "\\",
        "a\u{1F600}",
        "$1",
        &"x".repeat(300),
    ] {
        let query = Query {
            q: Some(text.to_owned()),
            ..Query::default()
        };
        for result in [
            s.fleet
                .sites()
                .list(&s.owner, &query)
                .await
                .map(|page| page.total),
            s.fleet
                .hosts()
                .list(&s.owner, &query)
                .await
                .map(|page| page.total),
            s.fleet
                .people()
                .list(&s.owner, &query)
                .await
                .map(|page| page.total),
            s.fleet
                .audit()
                .list(&s.owner, &query)
                .await
                .map(|page| page.total),
        ] {
            assert!(
                matches!(result, Ok(_) | Err(fleet::Error::Invalid { .. })),
                "{text}: {result:?}"
            );
        }
        let state = Query {
            state: Some(text.to_owned()),
            ..Query::default()
        };
        let _ = s.fleet.sites().list(&s.owner, &state).await;
        let _ = s.fleet.sites().get(&s.owner, text).await;
    }
    assert_eq!(
        s.fleet
            .sites()
            .list(&s.owner, &Query::default())
            .await
            .unwrap()
            .total,
        1
    );
});
