//! The header of a qcow2 disk (QEMU, `docs/interop/qcow2.txt`).

use super::{ProbeError, be32, be64, not_an_image};

pub(super) const MAGIC: &[u8] = b"QFI\xfb";

/// Incompatible features that are known and harmless for a disk that is only read: dirty refcounts, compression type,
/// extended L2 entries.
const HARMLESS: u64 = 1 | 1 << 3 | 1 << 4;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
/// Header extension that names an external data file.
const DATA_FILE_NAME: u32 = 0x4441_5441;
/// Header extension that names the format of a backing file.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// Checks a header; returns the virtual size.
pub(super) fn check(head: &[u8]) -> Result<u64, ProbeError> {
    read(head).unwrap_or_else(|| Err(not_an_image("the qcow2 header is cut off")))
}

fn read(head: &[u8]) -> Option<Result<u64, ProbeError>> {
    let version = be32(head, 4)?;
    if !(2..=3).contains(&version) {
        return Some(Err(not_an_image(format!(
            "qcow2 version {version} is not supported"
        ))));
    }
    let refers = |what: &str| {
        Some(Err(ProbeError::Unsafe(format!(
            "the qcow2 disk refers to {what}"
        ))))
    };
    if be64(head, 8)? != 0 || be32(head, 16)? != 0 {
        return refers("a backing file");
    }
    let cluster_bits = be32(head, 20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Some(Err(not_an_image(format!(
            "the qcow2 disk has clusters of 2^{cluster_bits} bytes"
        ))));
    }
    let virtual_size = be64(head, 24)?;
    if be32(head, 32)? != 0 {
        return Some(Err(not_an_image(
            "the qcow2 disk is encrypted, which is not supported",
        )));
    }
    let mut at = 72;
    if version == 3 {
        let features = be64(head, 72)?;
        if features & EXTERNAL_DATA != 0 {
            return refers("an external data file");
        }
        if features & CORRUPT != 0 {
            return Some(Err(not_an_image(
                "the qcow2 disk is marked as corrupt; repair it with qemu-img check -r all",
            )));
        }
        if features & !HARMLESS != 0 {
            return Some(Err(not_an_image(format!(
                "the qcow2 disk has unknown features {features:#x}"
            ))));
        }
        at = usize::try_from(be32(head, 100)?).ok()?;
        if !(104..=4096).contains(&at) {
            return Some(Err(not_an_image("the qcow2 header has an impossible length")));
        }
    }
    // Extensions up to the first cluster's end; each is padded to 8 bytes.
    let end = head.len().min(1 << cluster_bits);
    while at + 8 <= end {
        let kind = be32(head, at)?;
        let length = usize::try_from(be32(head, at + 4)?).ok()?;
        match kind {
            0 => break,
            DATA_FILE_NAME => return refers("an external data file"),
            BACKING_FORMAT => return refers("a backing file"),
            _ => {
                let padded = length.checked_next_multiple_of(8)?;
                at = at.checked_add(8)?.checked_add(padded)?;
            }
        }
    }
    Some(Ok(virtual_size))
}
