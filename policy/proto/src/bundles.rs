//! What makes a bundle a bundle: its hash and its bounds, the same for who publishes it and who holds it. Not here: what the files say.

use std::path::{Component, Path};

use aws_lc_rs::digest::{Context, SHA256};

use crate::wire::bundle_file::Kind;
use crate::wire::{Bundle, BundleFile};

/// Bytes of all files of a bundle together. The loader of APIs refuses larger ones as well.
pub const MAX_BUNDLE_BYTES: usize = 64 * 1024 * 1024;

/// Files of a bundle.
pub const MAX_BUNDLE_FILES: usize = 1_000;

/// Longest message with a bundle in it: its files, and room for their paths.
pub const MAX_BUNDLE_MESSAGE: usize = MAX_BUNDLE_BYTES + MAX_BUNDLE_FILES * (MAX_PATH + 64) + 4096;

/// Bytes of a path, as most file systems have it.
const MAX_PATH: usize = 4096;

/// SHA-256 of the files as they stand in a [`Bundle`] on the wire.
pub fn content_hash(files: &[BundleFile]) -> Vec<u8> {
    const FILES: u32 = 4;
    let mut context = Context::new(&SHA256);
    let mut encoded = Vec::new();
    for file in files {
        encoded.clear();
        prost::encoding::message::encode(FILES, file, &mut encoded);
        context.update(&encoded);
    }
    context.finish().as_ref().to_vec()
}

/// Whether a bundle is whole and within its bounds.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check(bundle: &Bundle) -> Result<(), String> {
    if !is_api_name(&bundle.api) {
        return Err(format!("`{}` is no name of an API", printable(&bundle.api)));
    }
    if bundle.generation == 0 {
        return Err("the bundle has no generation".to_owned());
    }
    check_files(&bundle.files)?;
    if content_hash(&bundle.files) != bundle.hash {
        return Err("the bundle is damaged: its content does not match its hash".to_owned());
    }
    Ok(())
}

/// Whether files can be a bundle.
///
/// # Errors
/// What is wrong with them, in words.
pub fn check_files(files: &[BundleFile]) -> Result<(), String> {
    if files.len() > MAX_BUNDLE_FILES {
        return Err(format!("more than {MAX_BUNDLE_FILES} files"));
    }
    let bytes: usize = files.iter().map(|file| file.content.len()).sum();
    if bytes > MAX_BUNDLE_BYTES {
        return Err(format!("more than {MAX_BUNDLE_BYTES} bytes"));
    }
    if files.first().map(BundleFile::kind) != Some(Kind::Api) {
        return Err("no API file comes first".to_owned());
    }
    let mut seen = std::collections::HashSet::new();
    for (index, file) in files.iter().enumerate() {
        let known = match file.kind() {
            Kind::Unspecified => false,
            Kind::Api => index == 0,
            Kind::Spec | Kind::Other => true,
        };
        if !known {
            return Err(format!("`{}` has no kind", printable(&file.path)));
        }
        if !is_plain_path(&file.path) {
            let path = printable(&file.path);
            return Err(format!("`{path}` is no absolute path without `..`"));
        }
        if !seen.insert(&file.path) {
            return Err(format!("`{}` is in it twice", printable(&file.path)));
        }
    }
    Ok(())
}

/// The rule for names of APIs, which become labels and directories.
pub fn is_api_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

fn is_plain_path(path: &str) -> bool {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    path.len() <= MAX_PATH
        && path.starts_with('/')
        && path.len() > 1
        && !path.chars().any(char::is_control)
        && Path::new(path).components().all(plain)
}

/// What a stranger wrote, fit for a message.
fn printable(text: &str) -> String {
    let safe = text.chars().take(200);
    safe.map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn file(kind: Kind, path: &str) -> BundleFile {
        BundleFile {
            kind: kind.into(),
            path: path.to_owned(),
            content: b"text".to_vec(),
        }
    }

    fn bundle(files: Vec<BundleFile>) -> Bundle {
        Bundle {
            api: "books".to_owned(),
            generation: 1,
            hash: content_hash(&files),
            files,
            service: String::new(),
        }
    }

    #[test]
    fn the_hash_is_that_of_the_files_as_encoded_in_the_bundle() {
        let files = vec![file(Kind::Api, "/a/b.yaml"), file(Kind::Spec, "/a/c.yaml")];
        let alone = Bundle {
            files: files.clone(),
            ..Bundle::default()
        };
        let digest = aws_lc_rs::digest::digest(&SHA256, &alone.encode_to_vec());
        assert_eq!(content_hash(&files), digest.as_ref());
        assert_eq!(check(&bundle(files)), Ok(()));
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let api = || file(Kind::Api, "/a/b.yaml");
        let wrong = [
            vec![],
            vec![file(Kind::Spec, "/a/c.yaml")],
            vec![api(), file(Kind::Unspecified, "/a/c.yaml")],
            vec![api(), file(Kind::Api, "/a/c.yaml")],
            vec![api(), api()],
            vec![api(), file(Kind::Other, "a/c.yaml")],
            vec![api(), file(Kind::Other, "/a/../../etc/passwd")],
            vec![api(), file(Kind::Other, "/a\n/c")],
            vec![api(), file(Kind::Other, "/")],
            (0..=MAX_BUNDLE_FILES)
                .map(|n| {
                    file(
                        if n == 0 { Kind::Api } else { Kind::Other },
                        &format!("/{n}"),
                    )
                })
                .collect(),
        ];
        for files in wrong {
            assert!(check(&bundle(files.clone())).is_err(), "{files:?}");
        }
        let whole = bundle(vec![api()]);
        for (api, generation, hash) in [
            ("", 1, whole.hash.clone()),
            ("../a", 1, whole.hash.clone()),
            ("books", 0, whole.hash.clone()),
            ("books", 1, Vec::new()),
            ("books", 1, vec![0; 32]),
        ] {
            let bundle = Bundle {
                api: api.to_owned(),
                generation,
                hash,
                ..whole.clone()
            };
            assert!(check(&bundle).is_err());
        }
        assert!(check(&Bundle::default()).is_err());
    }
}
