//! Guest bootstrap media: what a guest reads at its first start. Pure, bytes out.
//!
//! A [`Request`] says who the virtual machine is, which network cards it has and what its ConfigMap or
//! Secret holds; [`Media::new`] gives the files and [`Media::iso`] the bytes of a CD to put them on. The same
//! request gives the same bytes, so that a CD is only written when something changed.
//!
//! | transport | files | volume label | read by |
//! |---|---|---|---|
//! | `CloudInit`, `ExtraConfig` | `meta-data`, `user-data`, `network-config`, `vendor-data` | `cidata` | cloud-init (NoCloud), cloudbase-init |
//! | `OvfEnv`, `vAppConfig` | `ovf-env.xml` | `OVF ENV` | cloud-init (OVF), appliances |
//! | `Sysprep` | `unattend.xml`, `autounattend.xml` | `sysprep` | Windows setup |
//!
//! | module | what it is |
//! |---|---|
//! | [`media`] | request in, files out |
//! | [`iso`] | files in, ISO 9660 with Joliet and Rock Ridge out |
//! | [`network`] | network configuration (netplan version 2): the default, and setting right what people wrote |
//! | [`userdata`] | plain, base64 or gzip in base64: to plain |
//! | [`template`] | the `{{ V1alpha1_… }}` functions |
//! | [`ovf`] | the OVF environment document |
//!
//! What is odd in the input is not an error: it is delivered as well as it can be, and a note in
//! [`Media::notes`] says so; the caller puts the notes into a condition. Only input over a bound is an error.
//!
//! Sources: cloud-init's documentation of NoCloud, OVF and network configuration version 2; ECMA-119,
//! Joliet, SUSP and RRIP for the CD; DSP0243 chapter 11 for the OVF environment.

pub mod iso;
pub mod media;
pub mod network;
pub mod ovf;
pub mod template;
pub mod userdata;

pub use media::{Media, Nic, Request, Transport};

/// Why there is no media.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value is, or unpacks to, more than the bound.
    #[error("{key} is larger than {max} bytes")]
    TooLarge {
        /// The key.
        key: String,
        /// The bound.
        max: usize,
    },
}
