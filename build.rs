//! Compiles `proto/tapefeed` for Rust without `protoc`, and writes the descriptor set that reflection serves.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto/tapefeed");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    for file in proto_files(Path::new("proto/tapefeed/v1"))? {
        compiler.open_file(file)?;
    }

    #[expect(clippy::disallowed_methods, reason = "cargo tells a build script its folder this way")]
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    fs::write(out_dir.join("tapefeed.bin"), descriptor_set(&compiler)?)?;

    tonic_prost_build::configure()
        .bytes(".")
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The contract with its imports, and the `google.rpc` messages that travel as error details:
/// without those, tools show details as base64.
fn descriptor_set(compiler: &protox::Compiler) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = compiler.encode_file_descriptor_set();
    let present: Vec<String> = compiler.files().map(|file| file.name().to_owned()).collect();
    let mut details = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    details.file.retain(|file| !present.iter().any(|name| name == file.name()));
    // A set is one repeated field, so two encoded sets in a row are their union.
    details.encode(&mut bytes)?;
    Ok(bytes)
}

/// The `.proto` files of a folder, sorted so that the generated code does not depend on the disk.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
