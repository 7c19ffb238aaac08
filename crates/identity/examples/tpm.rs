//! Measures a TPM: makes a host's key in it, loads it, signs with it. Nothing is left behind.
//!
//! ```text
//! cargo run --release -p identity --example tpm [-- /dev/tpmrm0]
//! ```

use std::{error::Error, path::PathBuf, time::Duration};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use identity::key::{DEVICE, HostKey, TpmKey};
use tokio::time::Instant;

const SIGNATURES: u32 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let device = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| DEVICE.into()));
    let file = std::env::temp_dir().join(format!("selvedge-tpm-{}.json", std::process::id()));
    let measured = measure(&device, &file);
    std::fs::remove_file(&file)?;
    for (what, time) in measured? {
        println!("{what:<24} {:>9.2} ms", time.as_secs_f64() * 1000.0);
    }
    Ok(())
}

fn measure(
    device: &std::path::Path,
    file: &std::path::Path,
) -> Result<Vec<(&'static str, Duration)>, Box<dyn Error>> {
    let since = Instant::now();
    drop(TpmKey::make(device, file)?);
    let make = since.elapsed();
    let since = Instant::now();
    let key = TpmKey::read(device, file)?.ok_or("the key is not in its file")?;
    let load = since.elapsed();
    let mut times = Vec::new();
    for _ in 0..SIGNATURES {
        let since = Instant::now();
        let signature = key.sign(b"message")?;
        times.push(since.elapsed());
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key())
            .verify(b"message", &signature)
            .map_err(|_| "the signature is wrong")?;
    }
    let mean = times.iter().sum::<Duration>() / SIGNATURES;
    Ok(vec![
        ("make a key and try it", make),
        ("load it", load),
        ("sign (mean)", mean),
        ("sign (longest)", times.into_iter().max().unwrap_or_default()),
    ])
}
