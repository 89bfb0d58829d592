//! Memory that only the start needed, given back.
//!
//! Most of the program's code runs once, to read settings and descriptions. It stays resident afterwards, and so does what lies around
//! it, since the kernel maps code in pieces of 64 KiB. Unmapped, it is read again from the page cache where it is still needed. This file alone of
//! the crate is `unsafe`, for one call: it is sound because an executable mapping that cannot be written holds nothing but what
//! stands in its file. Data is not touched: relocated constants lie in read-only mappings as well, and are in no file.
#![allow(unsafe_code, reason = "argued above")]

/// Gives back the pages of code that are resident.
pub fn release_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(code) {
        // SAFETY: the range is a mapping of this process as the kernel told it, and is never unmapped: it is the program or a library
        // it is linked with. Its pages cannot have been written to, so dropping them loses nothing (madvise(2), MADV_DONTNEED).
        let _advice = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Start and length of a mapping that is code from a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let inode = fields.nth(2)?;
    if permissions != "r-xp" || inode == "0" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_given_back() {
        let of = |permissions: &str, inode: &str| {
            code(&format!(
                "1000-3000 {permissions} 00000000 08:01 {inode} /bin/x"
            ))
        };
        assert_eq!(of("r-xp", "42"), Some((0x1000, 0x2000)));
        assert_eq!(of("r--p", "42"), None);
        assert_eq!(of("rwxp", "42"), None);
        assert_eq!(of("r-xp", "0"), None);
        assert_eq!(code("nonsense"), None);
    }

    #[test]
    fn the_program_goes_on() {
        release_code();
        assert_eq!("12".parse::<u32>().unwrap(), 12);
    }
}
