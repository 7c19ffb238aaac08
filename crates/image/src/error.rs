//! What can go wrong with an image, told apart by what a person does about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no image. Cheap to clone: everybody who waits for one image gets the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The name is no image name. Mend the manifest.
    #[error(
        "{name:?} is no image name: {reason}; write a file name in a library, host[:port]/path, or a URL (http, https, file)"
    )]
    BadReference {
        /// As written.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Somebody answered, and there is no such image. Mend the name or put the image there.
    #[error("image {image} does not exist (looked at {tried}); check the name, or put the file there")]
    NotFound {
        /// As written.
        image: String,
        /// Where it was looked for.
        tried: String,
    },
    /// A file of this host that is not in a library. Put the image into one, or add its directory to `host.toml`.
    #[error(
        "image {image} is in no image library of this host ({}); put it into one, or add its directory to images.libraries in host.toml",
        if .libraries.is_empty() { "it has none".to_owned() } else { .libraries.join(", ") }
    )]
    OutsideLibraries {
        /// As written.
        image: String,
        /// The directories that are libraries.
        libraries: Vec<String>,
    },
    /// Nobody answered, or not with the image. A later try may help.
    #[error(
        "image {image} cannot be fetched ({reason}); check the server and the network, the download goes on by itself"
    )]
    Unreachable {
        /// As written.
        image: String,
        /// What happened at each address.
        reason: String,
    },
    /// A file is not what its manifest says. The image is damaged or was tampered with.
    #[error(
        "{file} of image {image} is damaged: its {algorithm} should be {expected} and is {actual}; make or copy the image again"
    )]
    ChecksumMismatch {
        /// As written.
        image: String,
        /// Member of the archive.
        file: String,
        /// `SHA1`, `SHA256` or `SHA512`.
        algorithm: &'static str,
        /// From the manifest.
        expected: String,
        /// Of what is there.
        actual: String,
    },
    /// This is no image that can be used.
    #[error("{image} is no usable image: {reason}")]
    NotAnImage {
        /// As written.
        image: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The image asks for something that no image may ask for, such as a file outside of it.
    #[error("image {image} is refused as unsafe: {reason}; make the image again without it")]
    Unsafe {
        /// As written.
        image: String,
        /// What it asks for.
        reason: String,
    },
    /// Larger than allowed.
    #[error("{what} of image {image} is too large: {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// As written.
        image: String,
        /// What is too large.
        what: &'static str,
        /// Bytes; a lower bound if it is not known exactly.
        size: u64,
        /// Bytes.
        limit: u64,
    },
    /// The file system of the cache is full. What was begun has been removed.
    #[error("no space for image {image} in {}: {needed}; free some, or remove virtual machines or images", dir.display())]
    DiskFull {
        /// As written.
        image: String,
        /// The cache.
        dir: PathBuf,
        /// What is missing.
        needed: String,
    },
    /// The cache's own files cannot be read or written.
    #[error("{what} {} failed", path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// A program that is needed is missing or failed.
    #[error("{program} failed for image {image}: {reason}")]
    Tool {
        /// As written.
        image: String,
        /// For example `qemu-img`.
        program: &'static str,
        /// Its last words.
        reason: String,
    },
    /// The cache was closed while the image was on its way.
    #[error("the image cache was closed while {image} was being fetched")]
    Closed {
        /// As written.
        image: String,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.as_ref().into(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn not_an_image(image: &str, reason: impl Into<String>) -> Self {
        Self::NotAnImage {
            image: image.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn refused(image: &str, reason: impl Into<String>) -> Self {
        Self::Unsafe {
            image: image.into(),
            reason: reason.into(),
        }
    }

    /// A word in camel case, for conditions: `ImageNotFound`, `ImageUnreachable` and so on.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadReference { .. } => "ImageNameInvalid",
            Self::NotFound { .. } => "ImageNotFound",
            Self::OutsideLibraries { .. } => "ImageOutsideLibraries",
            Self::Unreachable { .. } => "ImageUnreachable",
            Self::ChecksumMismatch { .. } => "ImageChecksumMismatch",
            Self::NotAnImage { .. } => "ImageInvalid",
            Self::Unsafe { .. } => "ImageUnsafe",
            Self::TooLarge { .. } => "ImageTooLarge",
            Self::DiskFull { .. } => "ImageStoreFull",
            Self::Io { .. } => "ImageStoreFailed",
            Self::Tool { .. } => "ImageConversionFailed",
            Self::Closed { .. } => "ImageStoreClosed",
        }
    }

    /// Whether a later try can help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::DiskFull { .. }
                | Self::Io { .. }
                | Self::Tool { .. }
                | Self::Closed { .. }
        )
    }
}
