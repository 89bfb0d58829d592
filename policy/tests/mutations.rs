//! Promise: whatever is in the file, loading it ends, never panics, and an error names a line.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use tollgate_policy::openapi::load_text;

const SEEDS: [(&str, &str); 3] = [
    ("odd.yaml", include_str!("../fixtures/odd.yaml")),
    ("swagger.json", include_str!("../fixtures/swagger.json")),
    (
        "references.yaml",
        include_str!("../fixtures/references.yaml"),
    ),
];

/// Pieces that mean something to one of the readers.
const PIECES: [&str; 26] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "'",
    "&a ",
    "*a",
    "<<: ",
    "- ",
    "\n",
    "\t",
    "|",
    ">",
    "%",
    "#",
    "$ref: '#/paths'",
    "\u{feff}",
    "é",
    "\\u0000",
    "---\n",
    "!!str ",
    "null",
    "1e999",
];

/// Xorshift: the same texts in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end.max(1)
    }

    fn boundary(&mut self, text: &str) -> usize {
        let mut index = self.below(text.len() + 1);
        while !text.is_char_boundary(index) {
            index -= 1;
        }
        index
    }
}

fn check(file: &str, text: &str) {
    if let Err(findings) = load_text(file, text) {
        assert!(!findings.is_empty(), "{text}");
        for finding in findings {
            assert!(finding.place.line > 0, "{finding}\n{text}");
            assert!(
                !finding.what.is_empty() && !finding.remedy.is_empty(),
                "{finding}"
            );
        }
    }
}

#[test]
fn a_text_cut_off_anywhere_is_no_panic() {
    for (file, text) in SEEDS {
        for (index, _) in text.char_indices() {
            check(file, &text[..index]);
        }
    }
}

#[test]
fn a_text_changed_anywhere_is_no_panic() {
    let mut random = Random(0x5EED_CAFE);
    for (file, seed) in SEEDS {
        for _ in 0..1_000 {
            let mut text = seed.to_owned();
            for _ in 0..=random.below(4) {
                let (from, to) = (random.boundary(&text), random.boundary(&text));
                let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 40));
                let to = (to..=text.len())
                    .find(|to| text.is_char_boundary(*to))
                    .unwrap();
                match random.below(3) {
                    0 => text.replace_range(from..to, ""),
                    1 => text.insert_str(from, PIECES[random.below(PIECES.len())]),
                    _ => {
                        let copy = text[from..to].to_owned();
                        let at = random.boundary(&text);
                        text.insert_str(at, &copy);
                    }
                }
            }
            check(file, &text);
        }
    }
}
