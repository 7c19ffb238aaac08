//! Converting disks with `qemu-img`, under limits.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::Error;
use crate::archive::Member;
use crate::progress::{Phase, Progress, Report};

/// Address space of `qemu-img`; it maps much and uses little.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Processor time in seconds: an hour converts terabytes.
const CPU_SECONDS: u32 = 3600;
/// What is kept of its last words.
const MAX_WORDS: usize = 2000;

/// Converts a VMDK inside of a file, where it lies, into a qcow2 file. The header has been checked: it refers to nothing.
pub(crate) async fn vmdk_to_qcow2(
    image: &str,
    source: &Path,
    member: Member,
    virtual_size: u64,
    target: &Path,
    report: Report<'_>,
) -> Result<(), Error> {
    // A qcow2 file is never much larger than its disk; whatever writes more is not converting.
    let most = virtual_size
        .saturating_add(virtual_size / 8)
        .saturating_add(64 << 20);
    let mut options = String::from("driver=vmdk,");
    // Without a window the source is opened as it is: the raw driver wants whole sectors.
    if member.offset == 0 {
        options.push_str("file.driver=file,file.filename=");
    } else {
        options.push_str(&format!(
            "file.driver=raw,file.offset={},file.size={},file.file.driver=file,file.file.filename=",
            member.offset, member.size
        ));
    }
    // A comma in a value is written twice.
    options.push_str(&source.to_string_lossy().replace(',', ",,"));

    report(Progress {
        phase: Phase::Converting,
        done: 0,
        total: Some(virtual_size),
    });
    let mut child = Command::new("prlimit")
        .args([
            format!("--as={ADDRESS_SPACE}"),
            format!("--cpu={CPU_SECONDS}"),
            format!("--fsize={most}"),
            "--core=0".into(),
            "--nofile=64".into(),
        ])
        .args([
            "--",
            "qemu-img",
            "convert",
            "-p",
            "--image-opts",
            &options,
            "-O",
            "qcow2",
        ])
        .arg(target)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            tool(
                image,
                format!("it cannot be started ({e}); install util-linux and qemu-utils"),
            )
        })?;

    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let watch = async {
        let mut buffer = [0; 256];
        let Some(out) = &mut out else { return };
        while let Ok(got @ 1..) = out.read(&mut buffer).await {
            if let Some(done) = percent(&buffer[..got]).map(|p| part(virtual_size, p)) {
                report(Progress {
                    phase: Phase::Converting,
                    done,
                    total: Some(virtual_size),
                });
            }
        }
    };
    let listen = async {
        let mut words = Vec::new();
        if let Some(err) = &mut err {
            let mut buffer = [0; 1024];
            while let Ok(got @ 1..) = err.read(&mut buffer).await {
                let room = MAX_WORDS.saturating_sub(words.len()).min(got);
                words.extend_from_slice(&buffer[..room]);
            }
        }
        String::from_utf8_lossy(&words).trim().to_owned()
    };
    let ((), words, status) = tokio::join!(watch, listen, child.wait());
    let status = status.map_err(|e| tool(image, e.to_string()))?;
    if status.success() {
        return Ok(());
    }
    if words.contains("No space left") || words.contains("Disk quota exceeded") {
        let dir = target.parent().unwrap_or(target).to_owned();
        return Err(Error::DiskFull {
            image: image.into(),
            dir,
            needed: "the file system is full".into(),
        });
    }
    if status.code().is_some() && words.contains("qemu-img: ") {
        return Err(Error::not_an_image(
            image,
            format!("its disk is damaged: {words}"),
        ));
    }
    Err(tool(image, format!("{status}: {words}")))
}

fn tool(image: &str, reason: impl Into<String>) -> Error {
    Error::Tool {
        image: image.into(),
        program: "qemu-img",
        reason: reason.into(),
    }
}

/// The last `(12.34/100%)` of a piece of output, in whole percent.
fn percent(output: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(output);
    let (_, last) = text.rsplit_once('(')?;
    last.split(['.', '/'])
        .next()?
        .trim()
        .parse()
        .ok()
        .filter(|&p| p <= 100)
}

fn part(whole: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    #[test]
    fn progress_is_read() {
        assert_eq!(super::percent(b"    (12.34/100%)\r"), Some(12));
        assert_eq!(super::percent(b"    (0.00/100%)\r    (100.00/100%)\r"), Some(100));
        assert_eq!(super::percent(b"rubbish"), None);
    }
}
