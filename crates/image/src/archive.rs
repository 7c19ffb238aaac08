//! The members of an OVA: a tar archive of plain files side by side. Nothing is extracted by name: the index says where
//! in the archive each member is, and it is read there.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use tar::{EntryType, Header};

/// The most members.
const MAX_MEMBERS: usize = 256;
/// The most headers, members or not.
const MAX_HEADERS: usize = 4 * MAX_MEMBERS;
/// The largest extended header.
const MAX_EXTENDED: u64 = 64 * 1024;
const BLOCK: u64 = 512;

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the archive.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// The members by name, and in which order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// By name.
    pub members: BTreeMap<String, Member>,
    /// Names in the order of the archive.
    pub order: Vec<String>,
}

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no archive, or cut off.
    #[error("{0}")]
    Malformed(String),
    /// It holds what no OVA may hold.
    #[error("{0}")]
    Unsafe(String),
    /// It cannot be read.
    #[error("reading failed")]
    Io(#[from] io::Error),
}

fn malformed(message: impl Into<String>) -> ArchiveError {
    ArchiveError::Malformed(message.into())
}

/// What an extended header says of the member after it.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
}

/// Reads the headers of an archive.
///
/// # Errors
/// When a name leads out of the archive, a member is no plain file or there twice, or the archive is malformed.
pub fn index(file: &mut (impl Read + Seek)) -> Result<Index, ArchiveError> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut index = Index::default();
    let mut extended = Extended::default();
    let mut at = 0;
    for _ in 0..MAX_HEADERS {
        let mut block = [0; 512];
        file.seek(SeekFrom::Start(at))?;
        if at + BLOCK > end {
            return if at >= end {
                Ok(index)
            } else {
                Err(malformed("the archive is cut off in a header"))
            };
        }
        file.read_exact(&mut block)?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(index);
        }
        let header = Header::from_byte_slice(&block);
        check_sum(header, at)?;
        let kind = header.entry_type();
        let said = header
            .entry_size()
            .map_err(|_| malformed(format!("the header at byte {at} has no size")))?;
        let is_extension = matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        );
        let size = if is_extension {
            said
        } else {
            extended.size.unwrap_or(said)
        };
        let offset = at + BLOCK;
        let next = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|padded| offset.checked_add(padded));
        // The last member's padding may be missing.
        let Some(next) = next.filter(|_| size <= end - offset) else {
            return Err(malformed("the archive is cut off: it ends before its members do"));
        };
        if is_extension {
            if size > MAX_EXTENDED {
                return Err(malformed(format!(
                    "the header at byte {at} has an extension of {size} bytes"
                )));
            }
            let mut text = Vec::new();
            file.take(size).read_to_end(&mut text)?;
            match kind {
                EntryType::XHeader => read_pax(&text, &mut extended)?,
                EntryType::GNULongName => {
                    let text = String::from_utf8_lossy(&text);
                    extended.name = Some(text.trim_end_matches('\0').into());
                }
                _ => {}
            }
        } else {
            let extended = std::mem::take(&mut extended);
            let name = match extended.name {
                Some(name) => name,
                None => String::from_utf8_lossy(&header.path_bytes()).into_owned(),
            };
            add(&mut index, kind, &name, Member { offset, size })?;
        }
        at = next;
    }
    Err(malformed(format!(
        "the archive has more than {MAX_HEADERS} headers"
    )))
}

fn check_sum(header: &Header, at: u64) -> Result<(), ArchiveError> {
    let bytes = header.as_bytes();
    let sum: u32 = bytes[..148]
        .iter()
        .chain(&bytes[156..])
        .map(|&byte| u32::from(byte))
        .sum::<u32>()
        + 8 * 32;
    match header.cksum() {
        Ok(said) if said == sum => Ok(()),
        _ => Err(malformed(format!(
            "the archive is damaged at byte {at}: there is no header"
        ))),
    }
}

fn add(index: &mut Index, kind: EntryType, name: &str, member: Member) -> Result<(), ArchiveError> {
    let refused = |why: &str| {
        let name: String = name.chars().take(100).collect();
        Err(ArchiveError::Unsafe(format!(
            "the archive's member {name:?} {why}"
        )))
    };
    let bare = name.strip_prefix("./").unwrap_or(name);
    match kind {
        // A directory alone does no harm, and some tools write one for the archive itself.
        EntryType::Directory if bare.is_empty() || bare == "." => return Ok(()),
        EntryType::Regular | EntryType::Continuous => {}
        _ => return refused("is no plain file"),
    }
    if bare.is_empty() || bare == "." || bare == ".." || bare.contains(['/', '\\']) {
        return refused("leads out of the archive or into a directory");
    }
    if bare.len() > 255 || bare.chars().any(char::is_control) {
        return refused("has an impossible name");
    }
    if index.members.insert(bare.into(), member).is_some() {
        return refused("is there twice");
    }
    index.order.push(bare.into());
    if index.order.len() > MAX_MEMBERS {
        return Err(malformed(format!(
            "the archive has more than {MAX_MEMBERS} members"
        )));
    }
    Ok(())
}

/// Records of the form `length key=value\n`.
fn read_pax(mut text: &[u8], extended: &mut Extended) -> Result<(), ArchiveError> {
    let bad = || malformed("the archive has a malformed extended header");
    while !text.is_empty() {
        let space = text
            .iter()
            .take(20)
            .position(|&byte| byte == b' ')
            .ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&text[..space])
            .ok()
            .and_then(|t| t.parse().ok())
            .ok_or_else(bad)?;
        if length <= space + 1 || length > text.len() {
            return Err(bad());
        }
        let record = String::from_utf8_lossy(&text[space + 1..length]).into_owned();
        let (key, value) = record.trim_end_matches('\n').split_once('=').ok_or_else(bad)?;
        match key {
            "path" => extended.name = Some(value.into()),
            "size" => extended.size = Some(value.parse().map_err(|_| bad())?),
            // A sparse member is stored in another form than the plain one that we would read.
            key if key.starts_with("GNU.sparse") => {
                return Err(malformed(
                    "the archive has sparse members; make it with plain tar",
                ));
            }
            _ => {}
        }
        text = &text[length..];
    }
    Ok(())
}
