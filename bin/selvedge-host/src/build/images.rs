//! The image cache as the virtual machines see it.

use async_trait::async_trait;
use image::{Cache, Firmware, ImageRef};
use telemetry::chain;
use tokio::sync::watch;
use vm::{Image, ImageDisk, ImageError, Images};

/// Carries asks from the virtual machines to the cache.
pub(super) struct CachedImages(pub(super) Cache);

#[async_trait]
impl Images for CachedImages {
    async fn ensure(&self, reference: &str, progress: &watch::Sender<String>) -> Result<Image, ImageError> {
        let found = async {
            let image = ImageRef::parse(reference)?;
            self.0
                .ensure(&image, |now| progress.send_modify(|text| *text = now.to_string()))
                .await
        };
        let image = found.await.map_err(|error| {
            let text = chain(&error).to_string();
            match error {
                image::Error::NotFound { .. } | image::Error::BadReference { .. } => {
                    ImageError::NotFound(text)
                }
                _ => ImageError::NotReady(text),
            }
        })?;
        let disk = |disk: image::Disk| ImageDisk {
            path: disk.path,
            format: disk.format.as_str().into(),
            bytes: disk.virtual_size,
        };
        Ok(Image {
            disks: image.disks.into_iter().map(disk).collect(),
            digest: image.digest,
            efi: image.ovf.is_some_and(|ovf| ovf.firmware == Firmware::Efi),
        })
    }
}
