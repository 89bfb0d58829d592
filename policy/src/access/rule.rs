//! One ACL rule, compiled: whether it is about a call, and if not, what differs.
//!
//! All fields that are given must match; one value of a field is enough. Without allocation but for a condition in CEL. Not here:
//! what follows from a match (`decide`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::cel::{Condition, Undecided};
use super::{Circumstances, Identity, RuleRef};
use crate::directory::{Consumer, Plan};
use crate::settings::{Network, RuleConfig};
use crate::time::Timestamp;

/// An entry of `acl`.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) reference: Arc<RuleRef>,
    pub(super) config: RuleConfig,
    pub(super) condition: Option<Condition>,
}

/// What a rule may look at.
pub(super) struct Facts<'f> {
    pub(super) operation: &'f str,
    pub(super) identity: &'f Identity,
    /// Of the API that is called, where there is a subscription.
    pub(super) plan: Option<&'f Plan>,
    pub(super) circumstances: &'f Circumstances<'f>,
}

impl<'f> Facts<'f> {
    pub(super) fn consumer(&self) -> Option<&'f Consumer> {
        self.identity
            .caller
            .as_ref()
            .map(|caller| &*caller.consumer)
    }

    /// Roles of the consumer, its plan and its token.
    pub(super) fn roles(&self) -> impl Iterator<Item = &'f Arc<str>> {
        let consumer = self.consumer().map_or(&[][..], |consumer| &consumer.roles);
        let plan = self.plan.map_or(&[][..], |plan| &plan.roles);
        let claims = self.identity.claims.as_ref();
        let token = claims.map_or(&[][..], |claims| &claims.roles);
        consumer.iter().chain(plan).chain(token)
    }

    /// Scopes of the token.
    pub(super) fn scopes(&self) -> &'f [Arc<str>] {
        let claims = self.identity.claims.as_ref();
        claims.map_or(&[], |claims| &claims.scopes)
    }
}

/// What is compared: its kind, the values that match, the value there is.
type Named<'r> = (&'static str, &'r [Arc<str>], Option<&'r str>);

impl Rule {
    /// Whether it is about this call.
    pub(super) fn matches<'r>(&'r self, facts: &Facts<'r>) -> Result<(), Difference<'r>> {
        self.same_caller(facts)?;
        let config = &self.config;
        if !config.networks.is_empty() {
            let client = facts.circumstances.client.ok_or(Difference::NoAddress)?;
            if !contained(&config.networks, client) {
                return Err(Difference::Network(client));
            }
        }
        self.right_time(facts.circumstances.now)?;
        match &self.condition {
            None => Ok(()),
            Some(condition) => match condition.holds(facts) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Difference::Condition(condition.text())),
                Err(undecided) => Err(Difference::Undecided(undecided)),
            },
        }
    }

    fn same_caller<'r>(&'r self, facts: &Facts<'r>) -> Result<(), Difference<'r>> {
        let config = &self.config;
        let consumer = facts.consumer();
        let named: [Named<'r>; 4] = [
            ("consumer", &config.consumers, consumer.map(|of| &*of.name)),
            ("project", &config.projects, consumer.map(|of| &*of.project)),
            (
                "organisation",
                &config.organisations,
                consumer.map(|of| &*of.organisation),
            ),
            ("plan", &config.plans, facts.plan.map(|plan| &*plan.name)),
        ];
        for (what, wanted, is) in named {
            if !wanted.is_empty() && !is.is_some_and(|is| wanted.iter().any(|one| **one == *is)) {
                return Err(Difference::Name { what, is, wanted });
            }
        }
        if !config.scopes.is_empty()
            && !facts.scopes().iter().any(|one| config.scopes.contains(one))
        {
            return Err(Difference::None {
                what: "scope",
                wanted: &config.scopes,
            });
        }
        if !config.roles.is_empty() && !facts.roles().any(|one| config.roles.contains(one)) {
            return Err(Difference::None {
                what: "role",
                wanted: &config.roles,
            });
        }
        Ok(())
    }

    fn right_time(&self, now: Timestamp) -> Result<(), Difference<'static>> {
        let config = &self.config;
        if let Some(start) = config.not_before.filter(|start| now < *start) {
            return Err(Difference::Early(start));
        }
        if let Some(end) = config.not_after.filter(|end| now >= *end) {
            return Err(Difference::Late(end));
        }
        match config.hours {
            Some((from, until)) if !within_hours(from, until, now) => {
                Err(Difference::Hours(from, until))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether one of the networks holds the address.
pub(super) fn contained(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Whether `now` lies between two minutes of the day in UTC; `from` after `until` passes midnight.
fn within_hours(from: u16, until: u16, now: Timestamp) -> bool {
    let minute = now.seconds().rem_euclid(86_400) / 60;
    let (from, until) = (i64::from(from), i64::from(until));
    if from <= until {
        (from..until).contains(&minute)
    } else {
        minute >= from || minute < until
    }
}

/// Why a rule is not about a call. Written only when somebody asks.
#[derive(Debug)]
pub(super) enum Difference<'r> {
    Name {
        what: &'static str,
        is: Option<&'r str>,
        wanted: &'r [Arc<str>],
    },
    None {
        what: &'static str,
        wanted: &'r [Arc<str>],
    },
    Network(IpAddr),
    NoAddress,
    Early(Timestamp),
    Late(Timestamp),
    Hours(u16, u16),
    Condition(&'r str),
    Undecided(Undecided),
}

impl Difference<'_> {
    /// Whether it cannot be told if the rule is about the call: then a denial refuses.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self, Self::NoAddress | Self::Undecided(_))
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name {
                what,
                is: Some(is),
                wanted,
            } => {
                write!(f, "{what} {is} is not one of {}", Listed(wanted))
            }
            Self::Name {
                what,
                is: None,
                wanted,
            } => {
                write!(
                    f,
                    "the caller has no {what}, wanted is one of {}",
                    Listed(wanted)
                )
            }
            Self::None { what, wanted } => {
                write!(f, "the caller has no {what} of {}", Listed(wanted))
            }
            Self::Network(address) => write!(f, "address {address} is in none of its networks"),
            Self::NoAddress => f.write_str("the client's address is not known"),
            Self::Early(start) => write!(f, "it holds from {start}"),
            Self::Late(end) => write!(f, "it held until {end}"),
            Self::Hours(from, until) => {
                let clock = |minute: &u16| format!("{:02}:{:02}", minute / 60, minute % 60);
                write!(f, "it holds from {} to {} UTC", clock(from), clock(until))
            }
            Self::Condition(text) => write!(f, "`{text}` is false"),
            Self::Undecided(why) => write!(f, "its condition cannot be evaluated: {why}"),
        }
    }
}

/// Names, with commas between them.
struct Listed<'l>(&'l [Arc<str>]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}
