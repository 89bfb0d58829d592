//! `.proto` files compiled when they are loaded: proto2 and proto3, by `protox`. What comes in editions is given as a compiled set.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::Diagnostic;
use parking_lot::Mutex;
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};
use tollgate_policy::{Finding, Place, Severity};

use super::{Descriptors, Places, google, read_limited};

/// Bytes of one `.proto` file. The largest by hand have some hundred KiB.
const LARGEST_FILE: u64 = 4 << 20;

/// Bytes of all of them.
const LARGEST_TREE: u64 = 64 << 20;

/// Files that are imported, directly or not.
const MOST_FILES: usize = 2_000;

/// Compiles `files`, whose imports are relative to `include`. `looked_at` receives every file that was opened.
pub(super) fn compile(
    files: &[PathBuf],
    include: &[PathBuf],
    looked_at: &mut Vec<PathBuf>,
) -> Result<Descriptors, Vec<Finding>> {
    looked_at.extend_from_slice(files);
    let read = Arc::new(Mutex::new(Tree::default()));
    let resolver = Resolver {
        include: include.to_vec(),
        read: Arc::clone(&read),
    };
    let set = match contained(|| compiled(resolver, files, include, &read)) {
        Ok(set) => set,
        Err(finding) => {
            looked_at.extend(read.lock().paths.values().cloned());
            return Err(vec![finding]);
        }
    };
    let tree = std::mem::take(&mut *read.lock());
    let first = files.first().map(|file| file.display().to_string());
    looked_at.extend(tree.paths.values().cloned());
    Ok(Descriptors {
        set,
        places: Places {
            whole: first.unwrap_or_default().into(),
            files: tree.shown(),
        },
    })
}

fn compiled(
    resolver: Resolver,
    files: &[PathBuf],
    include: &[PathBuf],
    read: &Mutex<Tree>,
) -> Result<Vec<u8>, Finding> {
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        let name = name_within(file, include).ok_or_else(|| outside(file))?;
        let opened = compiler.open_file(&name).map(drop);
        opened.map_err(|error| finding(&error, file, &read.lock()))?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// A fault of the compiler ends with the file that met it.
fn contained(work: impl FnOnce() -> Result<Vec<u8>, Finding>) -> Result<Vec<u8>, Finding> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Finding {
            severity: Severity::Error,
            code: "proto",
            place: Place::file("grpc.protos"),
            what: "the compiler of `.proto` files failed".to_owned(),
            remedy: "compile them with protoc and name the set as `descriptors`".to_owned(),
        })
    })
}

/// The name by which others import a file.
fn name_within(file: &Path, include: &[PathBuf]) -> Option<String> {
    let within = |file: &Path, directory: &Path| {
        let rest = file.strip_prefix(directory).ok()?;
        let parts: Option<Vec<&str>> = rest.iter().map(|part| part.to_str()).collect();
        Some(parts?.join("/")).filter(|name| !name.is_empty() && !name.contains(".."))
    };
    let as_written = include.iter().find_map(|directory| within(file, directory));
    as_written.or_else(|| {
        // The two may be written in different ways.
        let file = file.canonicalize().ok()?;
        let mut real = include
            .iter()
            .filter_map(|directory| directory.canonicalize().ok());
        real.find_map(|directory| within(&file, &directory))
    })
}

/// What was read.
#[derive(Debug, Default)]
struct Tree {
    /// By the name they are imported under.
    paths: HashMap<String, PathBuf>,
    bytes: u64,
}

impl Tree {
    fn shown(&self) -> HashMap<String, Arc<str>> {
        let shown =
            |(name, path): (&String, &PathBuf)| (name.clone(), path.display().to_string().into());
        self.paths.iter().map(shown).collect()
    }
}

/// Looks files up in the include directories, then among those everybody has.
struct Resolver {
    include: Vec<PathBuf>,
    read: Arc<Mutex<Tree>>,
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        // A name leads nowhere but down.
        if name.split('/').any(|part| part == "..") || name.starts_with('/') {
            return Err(protox::Error::file_not_found(name));
        }
        let paths = self.include.iter().map(|directory| directory.join(name));
        let Some(path) = paths.into_iter().find(|path| path.is_file()) else {
            return match google::source(name) {
                Some(source) => File::from_source(name, source),
                None => GoogleFileResolver::new().open_file(name),
            };
        };
        let mut read = self.read.lock();
        if read.paths.len() >= MOST_FILES {
            return Err(protox::Error::new(format!(
                "more than {MOST_FILES} files are imported"
            )));
        }
        let left = LARGEST_FILE.min(LARGEST_TREE.saturating_sub(read.bytes));
        // Named even where it cannot be read: it is watched then.
        read.paths.insert(name.to_owned(), path.clone());
        let unreadable = |why| protox::Error::new(format!("{}: {why}", path.display()));
        let bytes = read_limited(&path, left).map_err(unreadable)?;
        read.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        drop(read);
        let source = String::from_utf8(bytes);
        let source = source.map_err(|_| unreadable("it is no UTF-8".to_owned()))?;
        File::from_source(name, &source)
    }
}

fn outside(file: &Path) -> Finding {
    Finding {
        severity: Severity::Error,
        code: "proto",
        place: Place::file(file.display().to_string()),
        what: "it lies in none of the directories of `grpc.include`".to_owned(),
        remedy: "add the directory that its imports are relative to".to_owned(),
    }
}

fn finding(error: &protox::Error, asked: &Path, read: &Tree) -> Finding {
    let known = error.file().and_then(|name| read.paths.get(name));
    let file = known.map_or(asked, PathBuf::as_path).display().to_string();
    let (line, column) = position(error).unwrap_or_default();
    let missing = error.is_file_not_found();
    Finding {
        severity: Severity::Error,
        code: "proto",
        place: Place {
            file: file.into(),
            line,
            column,
        },
        what: error.to_string(),
        remedy: match missing {
            true => "add the directory it lies in to `grpc.include`".to_owned(),
            false => "correct the file; editions are read from compiled descriptor sets".to_owned(),
        },
    }
}

/// Line and column of the first thing an error points at.
fn position(error: &protox::Error) -> Option<(u32, u32)> {
    let label = error.labels()?.next()?;
    let contents = error.source_code()?.read_span(label.inner(), 0, 0).ok()?;
    let from_one = |number: usize| u32::try_from(number).ok()?.checked_add(1);
    Some((from_one(contents.line())?, from_one(contents.column())?))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests {
    use super::*;
    use crate::transcode::Schema;

    struct World(tempfile::TempDir);

    impl World {
        fn new(files: &[(&str, &str)]) -> Self {
            let world = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let path = world.path(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            world
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn compile(&self) -> Result<(Descriptors, Vec<PathBuf>), Vec<Finding>> {
            let mut files = Vec::new();
            let named = [self.path("shop/v1/books.proto")];
            let compiled = compile(&named, &[self.path("")], &mut files)?;
            files.sort();
            files.dedup();
            Ok((compiled, files))
        }
    }

    const BOOKS: &str = r#"syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "google/protobuf/empty.proto";
import "shop/v1/types.proto";
service Books {
  // One book.
  rpc Get(Book) returns (google.protobuf.Empty) {
    option (google.api.http) = { get: "/v1/books/{id}" };
  }
}
"#;

    const TYPES: &str = "syntax = \"proto3\";\npackage shop.v1;\nmessage Book { string id = 1; }\n";

    #[test]
    fn files_are_compiled_with_their_imports_options_and_lines() {
        let world = World::new(&[
            ("shop/v1/books.proto", BOOKS),
            ("shop/v1/types.proto", TYPES),
        ]);
        let (descriptors, files) = world.compile().unwrap();
        let schema = Schema::read(&descriptors.set).unwrap();
        let method = &schema.services()[0].methods[0];
        assert!(!method.options.is_empty());
        let place = descriptors.places.of(&method.file, method.line);
        let file = world.path("shop/v1/books.proto");
        assert_eq!(place.to_string(), format!("{}:8", file.display()));
        assert_eq!(files, [file, world.path("shop/v1/types.proto")]);
    }

    #[test]
    fn a_mistake_in_a_proto_file_is_told_with_its_line() {
        let broken = TYPES.replace("id = 1;", "id = 1");
        let books = ("shop/v1/books.proto", BOOKS);
        for (files, name, line, words) in [
            (
                vec![books],
                "shop/v1/books.proto",
                5,
                "types.proto' not found",
            ),
            (
                vec![books, ("shop/v1/types.proto", &broken)],
                "shop/v1/types.proto",
                3,
                "expected",
            ),
            (
                vec![books, ("shop/v1/types.proto", "syntax = \"proto3\";")],
                "shop/v1/books.proto",
                8,
                "Book",
            ),
        ] {
            let world = World::new(&files);
            let found = &world.compile().unwrap_err()[0];
            let place = format!("{}:{line}:", world.path(name).display());
            assert!(found.to_string().starts_with(&place), "{found}");
            assert!(found.what.contains(words), "{found}");
        }
    }

    #[test]
    fn editions_are_refused_with_a_word_about_descriptor_sets() {
        let world = World::new(&[("shop/v1/books.proto", "edition = \"2023\";\npackage a;\n")]);
        let found = &world.compile().unwrap_err()[0];
        assert!(found.remedy.contains("descriptor sets"), "{found}");
        let place = format!("{}:1:", world.path("shop/v1/books.proto").display());
        assert!(found.to_string().starts_with(&place), "{found}");
    }

    #[test]
    fn a_file_outside_of_every_directory_is_refused() {
        let world = World::new(&[("shop/v1/books.proto", BOOKS), ("other/x", "")]);
        let file = world.path("shop/v1/books.proto");
        let refused = compile(&[file], &[world.path("other")], &mut Vec::new()).unwrap_err();
        assert!(refused[0].what.contains("grpc.include"));
    }
}
