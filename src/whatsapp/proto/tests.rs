use std::{env, fs, path::Path};

use prost::Message as _;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};

use super::*;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/whatsapp/proto")
}

/// Generates the Rust of one schema file. `package` is also the file name.
fn generate(package: &str) -> String {
    let descriptors = protox::Compiler::new([folder()])
        .expect("the folder exists")
        .include_source_info(true)
        .open_file(format!("{package}.proto"))
        .expect("the schema parses")
        .file_descriptor_set();
    let out = tempfile::tempdir().expect("a temporary folder");
    let mut config = prost_build::Config::new();
    config.out_dir(out.path());
    // `Message` names every kind there is; boxed, an absent kind costs one word.
    for message in descriptors.file.iter().flat_map(|file| &file.message_type) {
        for field in &message.field {
            let single_message = field.r#type() == Type::Message && field.label() != Label::Repeated;
            if single_message && (message.name() == "Message" || field.name() == "contextInfo") {
                config.boxed(format!(".{package}.{}.{}", message.name(), field.name()));
            }
        }
    }
    config.compile_fds(descriptors).expect("prost generates");
    let body = fs::read_to_string(out.path().join(format!("{package}.rs"))).expect("generated");
    format!(
        "// Generated from {package}.proto by prost-build and protox (see proto/tests.rs). Do not edit. To regenerate:\n\
         // REGENERATE=1 cargo test --lib proto\n\n{body}"
    )
}

#[test]
fn the_generated_code_matches_the_schema() {
    for package in ["whatsapp", "signal"] {
        let path = folder().join(format!("{package}.rs"));
        let generated = generate(package);
        if env::var_os("REGENERATE").is_some() {
            fs::write(&path, &generated).expect("the source folder is writable");
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        assert!(checked_in == generated, "{package}.rs is stale: REGENERATE=1 cargo test --lib proto");
    }
}

#[test]
fn an_empty_message_is_small() {
    let size = size_of::<Message>();
    assert!(size <= 1536, "Message takes {size} bytes: box its sub messages");
}

#[test]
fn unknown_enum_values_survive() {
    let sent = ProtocolMessage { r#type: Some(4711), ..Default::default() };
    assert_eq!(ProtocolMessage::decode(sent.encode_to_vec().as_slice()), Ok(sent));
}

#[test]
fn a_message_nested_too_deeply_is_refused() {
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        // ephemeralMessage 40 { message 1 { … } }
        let mut inner = Vec::new();
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut inner);
        prost::encoding::encode_varint(bytes.len() as u64, &mut inner);
        inner.append(&mut bytes);
        prost::encoding::encode_key(40, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        bytes.append(&mut inner);
    }
    assert!(Message::decode(bytes.as_slice()).is_err());
}
