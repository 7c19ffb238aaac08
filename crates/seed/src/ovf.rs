//! The OVF environment document (DSP0243 chapter 11): properties for an appliance.

use std::collections::BTreeMap;

/// The document for a virtual machine's properties.
#[must_use]
pub fn environment(id: &str, properties: &BTreeMap<String, String>) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Environment xmlns=\"http://schemas.dmtf.org/ovf/environment/1\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xmlns:oe=\"http://schemas.dmtf.org/ovf/environment/1\" ",
    );
    out.push_str(&format!("oe:id=\"{}\">\n  <PropertySection>\n", escape(id)));
    for (key, value) in properties {
        out.push_str(&format!(
            "    <Property oe:key=\"{}\" oe:value=\"{}\"/>\n",
            escape(key),
            escape(value)
        ));
    }
    out.push_str("  </PropertySection>\n</Environment>\n");
    out
}

/// Escapes for an attribute; characters that XML can't hold at all are left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            other => out.push(other),
        }
    }
    out
}
