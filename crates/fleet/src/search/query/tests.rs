use proptest::prelude::*;

use super::*;

#[test]
fn queries_are_read() {
    for (text, wanted) in [
        ("", ""),
        ("  Till   17 ", "till 17"),
        ("\"Main Street\" -lab", "\"main street\" -lab"),
        ("label:region=eu -label:retired", "label:region=eu -label:retired"),
        ("state:OFFLINE power:poweredon", "state:offline power:poweredOn"),
        (
            "condition:ready=false condition:Drift",
            "condition:Ready=False condition:Drift=True",
        ),
        ("commit:ABCD12 mac:52:54:AA", "commit:abcd12 mac:52:54:aa"),
        ("site:\"x y\"", "site:\"x y\""),
        ("52:54:00", "\"52:54:00\""),
        ("\"state:x\"", "\"state:x\""),
    ] {
        let query = Query::parse(text).unwrap();
        assert_eq!(query.to_string(), wanted, "{text}");
        assert_eq!(Query::parse(wanted).unwrap(), query, "{text}");
    }
}

#[test]
fn mistakes_have_a_place() {
    for (text, at, part) in [
        ("a -", 3, "missing"),
        ("state:", 6, "missing"),
        ("till state:sleepy", 11, "none of pending"),
        ("ä colour:red", 3, "no field `colour`"),
        ("label:=x", 6, "no label"),
        ("condition:Fun=True", 10, "there are Ready"),
        ("condition:Ready=Perhaps", 10, "neither"),
        ("commit:xyz", 7, "hexadecimal"),
        ("commit:abc", 7, "4 to 64"),
        ("\"open", 0, "not closed"),
        ("\"a\"b", 3, "space"),
        ("\"\"", 0, "nothing"),
        ("\"a\\n\"", 2, "`\\`"),
        ("a\u{1}", 1, "can't be"),
    ] {
        let error = Query::parse(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
    assert_eq!(Query::parse("ää colour:x").unwrap_err().column, 4);
    assert!(Query::parse(&"ä".repeat(400)).is_err());
    assert!(Query::parse(&"a ".repeat(17)).is_err());
}

#[test]
fn a_kind_that_makes_no_sense_is_left_out() {
    let finds = |text: &str| {
        let query = Query::parse(text).unwrap();
        query
            .targets()
            .filter(|target| query.condition(*target, &mut Sql::new("")))
            .map(Target::word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(finds("till"), "site host vm commit");
    assert_eq!(finds("serial:17"), "host");
    assert_eq!(finds("commit:abcd"), "site host commit");
    assert_eq!(finds("class:small"), "vm");
    assert_eq!(finds("kind:site serial:17"), "");
    assert_eq!(finds("-kind:site label:a"), "host");
    assert_eq!(finds("condition:Ready=False"), "site host vm");
}

proptest! {
    #[test]
    fn foreign_text_does_not_panic(text in "\\PC{0,80}", words in "[a-z:\"\\\\= -]{0,60}") {
        for text in [text, words] {
            match Query::parse(&text) {
                Ok(query) => {
                    for target in Target::ALL {
                        query.condition(target, &mut Sql::new(""));
                    }
                    // What is written out reads as the same query.
                    let written = query.to_string();
                    if written.len() <= MOST_BYTES {
                        prop_assert_eq!(Query::parse(&written).unwrap(), query);
                    }
                }
                Err(error) => prop_assert!(text.is_char_boundary(error.at)),
            }
        }
    }
}
