//! Reading one layer's profile: wrappings, positions, slips.

use hostconfig::profile::{Position, ProfileError, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

const SWITCH: &str = r#"{
  "esx": {
    "network_vss": {
      "switches": [
        {"name": "vSwitch1", "mtu": 1500},
        {"name": "vSwitch2", "mtu": 12345,
         "port_groups": [{"name": "a b.c", "vlan_id": 10}, {"name": "Käse [x]", "vlan_id": 5000}]}
      ]
    }
  }
}"#;

fn text(profile: &str) -> Value {
    Value::String(profile.into())
}

fn syntax(profile: &str) -> (usize, usize, String) {
    match parse(&text(profile)) {
        Err(ProfileError::Syntax {
            position: Position { line, column },
            path,
            ..
        }) => (line, column, path),
        other => panic!("{profile}: {other:?}"),
    }
}

#[test]
fn both_wrappings_and_a_mapping_are_the_same() {
    let esx = json!({"security": {"settings": {"account_unlock_time": 15}}});
    let plain = json!({ "esx": esx });
    let wrapped = json!({ "profile": { "esx": esx } });
    for profile in [
        plain.clone(),
        wrapped.clone(),
        text(&plain.to_string()),
        text(&wrapped.to_string()),
    ] {
        assert_eq!(parse(&profile).unwrap().value, plain, "{profile}");
    }
    for nothing in [
        Value::Null,
        text(""),
        text("  \n"),
        json!({}),
        text("{}"),
        text(r#"{"esx": {}}"#),
        text(r#"{"profile": {}}"#),
    ] {
        assert_eq!(parse(&nothing).unwrap().value, json!({"esx": {}}), "{nothing}");
    }
}

#[test]
fn nulls_are_absent() {
    let profile =
        json!({"esx": {"network": null, "network_vss": {"switches": [{"name": "a", "mtu": null}]}}});
    assert_eq!(
        parse(&profile).unwrap().value,
        json!({"esx": {"network_vss": {"switches": [{"name": "a"}]}}})
    );
}

#[test]
fn broken_json_is_shown_with_its_place() {
    // The string that is not closed, as in a manifest that was once in the field.
    assert_eq!(
        syntax("{\n  \"esx\": {\n    \"system\": {\"welcome_message\": {\"message\": \"hello}}}\n"),
        (4, 1, "esx.system.welcome_message.message".into())
    );
    assert_eq!(
        syntax("{\n  \"esx\": {\n    \"a\": 1\n    \"b\": 2\n  }\n}"),
        (4, 5, "esx.a".into())
    );
    assert_eq!(
        syntax("{\"esx\": {\"network_vss\": {\"switches\": [{\"name\": \"x\"}, {\"name\": }]}}}").2,
        "esx.network_vss.switches[1].name"
    );
    assert_eq!(syntax("{\"esx\": {\"a\": 1,}}"), (1, 17, "esx".into()));
    assert_eq!(syntax("{\"esx\": {\"ä\": tru}}").1, 18);
    assert_eq!(syntax("{ broken"), (1, 3, String::new()));
    assert_eq!(syntax("{\"esx\": {}} trailing").1, 13);
    let error = parse(&text("{\n  \"esx\": {\n    \"a\": 1\n    \"b\": 2\n  }\n}")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 4, column 5: expected `,` or `}` (in esx.a)"
    );
}

#[test]
fn wrong_values_are_shown_with_path_and_place() {
    let Err(ProfileError::Fields(problems)) = parse(&text(SWITCH)) else {
        panic!()
    };
    let found: Vec<_> = problems
        .iter()
        .map(|p| (p.path.as_str(), p.position.map(|p| (p.line, p.column))))
        .collect();
    assert_eq!(
        found,
        [
            ("esx.network_vss.switches[vSwitch2].mtu", Some((6, 37))),
            (
                "esx.network_vss.switches[vSwitch2].port_groups[Käse [x]].vlan_id",
                Some((7, 92))
            ),
        ]
    );
    let wrapped = format!("{{\"profile\":\n{SWITCH}}}");
    let Err(ProfileError::Fields(problems)) = parse(&text(&wrapped)) else {
        panic!()
    };
    assert_eq!(problems[0].position, Some(Position { line: 7, column: 37 }));
    let Err(ProfileError::Fields(problems)) = parse(&serde_json::from_str(SWITCH).unwrap()) else {
        panic!()
    };
    assert_eq!(problems[0].position, None);
}

#[test]
fn shapes() {
    for profile in [
        "[]",
        "5",
        "\"x\"",
        "{\"exs\": {}}",
        "{\"esx\": []}",
        "{\"profile\": 5}",
    ] {
        assert!(
            matches!(parse(&text(profile)), Err(ProfileError::Shape(_))),
            "{profile}"
        );
    }
}

#[test]
fn slips_are_named_and_later_vocabulary_is_not() {
    let profile = json!({"esx": {
        "network_vss": {"switches": [{"name": "a", "MTU": 9000}]}, "storage": {"anything": {}}, "whole_new_group": {"key": 1},
    }, "metadata": {}});
    assert_eq!(
        parse(&profile).unwrap().unknown,
        ["esx.network_vss.switches[a].MTU", "metadata"]
    );
}

proptest! {
    #[test]
    fn any_text_gives_an_answer_and_a_place_inside_it(noise in "[{}\\[\\]\":,\\\\ \nä1nte]{0,60}", cut in 0_usize..400) {
        let cut = SWITCH.char_indices().map(|(at, _)| at).take_while(|at| *at <= cut).last().unwrap_or(0);
        let profile = format!("{}{noise}", &SWITCH[..cut]);
        match parse(&text(&profile)) {
            Err(ProfileError::Syntax { position, .. }) => {
                let line = profile.split('\n').nth(position.line - 1);
                prop_assert!(line.is_some_and(|l| position.column <= l.chars().count() + 1), "{:?} in {:?}", position, profile);
            }
            _ => prop_assert!(profile.trim().is_empty() || serde_json::from_str::<Value>(&profile).is_ok()),
        }
    }
}
