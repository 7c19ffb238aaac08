//! The header of a sparse VMDK disk (VMware, Virtual Disk Format 5.0).

use super::{ProbeError, le32, le64, not_an_image};

pub(super) const MAGIC: &[u8] = b"KDMV";

/// QEMU looks for the embedded descriptor here, whatever the header says, and reads this much of it.
const QEMU_DESCRIPTOR: std::ops::Range<usize> = 0x200..0x200 + 20 * 512;

/// Whether a file is a descriptor: text that says where the parts of a disk are.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    let start = &head[..head.len().min(4096)];
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    text.trim_start().starts_with("# disk descriptorfile")
        || (text.contains("createtype") && text.contains("parentcid"))
}

/// Checks a header; returns the virtual size.
pub(super) fn check(head: &[u8], length: u64) -> Result<u64, ProbeError> {
    read(head, length).unwrap_or_else(|| Err(not_an_image("the VMDK header is cut off")))
}

fn read(head: &[u8], length: u64) -> Option<Result<u64, ProbeError>> {
    let version = le32(head, 4)?;
    if !(1..=3).contains(&version) {
        return Some(Err(not_an_image(format!(
            "VMDK version {version} is not supported"
        ))));
    }
    let capacity = le64(head, 12)?;
    let descriptor_at = le64(head, 28)?;
    let descriptor_sectors = le64(head, 36)?;
    if capacity == 0 {
        // QEMU would then read the descriptor, and follow the extents in it.
        return Some(Err(ProbeError::Unsafe(
            "the VMDK disk has no data of its own and refers to other files".into(),
        )));
    }
    let Some(virtual_size) = capacity.checked_mul(512) else {
        return Some(Err(not_an_image("the VMDK header has an impossible size")));
    };
    if length < 1024 {
        return None;
    }
    let said = |at: u64, sectors: u64| -> Option<&[u8]> {
        let start = usize::try_from(at.checked_mul(512)?).ok()?;
        let end = start.checked_add(usize::try_from(sectors.checked_mul(512)?).ok()?)?;
        head.get(start..end)
    };
    let mut regions = vec![&head[QEMU_DESCRIPTOR.start.min(head.len())..QEMU_DESCRIPTOR.end.min(head.len())]];
    if descriptor_at != 0 {
        match said(descriptor_at, descriptor_sectors) {
            Some(region) => regions.push(region),
            None => {
                return Some(Err(not_an_image(
                    "the VMDK descriptor lies outside of the start of the file",
                )));
            }
        }
    }
    for region in regions {
        if let Err(error) = check_descriptor(region) {
            return Some(Err(error));
        }
    }
    Some(Ok(virtual_size))
}

/// The embedded descriptor may describe nothing but this file.
fn check_descriptor(region: &[u8]) -> Result<(), ProbeError> {
    let text = String::from_utf8_lossy(region).to_ascii_lowercase();
    let refers = |what: &str| Err(ProbeError::Unsafe(format!("the VMDK disk refers to {what}")));
    if text.contains("parentfilenamehint") {
        return refers("a parent disk");
    }
    if !text.contains("createtype") {
        return Ok(());
    }
    let mut extents = 0;
    for line in text.split(['\n', '\0']).map(str::trim) {
        if let Some((name, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"');
            if name.trim() == "parentcid" && value != "ffffffff" {
                return refers("a parent disk");
            }
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["rw" | "rdonly" | "noaccess", _, kind, ..] = words.as_slice() {
            extents += 1;
            if *kind != "sparse" {
                return refers(&format!("a file with {} data", kind.to_ascii_uppercase()));
            }
        }
    }
    if extents > 1 {
        return refers("more than one file");
    }
    Ok(())
}
