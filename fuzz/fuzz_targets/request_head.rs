//! The path, query and Accept header of a request: no decoded name is a path.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str)| {
    let (path, query, accept) = input;
    apiserver::http::fuzzing::request_head(path, query, accept);
});
