//! Decisions for the audit log.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{LONGEST_TEXT, Malformed, bounded, claim, cut, list, needed_time, text, to_time};
use crate::{AuditRecord, wire};

/// Decisions as they are sent. Of a long reason the beginning: one of them must not keep the others from the log.
pub fn audit_request(records: &[AuditRecord]) -> wire::AuditRequest {
    wire::AuditRequest {
        records: records.iter().map(wire::AuditRecord::from).collect(),
    }
}

/// Decisions as they were sent.
///
/// # Errors
/// One of them cannot be used.
pub fn audit_records(request: wire::AuditRequest) -> Result<Vec<AuditRecord>, Malformed> {
    list(
        request.records,
        "audit_request.records",
        AuditRecord::try_from,
    )
}

impl From<&AuditRecord> for wire::AuditRecord {
    fn from(record: &AuditRecord) -> Self {
        Self {
            at: Some(to_time(record.at)),
            request_id: cut(&record.request_id),
            api: record.api.to_string(),
            generation: record.generation,
            operation: cut(&record.operation),
            consumer: record.consumer.to_string(),
            credential: record.credential.to_string(),
            client: to_address(record.client),
            verdict: cut(&record.verdict),
            rule: cut(&record.rule),
        }
    }
}

impl TryFrom<wire::AuditRecord> for AuditRecord {
    type Error = Malformed;

    fn try_from(it: wire::AuditRecord) -> Result<Self, Malformed> {
        // A decision that does not say how it was decided is none.
        if it.verdict.is_empty() {
            return Err(Malformed("audit_record.verdict"));
        }
        let verdict = bounded(it.verdict, LONGEST_TEXT, "audit_record.verdict")?;
        Ok(Self {
            at: needed_time(it.at, "audit_record.at")?,
            request_id: bounded(it.request_id, LONGEST_TEXT, "audit_record.request_id")?,
            api: text(it.api, "audit_record.api")?,
            generation: it.generation,
            operation: text(it.operation, "audit_record.operation")?,
            consumer: text(it.consumer, "audit_record.consumer")?,
            credential: claim(it.credential, "audit_record.credential")?,
            client: address(&it.client, "audit_record.client")?,
            verdict: Cow::Owned(verdict),
            rule: bounded(it.rule, LONGEST_TEXT, "audit_record.rule")?,
        })
    }
}

/// An address; empty where it is not known.
pub(super) fn address(written: &str, field: &'static str) -> Result<Option<IpAddr>, Malformed> {
    if written.is_empty() {
        return Ok(None);
    }
    written.parse().map(Some).map_err(|_| Malformed(field))
}

pub(super) fn to_address(address: Option<IpAddr>) -> String {
    address
        .map(|address| address.to_string())
        .unwrap_or_default()
}
