//! Consumers' own affairs: terms, their acceptance, and what a consumer may see of itself.

use std::sync::Arc;

use serde_json::Value;

use super::{LONGEST_DOCUMENT, LONGEST_TEXT, Malformed, bounded, claim, list, name, needed_time};
use super::{text, to_time};
use crate::{Acceptance, TermsText, wire};

/// Whom a question is about, and at which API; the API is empty where it does not matter.
///
/// # Errors
/// No consumer is named.
pub fn about(question: wire::AboutConsumer) -> Result<(Arc<str>, Arc<str>), Malformed> {
    Ok((
        name(question.consumer, "about_consumer.consumer")?,
        text(question.api, "about_consumer.api")?,
    ))
}

/// A document as it is sent.
pub fn json_document(document: &Value) -> wire::JsonDocument {
    wire::JsonDocument {
        json: document.to_string(),
    }
}

/// A document as it was meant.
///
/// # Errors
/// It is no JSON, or too long.
pub fn document(document: wire::JsonDocument) -> Result<Value, Malformed> {
    let json = bounded(document.json, LONGEST_DOCUMENT, "json_document.json")?;
    serde_json::from_str(&json).map_err(|_| Malformed("json_document.json"))
}

/// The terms a consumer has to do with, as they are sent.
pub fn terms_response(terms: &[TermsText]) -> wire::TermsResponse {
    wire::TermsResponse {
        terms: terms.iter().map(wire::TermsText::from).collect(),
    }
}

/// The terms a consumer has to do with.
///
/// # Errors
/// One of them cannot be used.
pub fn terms_texts(response: wire::TermsResponse) -> Result<Vec<TermsText>, Malformed> {
    list(response.terms, "terms_response.terms", TermsText::try_from)
}

impl From<&TermsText> for wire::TermsText {
    fn from(terms: &TermsText) -> Self {
        Self {
            terms: terms.terms.to_string(),
            version: terms.version,
            effective: Some(to_time(terms.effective)),
            enforced: Some(to_time(terms.enforced)),
            text_hash: terms.text_hash.to_string(),
            text: terms.text.to_string(),
            purpose_required: terms.purpose_required,
            accepted: terms.accepted,
        }
    }
}

impl TryFrom<wire::TermsText> for TermsText {
    type Error = Malformed;

    fn try_from(it: wire::TermsText) -> Result<Self, Malformed> {
        Ok(Self {
            terms: name(it.terms, "terms_text.terms")?,
            version: it.version,
            effective: needed_time(it.effective, "terms_text.effective")?,
            enforced: needed_time(it.enforced, "terms_text.enforced")?,
            text_hash: text(it.text_hash, "terms_text.text_hash")?,
            text: bounded(it.text, LONGEST_DOCUMENT, "terms_text.text")?.into(),
            purpose_required: it.purpose_required,
            accepted: it.accepted,
        })
    }
}

impl From<&Acceptance> for wire::Acceptance {
    fn from(acceptance: &Acceptance) -> Self {
        let hash = acceptance.text_hash.as_ref();
        Self {
            consumer: acceptance.consumer.to_string(),
            credential: acceptance.credential.to_string(),
            terms: acceptance.terms.to_string(),
            version: acceptance.version,
            text_hash: hash.map(|hash| hash.to_string()),
            purpose: acceptance.purpose.clone(),
            at: Some(to_time(acceptance.at)),
            from: super::audit::to_address(acceptance.from),
        }
    }
}

impl TryFrom<wire::Acceptance> for Acceptance {
    type Error = Malformed;

    fn try_from(it: wire::Acceptance) -> Result<Self, Malformed> {
        let hash = it
            .text_hash
            .map(|hash| text(hash, "acceptance.text_hash"))
            .transpose()?;
        Ok(Self {
            consumer: name(it.consumer, "acceptance.consumer")?,
            credential: claim(it.credential, "acceptance.credential")?,
            terms: name(it.terms, "acceptance.terms")?,
            version: it.version,
            text_hash: hash,
            purpose: bounded(it.purpose, LONGEST_TEXT, "acceptance.purpose")?,
            at: needed_time(it.at, "acceptance.at")?,
            from: super::audit::address(&it.from, "acceptance.from")?,
        })
    }
}
