//! Small things with files: hashing, copying, unpacking, durable renames. All of it blocks.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::Error;
use crate::archive::Member;
use crate::manifest::Algorithm;
use crate::progress::{Phase, Progress, Report};

const PIECE: usize = 1 << 20;

/// Whether an error says that the file system is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// An error of writing into the cache: full, or something else.
pub(crate) fn write_error(image: &str, path: &Path, source: io::Error) -> Error {
    if is_full(&source) {
        let dir = path.parent().unwrap_or(path).to_owned();
        return Error::DiskFull {
            image: image.into(),
            dir,
            needed: "the file system is full".into(),
        };
    }
    Error::io("writing", path, source)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum of a part of a file.
pub(crate) fn digest(
    file: &mut File,
    part: Member,
    algorithm: Algorithm,
    report: Report<'_>,
) -> io::Result<String> {
    match algorithm {
        Algorithm::Sha1 => digest_with::<Sha1>(file, part, report),
        Algorithm::Sha256 => digest_with::<Sha256>(file, part, report),
        Algorithm::Sha512 => digest_with::<Sha512>(file, part, report),
    }
}

fn digest_with<D: Digest>(file: &mut File, part: Member, report: Report<'_>) -> io::Result<String> {
    let mut hasher = D::new();
    each_piece(file, part, |piece, done| {
        hasher.update(piece);
        report(Progress {
            phase: Phase::Verifying,
            done,
            total: Some(part.size),
        });
        Ok(())
    })?;
    Ok(hex(&hasher.finalize()))
}

fn each_piece(
    file: &mut File,
    part: Member,
    mut piece: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(part.offset))?;
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    while done < part.size {
        let want = usize::try_from(part.size - done).unwrap_or(PIECE).min(PIECE);
        let got = file.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += got as u64;
        piece(&buffer[..got], done)?;
    }
    Ok(())
}

/// Copies a part of a file into a new one. A whole file shares its blocks where the file system can.
pub(crate) fn copy(
    image: &str,
    source: &Path,
    part: Member,
    target: &Path,
    report: Report<'_>,
) -> Result<(), Error> {
    let mut input = File::open(source).map_err(|e| Error::io("reading", source, e))?;
    let whole = part.offset == 0 && input.metadata().is_ok_and(|meta| meta.len() == part.size);
    if whole {
        fs::copy(source, target).map_err(|e| write_error(image, target, e))?;
        return Ok(());
    }
    let mut output = File::create(target).map_err(|e| write_error(image, target, e))?;
    each_piece(&mut input, part, |piece, done| {
        report(Progress {
            phase: Phase::Converting,
            done,
            total: Some(part.size),
        });
        output.write_all(piece)
    })
    .map_err(|e| write_error(image, target, e))
}

/// Unpacks a gzip file, leaving holes where there are only zeros.
pub(crate) fn gunzip(
    image: &str,
    source: &Path,
    target: &Path,
    limit: u64,
    report: Report<'_>,
) -> Result<u64, Error> {
    let input = File::open(source).map_err(|e| Error::io("reading", source, e))?;
    let mut input = flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(PIECE, input));
    let mut output = File::create(target).map_err(|e| write_error(image, target, e))?;
    let mut buffer = vec![0; PIECE];
    let mut size: u64 = 0;
    loop {
        let got = input
            .read(&mut buffer)
            .map_err(|e| Error::not_an_image(image, format!("its gzip data is damaged ({e})")))?;
        if got == 0 {
            break;
        }
        size += got as u64;
        if size > limit {
            return Err(Error::TooLarge {
                image: image.into(),
                what: "the unpacked disk",
                size,
                limit,
            });
        }
        let piece = &buffer[..got];
        let written = if piece.iter().all(|&byte| byte == 0) {
            output
                .seek(SeekFrom::Current(got.try_into().unwrap_or(0)))
                .map(|_| ())
        } else {
            output.write_all(piece)
        };
        written.map_err(|e| write_error(image, target, e))?;
        report(Progress {
            phase: Phase::Converting,
            done: size,
            total: None,
        });
    }
    output.set_len(size).map_err(|e| write_error(image, target, e))?;
    Ok(size)
}

/// Makes a file last: its content is on disk, and nobody writes it any more.
pub(crate) fn seal(image: &str, path: &Path) -> Result<(), Error> {
    let set = || {
        let file = File::open(path)?;
        let mut permissions = file.metadata()?.permissions();
        permissions.set_readonly(true);
        file.set_permissions(permissions)?;
        file.sync_all()
    };
    set().map_err(|e| write_error(image, path, e))
}

/// Makes names in a directory last.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io("syncing", path, e))
}

/// Writes a small file whole or not at all.
pub(crate) fn write_whole(image: &str, path: &Path, text: &[u8]) -> Result<(), Error> {
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(|e| write_error(image, path, e))
}

/// Bytes that an unprivileged writer may still use.
pub(crate) fn free_space(dir: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let (blocks, size): (u64, u64) = (stat.blocks_available(), stat.fragment_size());
    blocks.checked_mul(size)
}
