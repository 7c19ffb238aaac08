//! From a file that was fetched to disks that a virtual machine can rest on.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::archive::{self, ArchiveError, Index, Member};
use crate::manifest::{self, Algorithm};
use crate::ovf::{self, Ovf, OvfInfo};
use crate::probe::{self, Content, ProbeError};
use crate::progress::{Progress, Report};
use crate::{Disk, DiskFormat, Error, Limits, convert, files};

/// The largest manifest.
const MAX_MANIFEST: u64 = 1 << 20;

/// What became of a file.
pub(crate) struct Imported {
    pub(crate) disks: Vec<Disk>,
    pub(crate) ovf: Option<OvfInfo>,
    pub(crate) digest: String,
}

/// A file to import.
pub(crate) struct Source {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Whether it may be moved away (a download) or has to stay (a library).
    pub(crate) ours: bool,
}

/// Imports a file into an empty directory.
pub(crate) async fn import(
    image: &str,
    source: &Source,
    work: &Path,
    limits: &Limits,
    report: &(impl Fn(Progress) + Clone + Send + Sync + 'static),
) -> Result<Imported, Error> {
    let (path, name, report_digest) = (source.path.clone(), image.to_owned(), report.clone());
    let (digest, content) = blocking(image, move || {
        let mut file = open(&path)?;
        let size = length(&file, &path)?;
        let all = Member { offset: 0, size };
        let digest = files::digest(&mut file, all, Algorithm::Sha256, &report_digest)
            .map_err(|e| Error::io("reading", &path, e))?;
        Ok((
            format!("sha256:{digest}"),
            probe_part(&name, &mut file, all, &path)?,
        ))
    })
    .await?;

    if content == Content::Tar {
        let (disks, ovf) = ova(image, &source.path, work, limits, report).await?;
        return Ok(Imported {
            disks,
            ovf: Some(ovf),
            digest,
        });
    }
    let (path, ours, content) = match content {
        Content::Gzip => {
            let unpacked = work.join("unpacked");
            let (name, from, to, limit, report) = (
                image.to_owned(),
                source.path.clone(),
                unpacked.clone(),
                limits.virtual_size,
                report.clone(),
            );
            let content = blocking(image, move || {
                let size = files::gunzip(&name, &from, &to, limit, &report)?;
                probe_part(&name, &mut open(&to)?, Member { offset: 0, size }, &to)
            })
            .await?;
            (unpacked, true, content)
        }
        content => (source.path.clone(), source.ours, content),
    };
    let disk = whole_disk(image, &path, ours, content, work, limits, report).await?;
    if path != source.path {
        // Moved into place, or not needed any more.
        let _ = fs::remove_file(&path);
    }
    Ok(Imported {
        disks: vec![disk],
        ovf: None,
        digest,
    })
}

/// A file that is a disk, not an archive.
async fn whole_disk(
    image: &str,
    path: &Path,
    ours: bool,
    content: Content,
    work: &Path,
    limits: &Limits,
    report: &(impl Fn(Progress) + Clone + Send + Sync + 'static),
) -> Result<Disk, Error> {
    let size = fs::metadata(path)
        .map_err(|e| Error::io("reading", path, e))?
        .len();
    let part = Member { offset: 0, size };
    let Placed { format, virtual_size } = placed(image, content, limits)?;
    let target = work.join(file_name(0, format));
    if let Content::Vmdk { .. } = content {
        convert::vmdk_to_qcow2(image, path, part, virtual_size, &target, report).await?;
    } else {
        let (name, from, to, report) = (image.to_owned(), path.to_owned(), target.clone(), report.clone());
        let limits = *limits;
        blocking(image, move || {
            if ours {
                return fs::rename(&from, &to).map_err(|e| files::write_error(&name, &to, e));
            }
            files::copy(&name, &from, part, &to, &report)?;
            // The original may have been changed meanwhile: what counts is the copy.
            let copied = probe_part(&name, &mut open(&to)?, part, &to)?;
            placed(&name, copied, &limits).map(|_| ())
        })
        .await?;
    }
    Ok(Disk {
        path: target,
        format,
        virtual_size,
    })
}

/// What a disk will be in the cache.
struct Placed {
    format: DiskFormat,
    virtual_size: u64,
}

fn placed(image: &str, content: Content, limits: &Limits) -> Result<Placed, Error> {
    let (format, virtual_size) = match content {
        Content::Qcow2 { virtual_size } | Content::Vmdk { virtual_size } => (DiskFormat::Qcow2, virtual_size),
        Content::Raw { virtual_size } => (DiskFormat::Raw, virtual_size),
        Content::Tar | Content::Gzip => {
            return Err(Error::not_an_image(
                image,
                "it is an archive in an archive; unpack it first",
            ));
        }
    };
    if virtual_size > limits.virtual_size {
        let limit = limits.virtual_size;
        return Err(Error::TooLarge {
            image: image.into(),
            what: "a disk",
            size: virtual_size,
            limit,
        });
    }
    if virtual_size == 0 {
        return Err(Error::not_an_image(image, "its disk has no size"));
    }
    Ok(Placed { format, virtual_size })
}

fn file_name(index: usize, format: DiskFormat) -> String {
    match format {
        DiskFormat::Qcow2 => format!("disk-{index}.qcow2"),
        DiskFormat::Raw => format!("disk-{index}.img"),
    }
}

/// An archive with a description.
async fn ova(
    image: &str,
    path: &Path,
    work: &Path,
    limits: &Limits,
    report: &(impl Fn(Progress) + Clone + Send + Sync + 'static),
) -> Result<(Vec<Disk>, OvfInfo), Error> {
    let (name, from, verify_report, checked) = (image.to_owned(), path.to_owned(), report.clone(), *limits);
    let (info, parts) = blocking(image, move || read_ova(&name, &from, &checked, &verify_report)).await?;
    let mut disks = Vec::new();
    for (index, (member, content)) in parts.into_iter().enumerate() {
        let Placed { format, virtual_size } = placed(image, content, limits)?;
        let target = work.join(file_name(index, format));
        if let Content::Vmdk { .. } = content {
            let whole_sectors = member.offset % 512 == 0 && member.size % 512 == 0;
            if whole_sectors {
                convert::vmdk_to_qcow2(image, path, member, virtual_size, &target, report).await?;
            } else {
                let alone = work.join("member");
                let (name, from, to, report_copy) =
                    (image.to_owned(), path.to_owned(), alone.clone(), report.clone());
                blocking(image, move || {
                    files::copy(&name, &from, member, &to, &report_copy)
                })
                .await?;
                let all = Member {
                    offset: 0,
                    size: member.size,
                };
                convert::vmdk_to_qcow2(image, &alone, all, virtual_size, &target, report).await?;
                fs::remove_file(&alone).map_err(|e| Error::io("removing", &alone, e))?;
            }
        } else {
            let (name, from, to, report) =
                (image.to_owned(), path.to_owned(), target.clone(), report.clone());
            blocking(image, move || files::copy(&name, &from, member, &to, &report)).await?;
        }
        disks.push(Disk {
            path: target,
            format,
            virtual_size,
        });
    }
    Ok((disks, info))
}

/// Reads and checks an archive: what it says, and where its disks are and what they are.
fn read_ova(
    image: &str,
    path: &Path,
    limits: &Limits,
    report: Report<'_>,
) -> Result<(OvfInfo, Vec<(Member, Content)>), Error> {
    let mut file = open(path)?;
    let index = archive::index(&mut file).map_err(|error| match error {
        ArchiveError::Malformed(reason) => Error::not_an_image(image, reason),
        ArchiveError::Unsafe(reason) => Error::refused(image, reason),
        ArchiveError::Io(source) => Error::io("reading", path, source),
    })?;
    let ovf_name = only(image, &index, ".ovf")?
        .ok_or_else(|| Error::not_an_image(image, "the archive has no .ovf description, so it is no OVA"))?;
    let text = read_text(image, &mut file, path, &index, &ovf_name, ovf::MAX_BYTES)?;
    let Ovf {
        info,
        files: declared,
    } = ovf::parse(text.trim_start_matches('\u{feff}'))
        .map_err(|reason| Error::not_an_image(image, reason))?;
    verify(image, &mut file, path, &index, report)?;

    let mut parts = Vec::new();
    for disk in &info.disks {
        let Some(name) = &disk.file else { continue };
        let Some(&member) = index.members.get(name.as_str()) else {
            // A path or a URL is as little in the archive as a missing file.
            let outside = name.contains(['/', '\\', ':']);
            let reason = format!("its OVF refers to the file {name:?}, which is not in the archive");
            return Err(if outside {
                Error::refused(image, reason)
            } else {
                Error::not_an_image(image, reason)
            });
        };
        let said = declared.get(name);
        if let Some(said) = said.filter(|said| !matches!(said.compression.as_str(), "" | "identity")) {
            let reason = format!(
                "the disk {name:?} has {} compression, which is not supported",
                said.compression
            );
            return Err(Error::not_an_image(image, reason));
        }
        if let Some(size) = said
            .and_then(|said| said.size)
            .filter(|&size| size != member.size)
        {
            let reason = format!(
                "the disk {name:?} should have {size} bytes and has {}",
                member.size
            );
            return Err(Error::not_an_image(image, reason));
        }
        let content = probe_part(&format!("{name} of {image}"), &mut file, member, path)?;
        placed(image, content, limits)?;
        parts.push((member, content));
    }
    if parts.is_empty() {
        return Err(Error::not_an_image(image, "its OVF has no disk with a file"));
    }
    Ok((info, parts))
}

/// The only member with an extension; `None` if there is none.
fn only(image: &str, index: &Index, extension: &str) -> Result<Option<String>, Error> {
    let mut found = index
        .order
        .iter()
        .filter(|name| name.to_ascii_lowercase().ends_with(extension));
    let first = found.next().cloned();
    if found.next().is_some() {
        return Err(Error::not_an_image(
            image,
            format!("the archive has more than one {extension} file"),
        ));
    }
    Ok(first)
}

fn read_text(
    image: &str,
    file: &mut File,
    path: &Path,
    index: &Index,
    name: &str,
    limit: u64,
) -> Result<String, Error> {
    let Some(&member) = index.members.get(name) else {
        return Err(Error::not_an_image(image, format!("the archive has no {name}")));
    };
    if member.size > limit {
        return Err(Error::TooLarge {
            image: image.into(),
            what: "the description",
            size: member.size,
            limit,
        });
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(member.offset))
        .and_then(|_| file.take(member.size).read_to_end(&mut bytes))
        .map_err(|e| Error::io("reading", path, e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Holds every member against the manifest, if there is one.
fn verify(image: &str, file: &mut File, path: &Path, index: &Index, report: Report<'_>) -> Result<(), Error> {
    let Some(name) = only(image, index, ".mf")? else {
        tracing::warn!(image, "the OVA has no manifest: its content cannot be verified");
        return Ok(());
    };
    let text = read_text(image, file, path, index, &name, MAX_MANIFEST)?;
    let lines = manifest::parse(&text).map_err(|reason| {
        Error::not_an_image(image, format!("its manifest {name} is malformed: {reason}"))
    })?;
    let mut verified = Vec::new();
    for line in &lines {
        let Some(&member) = index.members.get(&line.file) else {
            let reason = format!("its manifest names {:?}, which is not in the archive", line.file);
            return Err(Error::not_an_image(image, reason));
        };
        let actual =
            files::digest(file, member, line.algorithm, report).map_err(|e| Error::io("reading", path, e))?;
        if actual != line.digest {
            return Err(Error::ChecksumMismatch {
                image: image.into(),
                file: line.file.clone(),
                algorithm: line.algorithm.name(),
                expected: line.digest.clone(),
                actual,
            });
        }
        verified.push(line.file.as_str());
    }
    let left_out = |name: &&String| {
        let lower = name.to_ascii_lowercase();
        !lower.ends_with(".mf") && !lower.ends_with(".cert") && !verified.contains(&name.as_str())
    };
    if let Some(name) = index.order.iter().find(left_out) {
        let reason = format!("its manifest has no checksum of {name:?}; make the manifest again");
        return Err(Error::not_an_image(image, reason));
    }
    Ok(())
}

fn probe_part(image: &str, file: &mut File, part: Member, path: &Path) -> Result<Content, Error> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(part.offset))
        .and_then(|_| {
            file.take(part.size.min(probe::HEAD as u64))
                .read_to_end(&mut head)
        })
        .map_err(|e| Error::io("reading", path, e))?;
    probe::probe(&head, part.size).map_err(|error| match error {
        ProbeError::NotAnImage(reason) => Error::not_an_image(image, reason),
        ProbeError::Unsafe(reason) => Error::refused(image, reason),
    })
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| Error::io("reading", path, e))
}

fn length(file: &File, path: &Path) -> Result<u64, Error> {
    let meta = file.metadata().map_err(|e| Error::io("reading", path, e))?;
    Ok(meta.len())
}

pub(crate) async fn blocking<T: Send + 'static>(
    image: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::Closed { image: image.into() }))
}
