//! Git's list of a folder, and addresses of repositories: no name leads elsewhere, no address is an option of git.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for raw in [20, 32] {
        for name in gitops::fuzzing::folder_names(data, raw).unwrap_or_default() {
            assert!(!name.is_empty() && name != "." && name != ".." && !name.contains('/'));
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(address) = gitops::fuzzing::repository_address(text)
    {
        assert!(!address.starts_with('-'));
        let known = ["https://", "http://", "ssh://", "file://"];
        assert!(
            known.iter().any(|scheme| address.starts_with(scheme)),
            "{address}"
        );
    }
});
