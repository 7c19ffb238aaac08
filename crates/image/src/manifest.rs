//! The manifest of an OVA: `SHA256(disk.vmdk)= 0123…`, one line per file (DMTF DSP0243, section 5.1).

/// A kind of checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 40 digits.
    Sha1,
    /// 64 digits.
    Sha256,
    /// 128 digits.
    Sha512,
}

impl Algorithm {
    /// As the manifest writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "SHA1" | "SHA-1" => Some(Self::Sha1),
            "SHA256" | "SHA-256" => Some(Self::Sha256),
            "SHA512" | "SHA-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// What one file should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Kind of checksum.
    pub algorithm: Algorithm,
    /// Member of the archive.
    pub file: String,
    /// In lower-case hexadecimal digits.
    pub digest: String,
}

/// The most lines.
const MAX_LINES: usize = 1024;

/// Reads a manifest.
///
/// # Errors
/// What is wrong, with the line's number.
pub fn parse(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
    {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if lines.len() >= MAX_LINES {
            return Err(format!("it has more than {MAX_LINES} lines"));
        }
        let read = || {
            let (algorithm, rest) = line.split_once('(')?;
            // The last one: a file name may hold brackets.
            let (file, digest) = rest.rsplit_once(')')?;
            let algorithm = Algorithm::parse(algorithm.trim())?;
            let digest = digest.trim().strip_prefix('=')?.trim().to_ascii_lowercase();
            let right = digest.len() == algorithm.digits() && digest.bytes().all(|b| b.is_ascii_hexdigit());
            right.then(|| Line {
                algorithm,
                file: file.into(),
                digest,
            })
        };
        lines.push(read().ok_or_else(|| format!("line {number} is not of the form SHA256(file)= digits"))?);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_field() {
        let hex = "A".repeat(40);
        let lines = parse(&format!(
            "SHA1(a (1).ovf)= {hex}\r\n\r\nSHA256 (b)={}\n",
            "0".repeat(64)
        ))
        .unwrap();
        assert_eq!(
            lines[0],
            Line {
                algorithm: Algorithm::Sha1,
                file: "a (1).ovf".into(),
                digest: "a".repeat(40)
            }
        );
        assert_eq!(lines[1].file, "b");
        for bad in ["SHA256(x)= 12", "MD5(x)= 0", "nonsense", "SHA1(x) 0"] {
            assert!(parse(bad).unwrap_err().starts_with("line 1 "), "{bad}");
        }
    }
}
