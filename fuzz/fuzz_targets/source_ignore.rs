//! `.sourceignore` files: any pattern against any path, in bounded time.
#![no_main]

use kustomize::ignore::Ignore;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str)| {
    let (folder, text, path) = input;
    let mut ignore = Ignore::new();
    ignore.add(folder, text);
    let _ = ignore.matches(path, true);
    let _ = ignore.matches(path, false);
});
