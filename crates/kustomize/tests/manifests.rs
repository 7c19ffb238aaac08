//! Reading files: what is accepted, what is refused and where it is said to be.

use kustomize::{Limits, Located, ParseError, block_scalar_start, parse_manifests, position_of};
use proptest::prelude::*;
use serde_json::json;

fn parse(text: &str) -> Result<Vec<Located>, ParseError> {
    parse_manifests("a/b.yaml", text.as_bytes(), &Limits::default())
}

fn objects(text: &str) -> Vec<serde_json::Value> {
    let found = parse(text).unwrap_or_else(|e| panic!("{e}"));
    found.into_iter().map(|l| l.object).collect()
}

#[test]
fn several_documents_with_their_lines() {
    let found = parse("# head\n---\n# only a comment\n---\na: 1\n---\n\n\nb: 2\n---\n").unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|l| (l.object.clone(), l.line, l.file.as_str()))
        .collect();
    assert_eq!(
        seen,
        [(json!({"a": 1}), 5, "a/b.yaml"), (json!({"b": 2}), 9, "a/b.yaml")]
    );
    assert!(parse("").unwrap().is_empty());
    assert!(parse("# nothing\n").unwrap().is_empty());
    assert!(parse("---\n---\n...\n").unwrap().is_empty());
}

#[test]
fn json_files_also_with_tabs() {
    assert_eq!(
        objects("{\n\t\"kind\": \"X\",\n\t\"n\": [1, 2.5, true, null, \"\\u00e4\"]\n}\n"),
        [json!({"kind": "X", "n": [1, 2.5, true, null, "ä"]})]
    );
    let long = "x".repeat(10_000);
    assert_eq!(
        objects(&format!("{{\"a\": \"{long}\", \"b\": \"{long}\"}}")),
        [json!({"a": long, "b": long})]
    );
    assert_eq!(objects("{\"a\":\"b\"}"), [json!({"a": "b"})]);
}

#[test]
fn lists_are_taken_apart() {
    let found =
        parse("apiVersion: v1\nkind: List\nitems:\n- kind: A\n- kind: B\n  x: {items: []}\n").unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[1].line, found[1].index, found[1].item), (5, 0, Some(1)));
}

#[test]
fn anchors_merge_keys_and_tags() {
    let text = "base: &b {x: 1, w: 2}\nuse:\n  <<: *b\n  w: 3\nmany:\n  <<: [*b, {x: 9, z: 4}]\nt: !!str 12\nl: !mine 12\n";
    assert_eq!(
        objects(text),
        [json!({
            "base": {"x": 1, "w": 2}, "use": {"x": 1, "w": 3}, "many": {"x": 1, "w": 2, "z": 4}, "t": "12", "l": "12"
        })]
    );
}

#[test]
fn words_are_booleans_but_where_only_text_can_be() {
    let text = "metadata: {labels: {a: yes, b: true}}\ndata: {on: off, t: \"yes\"}\nspec: {on: yes, y: n, env: [{name: x, value: on}]}\n";
    assert_eq!(
        objects(text),
        [json!({
            "metadata": {"labels": {"a": "yes", "b": true}},
            "data": {"on": "off", "t": "yes"},
            "spec": {"on": true, "y": false, "env": [{"name": "x", "value": "on"}]}
        })]
    );
}

#[test]
fn duplicate_keys_are_refused_at_the_second_one() {
    let wrong = parse("a:\n  x: 1\n  y: 2\n  x: 3\n").unwrap_err();
    assert_eq!((wrong.line, wrong.column), (4, 3));
    assert!(wrong.message.contains("\"x\""), "{wrong}");
    assert_eq!(wrong.excerpt, "  x: 3\n  ^");
}

#[test]
fn broken_files_say_where() {
    for (text, line) in [
        ("a: [1, 2\nb: 3\n", 2),
        ("a: \"unterminated\nb: c\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a:\n\t- b\n", 2),
        ("{\"a\": 1,, \"b\": 2}", 1),
        ("a: *nobody\n", 1),
        ("a: &x [*x]\n", 1),
        ("? [1]\n: 2\n", 1),
        ("a: .inf\n", 1),
    ] {
        let wrong = parse(text).expect_err(text);
        assert!(wrong.line >= line && wrong.line <= line + 2, "{text:?}: {wrong}");
        assert!(!wrong.message.is_empty());
    }
    let wrong = parse_manifests("f", b"a: 1\nb: \xff\n", &Limits::default()).unwrap_err();
    assert_eq!((wrong.line, wrong.column), (2, 4));
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..12 {
        let refs = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    assert!(
        parse(&laughs).unwrap_err().message.contains("aliases"),
        "billion laughs"
    );

    let mut wide = format!("a: &a {}\nl:\n", "x".repeat(1_000_000));
    wide.push_str(&"- *a\n".repeat(10_000));
    assert!(
        parse(&wide).unwrap_err().message.contains("alias"),
        "quadratic blow-up by long text"
    );

    let mut nested = String::new();
    for n in 0..5_000 {
        nested.push_str(&format!("&n{n} ["));
    }
    assert!(parse(&nested).is_err());
    assert!(parse(&"[".repeat(200_000)).is_err());
    assert!(parse(&"{a: ".repeat(200_000)).is_err());
    assert!(parse(&"- ".repeat(200_000)).is_err());
    assert!(
        parse(&"---\na: b\n".repeat(30_000))
            .unwrap_err()
            .message
            .contains("documents")
    );
    let big = Limits {
        bytes: 10,
        ..Limits::default()
    };
    assert!(
        parse_manifests("f", b"a: 0123456789", &big)
            .unwrap_err()
            .message
            .contains("bytes")
    );
}

#[test]
fn fields_are_found() {
    let text = "a: 1\n---\nspec:\n  nics:\n  - name: n0\n    networkName: VM\n  - name: n1\n    networkName: X\n  # c\n  m:\n    a.b/c: 1\n    d: {e: 2}\n";
    let at = |path: &str| position_of(text, 1, None, path);
    assert_eq!(at("spec.nics[1].networkName"), Some((8, 5)));
    assert_eq!(at("spec.nics[n1].networkName"), Some((8, 5)));
    assert_eq!(at("spec.nics[1].absent"), Some((7, 5)));
    assert_eq!(at("spec.m[a.b/c]"), Some((11, 5)));
    assert_eq!(at("spec.m.a.b/c"), Some((11, 5)));
    assert_eq!(at("spec.m.d.e"), Some((12, 9)));
    assert_eq!(at("status"), Some((3, 1)));
    assert_eq!(position_of(text, 0, None, "a"), Some((1, 1)));
    assert_eq!(position_of(text, 2, None, "a"), None);
    let list = "kind: List\nitems:\n- a: 1\n- b:\n    c: 2\n";
    assert_eq!(position_of(list, 0, Some(1), "b.c"), Some((5, 5)));
}

#[test]
fn text_inside_text_is_found() {
    let text = "kind: HostConfiguration\nspec:\n  layertype: Incremental\n  profile: | # json\n\n    {\n      \"esx\": 1\n    }\n";
    let start = block_scalar_start(text, 0, None, "spec.profile").unwrap();
    // The empty line is the first line of the text, the brace the second.
    assert_eq!(start.at(2, 1), (6, 5));
    assert_eq!(start.at(3, 3), (7, 7));
    let quoted = "spec:\n  profile: '{\"esx\": 1}'\n";
    let start = block_scalar_start(quoted, 0, None, "spec.profile").unwrap();
    assert_eq!(start.at(1, 2), (2, 14));
    assert_eq!(quoted.lines().nth(1).unwrap().chars().nth(13), Some('"'));
    assert_eq!(block_scalar_start(text, 0, None, "spec"), None);
    assert_eq!(block_scalar_start(text, 0, None, "spec.other"), None);
    for header in ["|-", ">", "|2", "|+2", "|2-"] {
        let text = format!("a:\n  p: {header}\n      {{\"x\":\n      1}}\n");
        let start = block_scalar_start(&text, 0, None, "a.p").unwrap();
        let value = &parse(&text).unwrap()[0].object["a"]["p"];
        let column = value.as_str().unwrap().find('{').unwrap() + 1;
        assert_eq!(start.at(1, column), (3, 7), "{header}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_input_panics(text in "[ -~\n\t{}\\[\\]:&*!|>'\"#-]{0,200}") {
        let limits = Limits { depth: 16, ..Limits::default() };
        drop(parse_manifests("f", text.as_bytes(), &limits));
        let _ = position_of(&text, 0, None, "a.b[0].c");
        let _ = block_scalar_start(&text, 0, None, "a.b");
    }

    #[test]
    fn bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(parse_manifests("f", &bytes, &Limits::default()));
    }

    #[test]
    fn json_reads_as_json(value in json_value()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(&objects(&pretty), std::slice::from_ref(&value));
        let flat = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(&objects(&flat), &[value]);
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        "\\PC{0,20}".prop_map(|s| json!(s)),
    ];
    let tree = leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|v| json!(v)),
            proptest::collection::btree_map("[a-z.\" ]{0,8}", inner, 0..6).prop_map(|m| json!(m)),
        ]
    });
    proptest::collection::btree_map("[a-z]{1,4}", tree, 1..6).prop_map(|m| json!(m))
}
