//! `ca`: a file of root certificates that a party is believed by instead of the system's. Looked at here, so that a wrong path shows
//! before anybody calls. Not here: what the certificates are good for.

use std::path::PathBuf;

use super::decode::Text;
use super::plain_file;
use super::reader::Reader;

/// Bytes of a bundle. All roots the web believes in have some 250 KiB.
const MAX_ROOTS: u64 = 4 << 20;

/// The meaning of `field`; mistakes go to `reader`.
pub(super) fn roots(reader: &mut Reader, field: &str, written: Option<&Text>) -> Option<PathBuf> {
    let written = written?;
    let path = reader.path(written);
    let cause = match plain_file::read(&path, MAX_ROOTS) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => return Some(path),
        Ok(_) => "no certificate in PEM is in it".to_owned(),
        Err(cause) => cause,
    };
    let place = reader.place(written);
    let what = format!(
        "`{field}`: no root certificates can be read from `{}`: {cause}",
        path.display()
    );
    let remedy =
        "write the path of a PEM file, relative to this file; without one the system's roots count";
    reader.push("unreadable-key", place, what, remedy.to_owned());
    None
}
