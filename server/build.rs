//! Compiles the server again when a migration changes: the files are part of the binary.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
