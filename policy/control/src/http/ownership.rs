//! What a file defines is not changed here.

use serde_json::{Value, json};
use tollgate_policy::directory::Defined;

use crate::refusal::Refusal;

/// Refuses to change what a file defines.
pub(super) fn changeable(kind: &'static str, name: &str, origin: &Defined) -> Result<(), Refusal> {
    match origin {
        Defined::Store => Ok(()),
        Defined::File(place) => Err(Refusal::DefinedInFile {
            kind,
            name: name.to_owned(),
            place: place.clone(),
        }),
    }
}

/// What creating comes to where there is one of this name already: nothing, where it is the same.
pub(super) fn same(
    kind: &'static str,
    name: &str,
    origin: &Defined,
    equal: bool,
) -> Result<(), Refusal> {
    changeable(kind, name, origin)?;
    if equal {
        return Ok(());
    }
    Err(Refusal::differs(kind, name))
}

/// Where an object was defined, as shown.
pub(super) fn shown(origin: &Defined) -> Value {
    match origin {
        Defined::Store => json!({ "kind": "store" }),
        Defined::File(place) => {
            json!({ "kind": "file", "file": &*place.file, "line": place.line })
        }
    }
}
