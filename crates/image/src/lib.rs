//! VM images: OVA, qcow2 and raw import, checksums, cache, resumable download.
