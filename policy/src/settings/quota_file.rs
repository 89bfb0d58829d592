//! `quota` of `tollgate.yaml`: as written, and turned into [`QuotaConfig`].

use serde::Deserialize;

use super::decode::Text;
use super::reader::Reader;
use super::{QuotaConfig, url, value};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenQuota {
    webhook: Option<Text>,
    legacy_fields: Option<Text>,
}

/// The meaning; what is unsaid is taken from `unsaid`.
pub(super) fn quota(
    reader: &mut Reader,
    unsaid: QuotaConfig,
    written: &WrittenQuota,
) -> QuotaConfig {
    let webhook = written.webhook.as_ref();
    let legacy = written.legacy_fields.as_ref();
    QuotaConfig {
        webhook: reader
            // Nothing that is sent there is secret, and the operator chose the place.
            .value("quota.webhook", webhook, |text| url::trusted(text, true))
            .or(unsaid.webhook),
        legacy_fields: reader
            .value("quota.legacy_fields", legacy, value::switch)
            .unwrap_or(unsaid.legacy_fields),
    }
}
