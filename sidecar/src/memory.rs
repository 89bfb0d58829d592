//! Memory that only the start needed, given back.
//!
//! Most of the program runs once, to read settings and descriptions. Its code and constants stay resident afterwards, and so does what
//! lies around them, since the kernel maps a file in pieces of 64 KiB and more. Unmapped, what is still needed is read again from
//! the page cache. Not here: memory that was allocated, which is the allocator's affair.
//!
//! This file alone of the crate is `unsafe`, for one call. It is sound because it is about parts of the program's own mapping that
//! cannot be written and of which no page differs from the file. (Constants that were relocated at the start do: they are left alone.)
#![allow(unsafe_code, reason = "argued above")]

/// Gives back what is resident of the program and could be read again from its file.
pub fn release_program() {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else {
        return;
    };
    let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, length) in clean(&mappings, &program.to_string_lossy()) {
        // SAFETY: the range is a mapping of the program, as the kernel told, which stays to the end of the process. It cannot be
        // written, and no page of it was: dropped, each is what it was when it is next read (madvise(2), MADV_DONTNEED).
        let _advice = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Start and length of the mappings of `program` that cannot be written and never were (proc(5), `smaps`).
fn clean(mappings: &str, program: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in mappings.lines() {
        if let Some(range) = range(line) {
            let unwritable = [" r--p ", " r-xp "].iter().any(|it| line.contains(it));
            let ours = line
                .strip_suffix(program)
                .is_some_and(|it| it.ends_with(' '));
            current = Some(range).filter(|_| unwritable && ours);
        } else if let Some(rest) = line.strip_prefix("Anonymous:") {
            found.extend(current.take().filter(|_| rest.trim() == "0 kB"));
        }
    }
    found
}

/// The range of a line that begins a mapping.
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_the_file_is_given_back() {
        let of = |permissions: &str, file: &str, anonymous: &str| {
            let head = format!("1000-3000 {permissions} 00000000 08:01 42   {file}");
            let text = format!("{head}\nRss: 8 kB\nAnonymous:   {anonymous}\nLocked: 0 kB\n");
            clean(&text, "/bin/x").len()
        };
        assert_eq!(of("r-xp", "/bin/x", "0 kB"), 1);
        assert_eq!(of("r--p", "/bin/x", "0 kB"), 1);
        assert_eq!(of("r--p", "/bin/x", "4 kB"), 0, "relocated");
        assert_eq!(of("rw-p", "/bin/x", "0 kB"), 0);
        assert_eq!(of("r-xp", "/bin/y", "0 kB"), 0);
        assert_eq!(of("r-xp", "/usr/bin/x", "0 kB"), 0);
        assert_eq!(clean("nonsense\n\nAnonymous: 0 kB", "/bin/x"), []);
    }

    #[test]
    fn the_program_goes_on() {
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(!clean(&mappings, &program.to_string_lossy()).is_empty());
        for _ in 0..10 {
            release_program();
            assert_eq!("12".parse::<u32>().unwrap(), 12);
        }
    }
}
