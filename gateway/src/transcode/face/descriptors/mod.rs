//! Where a service's descriptors come from: a compiled set, `.proto` files, or what server reflection answered and a file holds.
//!
//! Everything is bounded. Not here: what the descriptors say, and asking a service (`reflection`).

mod google;
mod protos;
pub mod reflection;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_policy::settings::{DescriptorSource, GrpcConfig};
use tollgate_policy::{Finding, Place, Severity};

/// Bytes of a descriptor set: a company's whole tree of definitions has a few MiB.
const LARGEST_SET: u64 = 64 << 20;

/// The descriptors of one API.
#[derive(Debug)]
pub struct Descriptors {
    /// A serialized `google.protobuf.FileDescriptorSet`.
    pub set: Vec<u8>,
    /// Where its parts are defined.
    pub places: Places,
}

/// What a service answered to reflection.
#[derive(Debug)]
pub enum Reflected<'r> {
    /// Kept in a file.
    File(&'r Path),
    /// Just now.
    Set(Vec<u8>),
}

/// Where the files of a descriptor set lie, as far as that is known.
#[derive(Debug)]
pub struct Places {
    /// What stands for files nobody knows.
    whole: Arc<str>,
    /// From the names in the set to the files named by the user.
    files: HashMap<String, Arc<str>>,
}

impl Places {
    /// A line of a `.proto` file. A compiled set has the names its compiler was given.
    pub fn of(&self, file: &str, line: Option<u32>) -> Place {
        let known = self.files.get(file).cloned();
        Place {
            file: match line {
                Some(_) => known.unwrap_or_else(|| format!("{} ({file})", self.whole).into()),
                None => known.unwrap_or_else(|| Arc::clone(&self.whole)),
            },
            line: line.unwrap_or(0),
            column: 0,
        }
    }

    /// The descriptors as a whole.
    pub fn whole(&self) -> Place {
        Place::file(Arc::clone(&self.whole))
    }

    pub(super) fn of_set(path: &Path) -> Self {
        Self {
            whole: path.display().to_string().into(),
            files: HashMap::new(),
        }
    }
}

/// Reads the descriptors of an API. `reflected` is what the service answered; `files` receives what was looked
/// at.
///
/// # Errors
/// Why there are none.
pub fn read(
    config: &GrpcConfig,
    reflected: &Reflected<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<Descriptors, Vec<Finding>> {
    match &config.source {
        DescriptorSource::Set(path) => {
            files.push(path.clone());
            set(path, "descriptors").map_err(|finding| vec![finding])
        }
        DescriptorSource::Protos {
            files: named,
            include,
        } => protos::compile(named, include, files),
        DescriptorSource::Reflection { .. } => match reflected {
            Reflected::File(path) => {
                files.push((*path).to_owned());
                set(path, "reflection").map_err(|finding| vec![finding])
            }
            Reflected::Set(set) => Ok(Descriptors {
                set: set.clone(),
                places: Places::of_set(Path::new("server reflection")),
            }),
        },
    }
}

fn set(path: &Path, field: &str) -> Result<Descriptors, Finding> {
    let set = read_limited(path, LARGEST_SET).map_err(|why| Finding {
        severity: Severity::Error,
        code: "unreadable-file",
        place: Place::file(path.display().to_string()),
        what: format!("`grpc.{field}` cannot be read: {why}"),
        remedy: "check that the file exists and is a compiled descriptor set: protoc --include_imports --include_source_info --descriptor_set_out=FILE".to_owned(),
    })?;
    Ok(Descriptors {
        set,
        places: Places::of_set(path),
    })
}

/// The whole of a plain file of at most `limit` bytes.
pub(super) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| error.to_string();
    // Before it is opened: opening a pipe waits for its other end.
    if !std::fs::metadata(path).map_err(told)?.is_file() {
        return Err("not a plain file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(told)?;
    let mut within = file.take(limit.saturating_add(1));
    within.read_to_end(&mut bytes).map_err(told)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= limit => Ok(bytes),
        _ => Err(format!("more than {limit} bytes")),
    }
}
