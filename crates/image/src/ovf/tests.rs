use proptest::prelude::*;

use super::*;

const MACHINE: &str = include_str!("../../tests/images/support/machine.ovf");

#[test]
fn units() {
    assert_eq!(amount("16", "byte * 2^30"), Some(16 << 30));
    assert_eq!(amount("16", "GigaBytes"), Some(16 << 30));
    assert_eq!(amount("5", ""), Some(5));
    assert_eq!(amount("5", "byte * 1000"), Some(5000));
    assert_eq!(amount("5", "byte*10^3"), Some(5000));
    assert_eq!(amount("99999999999", "byte * 2^40"), None);
    assert_eq!(amount("1", "byte * 2^99"), None);
    assert_eq!(amount("-1", ""), None);
    assert_eq!(amount("1", "furlongs"), None);
}

#[test]
fn what_is_wrong_is_said() {
    let of = |text: &str| parse(text).unwrap_err();
    assert!(of(&MACHINE.replace("</References>", "</Reference>")).contains("malformed at byte"));
    assert!(
        of(&MACHINE
            .replace("@CAPACITY@", "1")
            .replace("fileRef=\"file1\"", "fileRef=\"file2\""))
        .contains("not declared")
    );
    assert!(of(&MACHINE.replace("@CAPACITY@", "many")).contains("without a usable capacity"));
    assert!(of("<E><VirtualSystemCollection/></E>").contains("collection"));
    assert!(of("<E><VirtualSystem/><VirtualSystem/></E>").contains("more than one"));
    assert!(of("<!DOCTYPE x [<!ENTITY a 'b'>]><E/>").contains("document type"));
    assert!(of(&"<a>".repeat(100)).contains("too deep"));
}

#[test]
fn without_units_memory_is_in_megabytes() {
    let text = "<E><VirtualSystem id='m'><VirtualHardwareSection><Item><ResourceType>4</ResourceType>\
        <VirtualQuantity>512</VirtualQuantity></Item></VirtualHardwareSection></VirtualSystem></E>";
    assert_eq!(parse(text).unwrap().info.memory, Some(512 << 20));
}

proptest! {
    #[test]
    fn nothing_panics(at in 0..MACHINE.len(), gone in 0_usize..40, new in ".{0,20}") {
        let mut bytes = MACHINE.as_bytes().to_vec();
        let end = (at + gone).min(bytes.len());
        bytes.splice(at..end, new.bytes());
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }
}
