//! Reading what somebody named in our settings: plain files of a bounded size, nothing else.
//!
//! A pipe would be waited for, and a device may never end. Not here: what the text means.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::Path;

/// Bytes of a file of settings. The largest by hand have some hundred KiB.
pub(super) const MAX_SETTINGS: u64 = 4 << 20;

/// Bytes of `consumers.yaml`, which may name a hundred thousand.
pub(super) const MAX_CONSUMERS: u64 = 64 << 20;

/// The text of a plain file of at most `limit` bytes in UTF-8.
///
/// # Errors
/// Why it cannot be read, for the end of a message.
pub(super) fn read(path: &Path, limit: u64) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    // Before it is opened, for opening a pipe waits for its other end; and again what was opened, which another may be by now.
    plain(&std::fs::metadata(path).map_err(told)?)?;
    let file = File::open(path).map_err(told)?;
    plain(&file.metadata().map_err(told)?)?;
    let mut text = String::new();
    // By what comes, not by what the file says it has: it may grow meanwhile.
    let mut within = file.take(limit.saturating_add(1));
    within.read_to_string(&mut text).map_err(told)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= limit => Ok(text),
        _ => Err(format!("more than {limit} bytes")),
    }
}

fn plain(about: &Metadata) -> Result<(), String> {
    match about.is_file() {
        true => Ok(()),
        false => Err("not a plain file".to_owned()),
    }
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
    use std::process::Command;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "abcd").unwrap();
        assert_eq!(read(&path, 4), Ok("abcd".to_owned()));
        assert_eq!(read(&path, 3), Err("more than 3 bytes".to_owned()));
        // A character that the limit cuts in two is too much as well, whatever it is told as.
        std::fs::write(&path, "abcä").unwrap();
        assert!(read(&path, 3).is_err());
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read(&path, 3).unwrap_err().contains("UTF-8"));
        assert!(read(&directory.path().join("none"), 3).is_err());
    }

    #[test]
    fn what_is_no_plain_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let device = Path::new("/dev/zero");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [directory.path(), &pipe, device, &link] {
            let refused = Err("not a plain file".to_owned());
            assert_eq!(read(path, 1 << 20), refused, "{}", path.display());
        }
    }
}
