//! A small ISO 9660 writer: files in the root directory only.
//!
//! Linux reads the names from Rock Ridge, Windows from Joliet; both keep case and `-`. The names in the plain
//! tree are made to fit ISO 9660 level 1 and nobody reads them. All times are 1980-01-01, so that the same
//! files give the same bytes.
//!
//! Layout in sectors of 2,048 bytes: 16 primary descriptor, 17 Joliet descriptor, 18 terminator, 19–22 path
//! tables (little and big endian for each tree), then the two root directories, then the files.

/// Bytes in a sector.
pub const SECTOR: usize = 2048;
/// Greatest number of files, and of characters in a name, that fit the fixed parts.
const MAX_FILES: usize = 64;
const MAX_NAME: usize = 64;
const PATH_TABLES: usize = 19;
const ROOT: usize = 23;
/// 1980-01-01 00:00:00 UTC as in a directory record: years since 1900, month, day, time, zone.
const RECORDED: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];

/// A file for the CD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name: letters, digits, `.`, `-`, `_`.
    pub name: String,
    /// Content.
    pub content: Vec<u8>,
}

/// Where a file's bytes are.
#[derive(Clone, Copy)]
struct Extent {
    sector: u32,
    bytes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    /// ISO 9660 with Rock Ridge.
    Primary,
    Joliet,
}

/// The bytes of a CD. At most 64 files of names up to 64 characters are taken; more are left out.
#[must_use]
pub fn image(label: &str, files: &[File]) -> Vec<u8> {
    let mut files: Vec<&File> = files
        .iter()
        .filter(|f| f.name.len() <= MAX_NAME)
        .take(MAX_FILES)
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));

    // The directories' sizes do not depend on where the files are, so they are laid out twice.
    let nowhere = vec![Extent { sector: 0, bytes: 0 }; files.len()];
    let here = Extent { sector: 0, bytes: 0 };
    let primary_sectors = directory(Tree::Primary, here, &files, &nowhere).len() / SECTOR;
    let joliet_sectors = directory(Tree::Joliet, here, &files, &nowhere).len() / SECTOR;
    let primary = extent(ROOT, primary_sectors * SECTOR);
    let joliet = extent(ROOT + primary_sectors, joliet_sectors * SECTOR);
    let mut next = ROOT + primary_sectors + joliet_sectors;
    let extents: Vec<Extent> = files
        .iter()
        .map(|file| {
            let at = extent(next, file.content.len());
            next += file.content.len().div_ceil(SECTOR);
            at
        })
        .collect();

    let mut out = vec![0; 16 * SECTOR];
    out.extend(descriptor(Tree::Primary, label, next, primary));
    out.extend(descriptor(Tree::Joliet, label, next, joliet));
    out.extend(sectors(b"\xffCD001\x01".to_vec()));
    for root in [primary, joliet] {
        out.extend(sectors(path_table(
            &root.sector.to_le_bytes(),
            1u16.to_le_bytes(),
        )));
        out.extend(sectors(path_table(
            &root.sector.to_be_bytes(),
            1u16.to_be_bytes(),
        )));
    }
    out.extend(directory(Tree::Primary, primary, &files, &extents));
    out.extend(directory(Tree::Joliet, joliet, &files, &extents));
    for file in files {
        out.extend(sectors(file.content.clone()));
    }
    out
}

fn extent(sector: usize, bytes: usize) -> Extent {
    // The callers' bound on input is megabytes, far below what 32 bits hold.
    let fit = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Extent {
        sector: fit(sector),
        bytes: fit(bytes),
    }
}

/// Fills up to whole sectors.
fn sectors(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes
}

fn both_endian_32(value: u32) -> [u8; 8] {
    let (le, be) = (value.to_le_bytes(), value.to_be_bytes());
    [le[0], le[1], le[2], le[3], be[0], be[1], be[2], be[3]]
}

fn both_endian_16(value: u16) -> [u8; 4] {
    let (le, be) = (value.to_le_bytes(), value.to_be_bytes());
    [le[0], le[1], be[0], be[1]]
}

/// The path table of a tree that is only a root: one record of ten bytes.
fn path_table(sector: &[u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut out = vec![1, 0];
    out.extend(sector);
    out.extend(parent);
    out.extend([0, 0]);
    out
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A text field filled up with spaces.
fn field(tree: Tree, text: &str, width: usize) -> Vec<u8> {
    let (mut bytes, filler): (Vec<u8>, &[u8]) = match tree {
        Tree::Primary => (text.bytes().collect(), b" "),
        Tree::Joliet => (ucs2(text), b"\0 "),
    };
    bytes.truncate(width);
    while bytes.len() < width {
        bytes.extend(filler);
    }
    // An odd width leaves half a character in UCS-2.
    bytes.truncate(width);
    bytes
}

fn descriptor(tree: Tree, label: &str, volume_sectors: usize, root: Extent) -> Vec<u8> {
    let mut out = vec![if tree == Tree::Primary { 1 } else { 2 }];
    out.extend(b"CD001\x01\0");
    out.extend(field(tree, "", 32));
    out.extend(field(tree, label, 32));
    out.extend([0; 8]);
    out.extend(both_endian_32(extent(volume_sectors, 0).sector));
    let mut escapes = [0; 32];
    if tree == Tree::Joliet {
        // UCS-2 level 3.
        escapes[..3].copy_from_slice(b"%/E");
    }
    out.extend(escapes);
    out.extend(both_endian_16(1));
    out.extend(both_endian_16(1));
    out.extend(both_endian_16(2048));
    out.extend(both_endian_32(10));
    let tables = extent(PATH_TABLES + if tree == Tree::Primary { 0 } else { 2 }, 0).sector;
    out.extend(tables.to_le_bytes());
    out.extend([0; 4]);
    out.extend((tables + 1).to_be_bytes());
    out.extend([0; 4]);
    out.extend(record(&[0], root, true, &[]));
    for width in [128, 128, 128, 128, 37, 37, 37] {
        out.extend(field(tree, "", width));
    }
    // Created, changed: a date; expires, effective: none.
    for _ in 0..2 {
        out.extend(b"1980010100000000\0");
    }
    for _ in 0..2 {
        out.extend(b"0000000000000000\0");
    }
    out.push(1);
    sectors(out)
}

/// A directory record. `system_use` holds the Rock Ridge fields.
fn record(name: &[u8], at: Extent, directory: bool, system_use: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(both_endian_32(at.sector));
    out.extend(both_endian_32(at.bytes));
    out.extend(RECORDED);
    out.push(if directory { 2 } else { 0 });
    out.extend([0, 0]);
    out.extend(both_endian_16(1));
    out.push(name.len().try_into().unwrap_or(u8::MAX));
    out.extend(name);
    if name.len().is_multiple_of(2) {
        out.push(0);
    }
    out.extend(system_use);
    if !out.len().is_multiple_of(2) {
        out.push(0);
    }
    out[0] = out.len().try_into().unwrap_or(u8::MAX);
    out
}

/// A root directory in whole sectors; no record crosses from one sector into the next.
fn directory(tree: Tree, own: Extent, files: &[&File], extents: &[Extent]) -> Vec<u8> {
    let rock_ridge = |parts: &[&[u8]]| {
        if tree == Tree::Primary {
            parts.concat()
        } else {
            Vec::new()
        }
    };
    let mode_directory = posix(0o040_555, 2);
    let mut records = vec![
        record(
            &[0],
            own,
            true,
            &rock_ridge(&[
                b"SP\x07\x01\xbe\xef\0",
                &mode_directory,
                b"ER\x12\x01\x0a\0\0\x01RRIP_1991A",
            ]),
        ),
        record(&[1], own, true, &rock_ridge(&[&mode_directory])),
    ];
    for (index, (file, at)) in files.iter().zip(extents).enumerate() {
        records.push(match tree {
            Tree::Primary => {
                let mut name = vec![b'N', b'M', 0, 1, 0];
                name.extend(file.name.bytes());
                name[2] = name.len().try_into().unwrap_or(u8::MAX);
                record(
                    &plain_name(index),
                    *at,
                    false,
                    &rock_ridge(&[&posix(0o100_444, 1), &name]),
                )
            }
            Tree::Joliet => record(&ucs2(&file.name), *at, false, &[]),
        });
    }
    let mut out: Vec<u8> = Vec::new();
    for record in records {
        if out.len() % SECTOR + record.len() > SECTOR {
            out = sectors(out);
        }
        out.extend(record);
    }
    sectors(out)
}

/// The name in the plain tree: `F00.;1`, in the same order as the files.
fn plain_name(index: usize) -> Vec<u8> {
    format!("F{index:02}.;1").into_bytes()
}

/// Rock Ridge's `PX`: mode, links, user and group root.
fn posix(mode: u32, links: u32) -> Vec<u8> {
    let mut out = b"PX\x24\x01".to_vec();
    for value in [mode, links, 0, 0] {
        out.extend(both_endian_32(value));
    }
    out
}
