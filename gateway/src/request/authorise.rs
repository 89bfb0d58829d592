//! The end of the step `decide` for an API that has a judge of its own.

use tollgate_policy::access::{Grant, Outcome, Witness};

use super::Exchange;
use crate::authoriser::Judged;
use crate::denial::Denial;
use crate::identity::Identified;
use crate::journey::{Asked, Called};

impl Exchange {
    /// Asks the external judge of the API, where it has one.
    pub(super) async fn authorise(
        &mut self,
        called: &Called,
        identified: &Identified,
        asked: &Asked<'_>,
        grant: &mut Grant,
    ) -> Result<(), Denial> {
        let Some(authoriser) = &called.api.authoriser else {
            return Ok(());
        };
        let judged = authoriser.judge(called, identified, asked).await;
        self.step("authorise");
        let rule = authoriser.rule();
        let outcome = match &judged {
            Ok(Judged::Passes) => Outcome::Passed,
            Ok(Judged::Shadowed) => Outcome::Shadowed,
            Err(_) => Outcome::Refused,
        };
        self.ear.rule(rule, outcome, format_args!("asked"));
        match judged {
            Ok(Judged::Passes) => Ok(()),
            Ok(Judged::Shadowed) => {
                grant.shadowed.push(rule.clone());
                Ok(())
            }
            Err(refusal) => Err(self.refused_by(called, refusal)),
        }
    }
}
