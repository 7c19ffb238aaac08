//! User data as people store it: plain, base64, or gzip in base64. Cloud-init in the guest gets it plain.

use std::io::Read;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::Error;

/// Greatest value, unpacked. Cloud-init itself has no bound; this one is far above any real user data.
pub const MAX: usize = 4 * 1024 * 1024;

/// What a value says about its own packing, in `guestinfo.userdata.encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Nothing is said: look.
    #[default]
    Guess,
    /// It is plain, whatever it looks like.
    Plain,
    /// It is base64, perhaps of gzip.
    Base64,
}

impl Encoding {
    /// Reads `base64`, `b64`, `gzip+base64`, `gz+b64`; anything else is a guess.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name.trim() {
            "base64" | "b64" | "gzip+base64" | "gz+b64" => Self::Base64,
            "plain" | "text/plain" => Self::Plain,
            _ => Self::Guess,
        }
    }
}

/// Unpacks a value. What can't be unpacked is taken as it is, as vm-operator does.
pub fn decode(key: &str, value: &[u8], encoding: Encoding) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge {
        key: key.into(),
        max: MAX,
    };
    if value.len() > 2 * MAX {
        return Err(too_large());
    }
    let mut bytes = value.to_vec();
    if encoding != Encoding::Plain
        && let Some(inner) = base64(value)
        && (encoding == Encoding::Base64 || is_gzip(&inner) || is_text(&inner))
    {
        bytes = inner;
    }
    if is_gzip(&bytes) {
        let mut plain = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(&bytes[..]).take(MAX as u64 + 1);
        // A damaged archive is left to cloud-init, which says so in the guest's log.
        if reader.read_to_end(&mut plain).is_ok() {
            bytes = plain;
        }
    }
    if bytes.len() > MAX {
        Err(too_large())
    } else {
        Ok(bytes)
    }
}

/// Decodes base64 that may be broken into lines. Text that is no base64 as a whole is `None`.
fn base64(value: &[u8]) -> Option<Vec<u8>> {
    let compact: Vec<u8> = value
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    // Short words ("test", "true") are base64 by chance.
    if compact.len() < 12 {
        None
    } else {
        STANDARD.decode(compact).ok()
    }
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b, 8])
}

/// Whether bytes are text. Something plain that decodes as base64 by chance decodes to noise.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|t| {
        !t.chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const CLOUD_CONFIG: &[u8] = b"#cloud-config\nhostname: {{ v1.local_hostname }}\n";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn guess(value: impl AsRef<[u8]>) -> Vec<u8> {
        decode("user-data", value.as_ref(), Encoding::Guess).unwrap()
    }

    #[test]
    fn all_four_ways_of_writing_give_the_same() {
        assert_eq!(guess(CLOUD_CONFIG), CLOUD_CONFIG);
        assert_eq!(guess(STANDARD.encode(CLOUD_CONFIG)), CLOUD_CONFIG);
        assert_eq!(guess(STANDARD.encode(gzip(CLOUD_CONFIG))), CLOUD_CONFIG);
        assert_eq!(guess(gzip(CLOUD_CONFIG)), CLOUD_CONFIG);
        let lines = STANDARD
            .encode(CLOUD_CONFIG)
            .as_bytes()
            .chunks(20)
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
            .join(&b"\n"[..]);
        assert_eq!(guess(lines), CLOUD_CONFIG);
    }

    #[test]
    fn words_that_happen_to_be_base64_stay() {
        for plain in ["true", "abcdefghijkl", "AAAAAAAAAAAAAAAA"] {
            assert_eq!(guess(plain), plain.as_bytes());
        }
    }

    #[test]
    fn what_is_said_to_be_plain_stays() {
        let value = STANDARD.encode(CLOUD_CONFIG);
        assert_eq!(
            decode("k", value.as_bytes(), Encoding::Plain).unwrap(),
            value.as_bytes()
        );
        assert_eq!(Encoding::of("gzip+base64"), Encoding::Base64);
    }

    #[test]
    fn a_zip_bomb_is_refused() {
        let bomb = gzip(&vec![0; MAX + 1]);
        assert!(bomb.len() < 16 * 1024);
        assert!(matches!(
            decode("user-data", &bomb, Encoding::Guess),
            Err(Error::TooLarge { max: MAX, .. })
        ));
    }

    proptest! {
        #[test]
        fn packed_text_comes_back(text in "#[ -~\n]{16,200}") {
            prop_assert_eq!(guess(STANDARD.encode(&text)), text.as_bytes());
            prop_assert_eq!(guess(STANDARD.encode(gzip(text.as_bytes()))), text.as_bytes());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode("k", &bytes, Encoding::Guess);
            let _ = decode("k", &bytes, Encoding::Base64);
        }
    }
}
