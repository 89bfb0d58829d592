//! Secrets and marks in the state directory: made once, readable by their owner only, replaced whole or not at all.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::rand;

use crate::text::hex;

/// Longest file read: these hold one line.
const MAX_BYTES: u64 = 4096;

/// The installation's pepper, from `state_dir/pepper`: 32 random bytes, made at the first start. Without it no API key that was
/// ever issued can be recognised: a damaged or lost one is an error, never replaced.
///
/// # Errors
/// The file cannot be read or made, is not of 32 bytes, others may read it, or it is gone from a state directory in use.
pub fn load_or_make_pepper(state_dir: &Path) -> io::Result<[u8; 32]> {
    let path = state_dir.join("pepper");
    let head = crate::audit::head_path(state_dir);
    if !path.exists() && head.exists() {
        let why = format!(
            "{} is missing although keys may have been issued; restore it from a backup, or remove {} to begin anew",
            path.display(),
            head.display()
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let bytes = load_or_make(&path, || Ok(random::<32>()?.to_vec()))?;
    <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| {
        let text = format!(
            "{} must hold 32 bytes, it holds {}; restore it from a backup",
            path.display(),
            bytes.len()
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// The administrative credential, from `state_dir/admin-credential`, made at the first start.
pub(crate) fn load_or_make_admin_credential(state_dir: &Path) -> io::Result<String> {
    load_or_make_credential(&state_dir.join("admin-credential"), "tg_admin_")
}

/// The credential of services that report usage, from `state_dir/report-credential`, made at the first start.
pub(crate) fn load_or_make_report_credential(state_dir: &Path) -> io::Result<String> {
    load_or_make_credential(&state_dir.join("report-credential"), "tg_report_")
}

fn load_or_make_credential(path: &Path, begins: &str) -> io::Result<String> {
    let bytes = load_or_make(path, || {
        let secret = random::<32>()?;
        Ok(format!("{begins}{}\n", hex(&secret)).into_bytes())
    })?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if text.len() < 32 {
        let why = format!(
            "{} holds no credential; remove it to get a new one",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// Random bytes.
///
/// # Errors
/// The system gives none.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(bytes)
}

/// Replaces a file of ours by one with these contents; after a crash it holds the old ones or the new ones.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = create(&next)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}

fn load_or_make(path: &Path, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes = make()?;
            replace(path, &bytes)?;
            Ok(bytes)
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path, file: File) -> io::Result<Vec<u8>> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        let why = format!(
            "{} is open to others; chmod 600 it, after asking who read it",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // The mode above is cut by the umask only ever to less; this makes it exact.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_pepper_is_made_once_and_guarded() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("pepper");
        let pepper = load_or_make_pepper(state.path()).unwrap();
        assert_eq!(load_or_make_pepper(state.path()).unwrap(), pepper);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_make_pepper(state.path()).is_err());
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, [0; 31]).unwrap();
        assert!(load_or_make_pepper(state.path()).is_err());
        assert_eq!(
            std::fs::read(&path).unwrap().len(),
            31,
            "a damaged pepper is kept"
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(state.path().join("audit-head"), "1 x\n").unwrap();
        assert!(
            load_or_make_pepper(state.path()).is_err(),
            "nor is a lost one"
        );
    }
}
