//! Image names: what is read and shown is read the same again.
#![no_main]

use image::ImageRef;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(image) = ImageRef::parse(text) else { return };
    assert_eq!(
        image.key(),
        ImageRef::parse(text.trim()).expect("only trimmed").key()
    );
    if let ImageRef::Name(name) = &image {
        assert!(!name.contains('/') && name != "..");
    }
    let _ = image.to_string();
});
