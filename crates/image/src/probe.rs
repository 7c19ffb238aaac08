//! What a file is, told from its content. The only code that reads headers of foreign disks; `qemu-img` is started on
//! nothing that has not passed here.

use std::io::{self, Read, Seek, SeekFrom};

mod qcow2;
mod vmdk;

/// How much of the start of a file is looked at.
pub const HEAD: usize = 64 * 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A tar archive.
    Tar,
    /// Compressed by gzip.
    Gzip,
    /// A qcow2 disk without any reference to other files.
    Qcow2 {
        /// Size that a guest sees, in bytes.
        virtual_size: u64,
    },
    /// A VMDK disk of one file: `streamOptimized` or `monolithicSparse`.
    Vmdk {
        /// Size that a guest sees, in bytes.
        virtual_size: u64,
    },
    /// A disk as it is.
    Raw {
        /// Bytes.
        virtual_size: u64,
    },
}

/// Why a file is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It is no disk, or of a kind that is not supported.
    #[error("{0}")]
    NotAnImage(String),
    /// It refers to other files.
    #[error("{0}")]
    Unsafe(String),
}

pub(crate) fn not_an_image(reason: impl Into<String>) -> ProbeError {
    ProbeError::NotAnImage(reason.into())
}

/// Reads the start of a file.
///
/// # Errors
/// Those of reading.
pub fn head(file: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Tells what a file is from its first [`HEAD`] bytes and its length.
///
/// # Errors
/// When it is no image, or one that refers to other files.
pub fn probe(head: &[u8], length: u64) -> Result<Content, ProbeError> {
    if length == 0 {
        return Err(not_an_image("the file is empty"));
    }
    if head.starts_with(qcow2::MAGIC) {
        return Ok(Content::Qcow2 {
            virtual_size: qcow2::check(head)?,
        });
    }
    if head.starts_with(vmdk::MAGIC) {
        return Ok(Content::Vmdk {
            virtual_size: vmdk::check(head, length)?,
        });
    }
    if vmdk::is_descriptor(head) {
        return Err(ProbeError::Unsafe(
            "it is a VMDK descriptor, which points to other files; export the disk as an OVA or as one file"
                .into(),
        ));
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Content::Gzip);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Ok(Content::Tar);
    }
    for (magic, name) in OTHERS {
        if head.starts_with(magic) {
            return Err(not_an_image(format!(
                "it is {name}, which is not supported; convert it to qcow2"
            )));
        }
    }
    if is_text(head) {
        return Err(not_an_image(format!(
            "it is text that begins with {:?}; is the address right?",
            first_line(head)
        )));
    }
    if !length.is_multiple_of(512) {
        return Err(not_an_image(format!(
            "it is no OVA, qcow2 or VMDK, and its {length} bytes are no whole number of sectors, so it is no raw disk either"
        )));
    }
    Ok(Content::Raw { virtual_size: length })
}

const OTHERS: [(&[u8], &str); 10] = [
    (b"vhdxfile", "a VHDX disk"),
    (b"conectix", "a VHD disk"),
    (b"<<< ", "a VirtualBox VDI disk"),
    (b"COWD", "an old VMware sparse disk"),
    (b"\xfd7zXZ\0", "compressed by xz"),
    (b"(\xb5/\xfd", "compressed by zstd"),
    (b"BZh", "compressed by bzip2"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x7fELF", "a program"),
];

fn is_text(head: &[u8]) -> bool {
    let start = &head[..head.len().min(512)];
    start
        .iter()
        .all(|&byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..))
}

fn first_line(head: &[u8]) -> String {
    let start = String::from_utf8_lossy(&head[..head.len().min(200)]).into_owned();
    start
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim()
        .chars()
        .take(60)
        .collect()
}

/// Little-endian numbers at a place.
pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// Little-endian numbers at a place.
pub(crate) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

/// Big-endian numbers at a place.
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// Big-endian numbers at a place.
pub(crate) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}
