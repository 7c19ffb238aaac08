//! Has the page embedded anew when it was built anew: what is embedded is found at compile time.

fn main() {
    println!("cargo::rerun-if-changed=../../web/dist");
}
