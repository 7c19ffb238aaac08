//! Where disks come from: the small part of the image cache that this domain needs.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::sync::watch;

/// An image in the cache. Its files are read-only and stay for as long as disks rest on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its disks in order.
    pub disks: Vec<ImageDisk>,
    /// Checksum of what was downloaded.
    pub digest: String,
    /// Whether its description asks for EFI.
    pub efi: bool,
}

/// A disk of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDisk {
    /// File.
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Size that a guest sees, in bytes.
    pub bytes: u64,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is none of that name.
    #[error("{0}")]
    NotFound(String),
    /// It could not be had or is damaged; a later try may help.
    #[error("{0}")]
    NotReady(String),
}

/// A cache of images.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Brings an image into the cache; there already is quick. `progress` is told what goes on, for people.
    async fn ensure(&self, reference: &str, progress: &watch::Sender<String>) -> Result<Image, ImageError>;
}

#[async_trait]
impl Images for image::Cache {
    async fn ensure(&self, reference: &str, progress: &watch::Sender<String>) -> Result<Image, ImageError> {
        let sort = |error: image::Error| {
            let message = telemetry::chain(&error).to_string();
            match error {
                image::Error::NotFound { .. } | image::Error::BadReference { .. } => {
                    ImageError::NotFound(message)
                }
                _ => ImageError::NotReady(message),
            }
        };
        let name = image::ImageRef::parse(reference).map_err(sort)?;
        let tell = |so_far: image::Progress| {
            progress.send_replace(so_far.to_string());
        };
        let cached = Self::ensure(self, &name, tell).await.map_err(sort)?;
        let disks = cached.disks.into_iter().map(|disk| ImageDisk {
            path: disk.path,
            format: disk.format.as_str().into(),
            bytes: disk.virtual_size,
        });
        Ok(Image {
            disks: disks.collect(),
            digest: cached.digest,
            efi: cached.ovf.is_some_and(|ovf| ovf.firmware == image::Firmware::Efi),
        })
    }
}
