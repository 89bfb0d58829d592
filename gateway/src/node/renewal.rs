//! Keeping the certificate: another one at half its life, with another key.
//!
//! Promises: many nodes that started together do not ask together; a control plane that is away is asked again, later and later, up to a
//! minute apart; when little time is left that is an alarm; when none is, the log says how to join again. The wall clock is looked at
//! every minute, so that a clock that was put forward or a machine that slept is noticed. Not here: what else runs on the identity.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tollgate_policy::credentials::certificate;
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::Kind;
use tollgate_proto::wire::RenewRequest;
use tollgate_proto::wire::identity_client::IdentityClient;

use super::channel::channel;
use super::identity::{Held, NodeIdentity};
use super::join::{ANSWER, asked, taken};
use super::membership::Membership;

/// How often the clock is looked at, and the longest wait between tries.
const LOOK: Duration = Duration::from_secs(60);
/// The first wait after a try that failed is up to this.
const FIRST: Duration = Duration::from_secs(1);

/// Asks for another certificate of the same identity, once.
///
/// # Errors
/// In words: nobody answered, or what was answered is not good. Nothing has changed then.
pub async fn renew(
    identity: &Arc<NodeIdentity>,
    membership: &Membership,
) -> Result<Membership, String> {
    let before = identity.current().ok_or("this process never joined")?;
    let (key, request) = asked()?;
    // A connection of its own: it shows that the certificate still counts.
    let channel = channel(&membership.control, Arc::clone(identity))?;
    let asking = RenewRequest {
        request,
        node: membership.node.clone(),
    };
    let mut client = IdentityClient::new(channel);
    let answer = tokio::time::timeout(ANSWER, client.renew(asking)).await;
    let answer = answer.map_err(|_| "no answer in time".to_owned())?;
    let credentials = answer.map_err(|status| said(&status))?.into_inner();
    let own = (membership.control.clone(), membership.node.clone());
    let renewed = taken(credentials, key, own)?;
    if renewed.held()?.id != before.id {
        return Err("the certificate is somebody else's".to_owned());
    }
    Ok(renewed)
}

/// A status with its causes: what went wrong with a connection stands there.
fn said(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

/// Renews as long as the process lives, in memory and in `state_dir`.
pub async fn keep_renewing(
    identity: Arc<NodeIdentity>,
    mut membership: Membership,
    state_dir: PathBuf,
) {
    loop {
        let Some(held) = identity.current() else {
            return;
        };
        let Some(life) = Life::of(&held) else {
            tracing::error!("the certificate of this node cannot be read; it is not renewed");
            return;
        };
        wait_until(life.renewed_at()).await;
        membership = renewed(&identity, membership, &held, &life).await;
        keep(&identity, &membership, &state_dir);
        // Where clocks differ by half a life, the next is due at once, and the one after it.
        tokio::time::sleep(FIRST).await;
    }
}

/// Tries until it succeeds.
async fn renewed(
    identity: &Arc<NodeIdentity>,
    membership: Membership,
    held: &Held,
    life: &Life,
) -> Membership {
    let (mut wait, mut told) = (FIRST, false);
    loop {
        let left = life.left(now());
        if left.is_zero() {
            if !told {
                tell_expired(held);
                told = true;
            }
            // A clock that was wrong may be put right.
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match renew(identity, &membership).await {
            Ok(renewed) => return renewed,
            Err(why) if left < life.whole() / 4 => {
                tracing::error!(%why, left = ?left, "the certificate of this node is about to expire and cannot be renewed");
            }
            Err(why) => tracing::warn!(%why, left = ?left, "the certificate was not renewed"),
        }
        tokio::time::sleep(wait.mul_f64(random())).await;
        wait = (wait * 2).min(LOOK);
    }
}

fn tell_expired(held: &Held) {
    let kind = match held.id.kind() {
        Kind::Gateway => "gateway",
        Kind::Service | Kind::Control => "service",
    };
    tracing::error!(
        "the certificate of {} has expired, and an expired one cannot be renewed: make a token with \
         `tollgate join-tokens create --{kind} {}` and join again with it",
        held.id,
        held.id.name()
    );
}

/// In memory first: what cannot be written serves until the process ends.
fn keep(identity: &NodeIdentity, membership: &Membership, state_dir: &Path) {
    match membership.held() {
        Ok(held) => identity.replace(held),
        Err(why) => {
            tracing::error!(%why, "the new certificate cannot be used");
            return;
        }
    }
    match membership.save(state_dir) {
        Ok(()) => tracing::info!("the certificate of this node was renewed"),
        Err(error) => {
            tracing::error!(%error, "the new certificate is not kept for the next start");
        }
    }
}

/// From when to when a certificate counts.
struct Life {
    begins: Timestamp,
    ends: Timestamp,
}

impl Life {
    fn of(held: &Held) -> Option<Self> {
        let read = certificate::identity(held.chain.first()?).ok()?;
        Some(Self {
            begins: read.not_before,
            ends: read.not_after,
        })
    }

    fn whole(&self) -> Duration {
        self.ends.since(self.begins)
    }

    fn left(&self, now: Timestamp) -> Duration {
        self.ends.since(now)
    }

    /// Half of it, a tenth of it earlier or later.
    fn renewed_at(&self) -> Timestamp {
        let share = 0.4 + 0.2 * random();
        self.begins.plus(self.whole().mul_f64(share))
    }
}

async fn wait_until(at: Timestamp) {
    loop {
        let left = at.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// From 0 to 1; for spreading, not for secrets.
fn random() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(std::process::id()) % 65_536;
    f64::from(u32::try_from(bits).unwrap_or(0)) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_about_half_way() {
        let life = Life {
            begins: Timestamp::from_seconds(1_000),
            ends: Timestamp::from_seconds(2_000),
        };
        for _ in 0..1_000 {
            let at = life.renewed_at().seconds();
            assert!((1_400..=1_600).contains(&at), "{at}");
        }
        assert!(life.left(Timestamp::from_seconds(3_000)).is_zero());
    }
}
