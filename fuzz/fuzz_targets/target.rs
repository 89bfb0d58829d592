//! Any text as a request target: what the door accepts can be read in one way only, also by a reader that decodes it twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_gateway::door::target::Target;

fuzz_target!(|raw: &str| {
    let Ok(target) = Target::parse(raw) else {
        return;
    };
    let again = match target.query {
        Some(query) => format!("{}?{query}", target.path),
        None => target.path.to_owned(),
    };
    assert_eq!(again, raw, "nothing is lost or changed");
    assert_eq!(
        Target::parse(&again).as_ref(),
        Ok(&target),
        "parsing is idempotent"
    );
    assert!(raw.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(target.path.starts_with('/') && !target.path.contains("//"));
    assert!(!target.path.contains(['#', '\\', '?']));

    let decoded = decode(target.path.as_bytes());
    assert!(
        !decoded
            .iter()
            .any(|byte| *byte < b' ' || matches!(byte, b'\\' | 0x7f))
    );
    assert!(!has_dot_segment(&decoded), "once decoded");
    if !target.semicolon {
        assert!(!decoded.contains(&b';'));
    }
    if !target.encoded_slash {
        let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
        assert_eq!(slashes(&decoded), slashes(target.path.as_bytes()));
    }
    if !target.encoded_percent {
        assert_eq!(decode(&decoded), decoded, "decoded twice is decoded once");
    }
});

/// Segments as the most suspicious reader sees them: cut at `/`, and their names at `;`.
fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| {
        let name = segment.split(|byte| *byte == b';').next();
        matches!(name, Some(b"." | b".."))
    })
}

fn decode(path: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::new();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        decoded.push(escaped.map_or(*first, |(high, low)| (high * 16 + low) as u8));
        rest = if escaped.is_some() { &rest[3..] } else { after };
    }
    decoded
}
