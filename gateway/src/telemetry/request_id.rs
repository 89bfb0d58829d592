//! Request ids, and the random numbers they and span ids are made of.
//!
//! Ids are unique, not secret: nothing may be granted to whoever knows one.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// Longest id taken over from a client.
const LONGEST: usize = 64;
/// Shortest id taken over: shorter ones do not tell requests apart.
const SHORTEST: usize = 8;

/// A request id: 128 random bits as 32 hex digits (or the client's, where it is `[A-Za-z0-9._-]{8,64}`).
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    bytes: [u8; LONGEST],
    length: u8,
}

impl RequestId {
    /// Not known yet; reads as nothing.
    pub fn none() -> Self {
        Self {
            bytes: [0; LONGEST],
            length: 0,
        }
    }

    /// Takes the client's id where it is fit, else makes one.
    pub fn accept_or_new(client: Option<&[u8]>) -> Self {
        client.and_then(Self::accept).unwrap_or_else(Self::random)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.length))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    fn accept(client: &[u8]) -> Option<Self> {
        let fit = (SHORTEST..=LONGEST).contains(&client.len())
            && client
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !fit {
            return None;
        }
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..client.len())?.copy_from_slice(client);
        Some(Self {
            bytes,
            length: u8::try_from(client.len()).ok()?,
        })
    }

    fn random() -> Self {
        let mut bytes = [0; LONGEST];
        let (high, low) = bytes.split_at_mut(16);
        write_hex(high, random_u64());
        write_hex(low, random_u64());
        Self { bytes, length: 32 }
    }
}

/// Writes `value` as 16 lower-case hex digits into the first 16 bytes of `out`.
pub(super) fn write_hex(out: &mut [u8], value: u64) {
    for (place, byte) in out.chunks_exact_mut(2).zip(value.to_be_bytes()) {
        place.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
    }
}

/// The lower-case hex digit of a number below 16.
pub(super) fn hex_digit(nibble: u8) -> u8 {
    // Without a branch: nobody can predict random digits.
    let nibble = nibble & 0xf;
    b'0' + nibble + u8::from(nibble > 9) * (b'a' - b'0' - 10)
}

/// 64 random bits of a generator of this thread (xoshiro256++, <https://prng.di.unimi.it/>), seeded by the operating
/// system. No lock and no system call per number.
pub(super) fn random_u64() -> u64 {
    thread_local! {
        static STATE: Cell<[u64; 4]> = Cell::new(seed());
    }
    STATE.with(|state| {
        let [mut a, mut b, mut c, mut d] = state.get();
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let shifted = b << 17;
        c ^= a;
        d ^= b;
        b ^= c;
        a ^= d;
        c ^= shifted;
        d = d.rotate_left(45);
        state.set([a, b, c, d]);
        result
    })
}

/// `RandomState` is keyed with 128 bits of the system's randomness; hashing under that key spreads them over the state.
fn seed() -> [u64; 4] {
    let keyed = RandomState::new();
    let thread = std::thread::current().id();
    // Never all zero, which the generator could not leave.
    [0_u8, 1, 2, 3].map(|part| keyed.hash_one((part, thread)) | u64::from(part == 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_fit_client_id_is_kept_and_an_unfit_one_replaced() {
        for fit in ["abcdefgh", "A.b_c-01", &"x".repeat(64)] {
            assert_eq!(RequestId::accept_or_new(Some(fit.as_bytes())).as_str(), fit);
        }
        for unfit in [
            "",
            "short",
            "with space",
            "line\nbreak",
            "käse-käse",
            &"x".repeat(65),
        ] {
            let id = RequestId::accept_or_new(Some(unfit.as_bytes()));
            assert_ne!(id.as_str(), unfit);
            assert_eq!(id.as_str().len(), 32);
        }
    }

    #[test]
    fn new_ids_are_distinct_lower_case_hex_on_all_threads() {
        let make = || {
            (0..10_000)
                .map(|_| RequestId::accept_or_new(None))
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        let mut seen = std::collections::HashSet::new();
        for id in threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
        {
            assert!(
                id.as_str()
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            );
            assert!(seen.insert(id.as_str().to_owned()));
        }
    }
}
