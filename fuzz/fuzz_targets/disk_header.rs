//! Headers of qcow2, VMDK and all else.
#![no_main]

use image::probe::{Content, probe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(content) = probe(data, data.len() as u64) else {
        return;
    };
    if let Content::Qcow2 { .. } = content {
        assert!(
            data[8..20].iter().all(|&byte| byte == 0),
            "no backing file passes"
        );
    }
    if let Content::Vmdk { virtual_size } = content {
        assert!(virtual_size > 0, "without a size, QEMU reads the descriptor");
        let text = String::from_utf8_lossy(&data[..data.len().min(64 * 1024)]).to_ascii_lowercase();
        let end = text.len().min(0x200 + 20 * 512);
        if let Some(descriptor) = text.get(0x200..end) {
            assert!(!descriptor.contains("parentfilenamehint"), "no parent passes");
        }
    }
});
