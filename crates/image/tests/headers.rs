//! Headers of foreign files, with any bytes.

use std::io::Cursor;

use image::{archive, manifest, probe};
use proptest::prelude::*;

fn start() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"QFI\xfb\0\0\0\x03".to_vec()),
        Just(b"KDMV\x03\0\0\0".to_vec()),
        Just(vec![])
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn probing_never_panics(start in start(), rest in proptest::collection::vec(any::<u8>(), 0..2048), length in any::<u64>()) {
        let head = [start, rest].concat();
        let _ = probe::probe(&head, length.max(head.len() as u64));
    }

    #[test]
    fn archives_never_panic_and_stay_inside(blocks in proptest::collection::vec(block(), 0..12), cut in 0_usize..600) {
        let mut bytes = blocks.concat();
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(index) = archive::index(&mut Cursor::new(&bytes)) {
            for (name, member) in &index.members {
                prop_assert!(member.offset + member.size <= bytes.len() as u64);
                prop_assert!(!name.contains('/') && name != ".." && !name.is_empty());
            }
        }
    }

    #[test]
    fn manifests_never_panic(text in "(SHA(1|256)\\(.{0,8}\\)?= ?[0-9a-f]{0,64}\n?|.{0,20}){0,4}") {
        let _ = manifest::parse(&text);
    }
}

/// A header with a right checksum, or noise.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("a"),
        Just("../b"),
        Just("./c"),
        Just(".."),
        Just("a/b"),
        Just("")
    ];
    let kind = prop::sample::select(b"0\x0012345xgLKSV".to_vec());
    let header = (
        name,
        kind,
        0_u64..2000,
        proptest::collection::vec(any::<u8>(), 0..64),
    )
        .prop_map(|(name, kind, size, content)| {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(size);
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_cksum();
            let mut block = header.as_bytes().to_vec();
            block.extend(content);
            block.resize(block.len().next_multiple_of(512), 0);
            block
        });
    prop_oneof![3 => header, 1 => proptest::collection::vec(any::<u8>(), 512)]
}
