//! Names of operations that are safe as a metric label and unique in their file.

use std::collections::HashSet;
use std::sync::Arc;

/// Bytes of a name. Label values are stored once per series; real `operationId`s stay below 120.
const MAX_BYTES: usize = 128;

/// A name for each operation, in order, from its `operationId` or, without one, from `METHOD template`.
///
/// An id that is fit is kept by the first operation that has it, whatever stands before it in the file.
pub(super) fn names(wishes: &[(Option<&str>, String)]) -> Vec<Arc<str>> {
    let mut taken: HashSet<String> = HashSet::new();
    let keeps: Vec<bool> = wishes
        .iter()
        .map(|(id, _)| id.is_some_and(|id| is_fit(id) && taken.insert(id.to_owned())))
        .collect();
    let named = wishes.iter().zip(keeps).map(|((id, otherwise), keeps)| {
        let wish = id.filter(|id| !id.is_empty()).unwrap_or(otherwise);
        if keeps {
            Arc::from(wish)
        } else {
            unique(&made_fit(wish), &mut taken).into()
        }
    });
    named.collect()
}

fn is_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:/{}-".contains(&byte)
}

fn is_fit(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_BYTES && id.bytes().all(is_safe)
}

/// The text with `_` for what is not safe; a long one ends in a hash of all of it.
fn made_fit(text: &str) -> String {
    let safe: String = text
        .chars()
        .map(|c| {
            if u8::try_from(c).is_ok_and(is_safe) {
                c
            } else {
                '_'
            }
        })
        .collect();
    if safe.len() <= MAX_BYTES {
        return safe;
    }
    let hash = format!("-{:08x}", hash(text));
    let start: String = safe.chars().take(MAX_BYTES - hash.len()).collect();
    start + &hash
}

fn unique(wish: &str, taken: &mut HashSet<String>) -> String {
    if taken.insert(wish.to_owned()) {
        return wish.to_owned();
    }
    for number in 2_u32.. {
        let suffix = format!("-{number}");
        let start: String = wish.chars().take(MAX_BYTES - suffix.len()).collect();
        let name = start + &suffix;
        if taken.insert(name.clone()) {
            return name;
        }
    }
    wish.to_owned()
}

/// FNV-1a: the same in every process and version, which the standard library's hasher does not promise.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
