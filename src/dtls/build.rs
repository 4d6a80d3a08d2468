//! Compiles Mbed TLS, from the sources that the crate `mbedtls-rs-sys` ships, with the configuration of `engine/`.
//!
//! That crate's own build wants cmake and libclang, optimises for size and leaves AES-NI out; hence only its sources
//! are used. It stands in the manifest under a condition that is never true, so Cargo downloads it and checks its
//! digest but does not build it, and `cargo metadata` says where it lies. `MBEDTLS_SOURCE` names another 3.6 tree.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const CRATE: &str = "mbedtls-rs-sys";

const FILES: &[&str] = &[
    "aes",
    "aesce",
    "aesni",
    "asn1parse",
    "asn1write",
    "base64",
    "bignum",
    "bignum_core",
    "bignum_mod",
    "bignum_mod_raw",
    "block_cipher",
    "ccm",
    "chacha20",
    "chachapoly",
    "cipher",
    "cipher_wrap",
    "constant_time",
    "ecdh",
    "ecdsa",
    "ecp",
    "ecp_curves",
    "gcm",
    "md",
    "oid",
    "pem",
    "pk",
    "pk_ecc",
    "pk_wrap",
    "pkparse",
    "platform",
    "platform_util",
    "poly1305",
    "rsa",
    "rsa_alt_helpers",
    "sha256",
    "sha512",
    "ssl_ciphersuites",
    "ssl_client",
    "ssl_msg",
    "ssl_tls",
    "ssl_tls12_client",
    "ssl_tls12_server",
    "x509",
    "x509_crt",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=engine");
    println!("cargo::rerun-if-env-changed=MBEDTLS_SOURCE");
    let source = match std::env::var_os("MBEDTLS_SOURCE") {
        Some(path) => PathBuf::from(path),
        None => sources_of_the_crate()?,
    };
    let mut build = cc::Build::new();
    build
        .include("engine")
        .include(source.join("include"))
        .include(source.join("library"))
        .define("MBEDTLS_CONFIG_FILE", "\"tidegate_mbedtls.h\"")
        // Also in a debug build: handshakes of a test take milliseconds, not tenths of a second.
        .opt_level(2)
        .debug(false)
        .warnings(false)
        .file("engine/glue.c");
    for name in FILES {
        build.file(source.join("library").join(format!("{name}.c")));
    }
    build.try_compile("tidegate_mbedtls")?;
    Ok(())
}

/// Where Cargo keeps the sources: without the network if they were fetched before.
fn sources_of_the_crate() -> Result<PathBuf, Box<dyn Error>> {
    let metadata = cargo_metadata(&["--offline"]).or_else(|_| cargo_metadata(&[]))?;
    let ending = "/Cargo.toml\"";
    for part in metadata.split("\"manifest_path\":\"").skip(1) {
        let Some(end) = part.find(ending) else { continue };
        let folder = Path::new(&part[..end]);
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // A registry's folder ends in the version, a vendored one need not.
        if name == CRATE || name.starts_with(&format!("{CRATE}-")) {
            return Ok(folder.join("mbedtls"));
        }
    }
    Err(format!("cargo metadata does not know {CRATE}; set MBEDTLS_SOURCE to a tree of Mbed TLS 3.6").into())
}

fn cargo_metadata(more: &[&str]) -> Result<String, Box<dyn Error>> {
    let manifest = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let output = Command::new(std::env::var("CARGO")?)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .args(more)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
