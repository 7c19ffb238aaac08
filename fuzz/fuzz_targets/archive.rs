//! The members of an OVA: all inside of it, with names that are no paths.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(index) = image::archive::index(&mut Cursor::new(data)) else {
        return;
    };
    assert_eq!(index.order.len(), index.members.len());
    for (name, member) in &index.members {
        assert!(
            member
                .offset
                .checked_add(member.size)
                .is_some_and(|end| end <= data.len() as u64)
        );
        assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']));
    }
});
