//! What a witness is told of the schemes an operation demands: which credential was valid, and what was wrong with the others.

use tollgate_policy::access::{Outcome, RuleRef, Scheme, Witness};

use super::Unidentified;

/// Tells how one scheme turned out.
pub(super) fn tell(witness: &mut impl Witness, scheme: &Scheme, added: &Result<(), Unidentified>) {
    let rule = &RuleRef {
        kind: "security",
        name: scheme.name.clone(),
        place: None,
    };
    match added {
        Ok(()) => witness.rule(
            rule,
            Outcome::Passed,
            format_args!("the credential is valid"),
        ),
        Err(Unidentified::Nothing) => {
            witness.rule(
                rule,
                Outcome::Refused,
                format_args!("no credential of this kind"),
            );
        }
        Err(Unidentified::Bad(bad)) => witness.rule(rule, Outcome::Refused, format_args!("{bad}")),
        Err(Unidentified::Scope(scope)) => {
            witness.rule(
                rule,
                Outcome::Refused,
                format_args!("the scope `{scope}` is missing"),
            );
        }
        Err(Unidentified::Unknowable) => witness.rule(
            rule,
            Outcome::Refused,
            format_args!(
                "it cannot be verified now: keys, revocations or the directory do not answer"
            ),
        ),
        Err(Unidentified::TooManyUnknown) => witness.rule(
            rule,
            Outcome::Refused,
            format_args!("too many unknown credentials came from this address"),
        ),
    }
}
