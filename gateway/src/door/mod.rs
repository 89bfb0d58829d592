//! Strictness at the door: what is refused before anything is decided (DESIGN section 6).

pub mod head;
