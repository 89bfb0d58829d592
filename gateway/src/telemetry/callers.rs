//! The part of the metrics page about callers: what is held of the directory, tokens, keys of issuers, introspection, authorisers.
//!
//! Labels come from configuration alone. Counts of introspection and authorisers begin again when their API is loaded again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::series::{Label, head, line};
use crate::api::Api;
use crate::identity::Identities;
use crate::identity::issuer::Issuer;

/// Adds to the page what is known about the callers of `apis`.
pub fn write_callers(page: &mut String, identities: &Identities, apis: &[Arc<Api>]) {
    let held = &identities.directory.counts;
    write_rows(
        page,
        "tollgate_directory_lookups_total",
        "Callers looked up, by where the answer came from.",
        &[(
            String::new(),
            [
                ("held", &held.hits),
                ("asked", &held.asked),
                ("over_budget", &held.over_budget),
                ("unanswered", &held.unanswered),
            ],
        )],
    );
    let tokens = &identities.tokens;
    write_rows(
        page,
        "tollgate_tokens_total",
        "Tokens judged: known from before, or verified by their signature.",
        &[(
            String::new(),
            [("known", &tokens.hits), ("verified", &tokens.verifications)],
        )],
    );
    write_issuers(page, apis);
    write_introspection(page, apis);
    write_authorisers(page, apis);
}

type Results<'c, const N: usize> = [(&'static str, &'c AtomicU64); N];

fn write_rows<const N: usize>(
    page: &mut String,
    name: &str,
    help: &str,
    rows: &[(String, Results<'_, N>)],
) {
    head(page, name, "counter", help);
    for (labels, results) in rows {
        for (result, count) in results {
            let count = count.load(Relaxed);
            line(
                page,
                format_args!("{name}{{{labels}result=\"{result}\"}} {count}"),
            );
        }
    }
}

fn write_issuers(page: &mut String, apis: &[Arc<Api>]) {
    let name = "tollgate_issuer_keys_generation";
    head(
        page,
        name,
        "gauge",
        "How often the keys changed; 0: there were none yet.",
    );
    for (labels, issuer) in issuers(apis) {
        let generation = issuer.keys.generation();
        line(page, format_args!("{name}{{{labels}}} {generation}"));
    }
    let name = "tollgate_issuer_keys_usable";
    head(
        page,
        name,
        "gauge",
        "1 where there are keys to verify tokens with.",
    );
    for (labels, issuer) in issuers(apis) {
        let usable = u8::from(issuer.keys.current().is_some());
        line(page, format_args!("{name}{{{labels}}} {usable}"));
    }
    let name = "tollgate_issuer_keys_failed";
    head(
        page,
        name,
        "gauge",
        "1 where the last attempt to get the keys failed.",
    );
    for (labels, issuer) in issuers(apis) {
        let failed = u8::from(!issuer.keys.last_error().is_empty());
        line(page, format_args!("{name}{{{labels}}} {failed}"));
    }
    let name = "tollgate_issuer_keys_age_seconds";
    head(
        page,
        name,
        "gauge",
        "Time since the keys were last read without error.",
    );
    for (labels, issuer) in issuers(apis) {
        if let Some(age) = issuer.keys.age() {
            line(page, format_args!("{name}{{{labels}}} {}", age.as_secs()));
        }
    }
}

fn write_introspection(page: &mut String, apis: &[Arc<Api>]) {
    let asking: Vec<_> = issuers(apis)
        .filter_map(|(labels, issuer)| Some((labels, issuer.introspector.as_ref()?)))
        .map(|(labels, it)| {
            let results = [("asked", &it.asked), ("unanswered", &it.unanswered)];
            (format!("{labels},"), results)
        })
        .collect();
    write_rows(
        page,
        "tollgate_introspections_total",
        "Questions put to issuers about tokens.",
        &asking,
    );
}

fn write_authorisers(page: &mut String, apis: &[Arc<Api>]) {
    let judges: Vec<_> = apis
        .iter()
        .filter_map(|api| Some((api, api.authoriser.as_ref()?)))
        .map(|(api, authoriser)| {
            let counts = &authoriser.counts;
            let results = [
                ("answered", &counts.answered),
                ("kept", &counts.kept),
                ("unanswered", &counts.unanswered),
                ("opened", &counts.opened),
                ("shadowed", &counts.shadowed),
            ];
            (format!("api=\"{}\",", Label(&api.config.name)), results)
        })
        .collect();
    write_rows(
        page,
        "tollgate_authoriser_judgements_total",
        "How external authorisers judged, or did not.",
        &judges,
    );
}

/// Every issuer of every API, with its labels.
fn issuers(apis: &[Arc<Api>]) -> impl Iterator<Item = (String, &Arc<Issuer>)> {
    apis.iter().flat_map(|api| {
        api.issuers.iter().map(move |issuer| {
            let (api, issuer_name) = (Label(&api.config.name), Label(&issuer.name));
            (format!("api=\"{api}\",issuer=\"{issuer_name}\""), issuer)
        })
    })
}
