//! Overrides in memory: those of files and of the store, until they expire.
//!
//! Promises: a limit of a grantee is overridden once, by a file before the store; what expired is forgotten, and every consumer it
//! was for made anew, so that those who share a counter have the same limit. The time comes in as a value. Not here: what becomes of a
//! limit under an override.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tollgate_policy::directory::Defined;
use tollgate_policy::settings::{Grantee, LimitOverride, Override};
use tollgate_policy::time::Timestamp;

use super::{Effects, Held, Index};

/// Overrides by name, in order of limits.
type ByName = BTreeMap<Arc<str>, Vec<Override>>;

/// All overrides.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    organisations: ByName,
    projects: ByName,
    consumers: ByName,
}

impl Overrides {
    const fn of(&self, grantee: Grantee) -> &ByName {
        match grantee {
            Grantee::Organisation => &self.organisations,
            Grantee::Project => &self.projects,
            Grantee::Consumer => &self.consumers,
        }
    }

    const fn of_mut(&mut self, grantee: Grantee) -> &mut ByName {
        match grantee {
            Grantee::Organisation => &mut self.organisations,
            Grantee::Project => &mut self.projects,
            Grantee::Consumer => &mut self.consumers,
        }
    }

    fn all(&self) -> impl Iterator<Item = (Grantee, &Arc<str>, &Override)> {
        let named = |grantee| self.of(grantee).iter().map(move |it| (grantee, it));
        let granted = Grantee::ALL.into_iter().flat_map(named);
        granted.flat_map(|(grantee, (name, held))| held.iter().map(move |it| (grantee, name, it)))
    }
}

impl Index {
    /// A grantee's overrides that are in force, by limit.
    pub(crate) fn overrides(&self, grantee: Grantee, name: &str) -> &[Override] {
        let held = self.overrides.of(grantee).get(name);
        held.map_or(&[], Vec::as_slice)
    }

    /// All that are in force, by grantee and limit.
    pub(crate) fn all_overrides(&self) -> impl Iterator<Item = (Grantee, &Arc<str>, &Override)> {
        self.overrides.all()
    }

    /// Whether there is such a grantee.
    pub(crate) fn has_grantee(&self, grantee: Grantee, name: &str) -> bool {
        match grantee {
            Grantee::Organisation => self.organisations.contains_key(name),
            Grantee::Project => self.projects.contains_key(name),
            Grantee::Consumer => self.consumers.contains_key(name),
        }
    }

    /// What a consumer was granted: itself, with its project, and with its organisation.
    pub(super) fn granted(&self, consumer: &str, held: &Held) -> Vec<LimitOverride> {
        let project = self.projects.get(&held.project);
        let organisation = project.map_or("", |it| &*it.organisation);
        let named = [
            (Grantee::Organisation, organisation),
            (Grantee::Project, &*held.project),
            (Grantee::Consumer, consumer),
        ];
        let told = |(grantee, name)| {
            let held = self.overrides(grantee, name).iter();
            held.map(move |it| it.told(grantee))
        };
        named.into_iter().flat_map(told).collect()
    }

    /// Takes over an override in place of another of the same limit, unless that one comes from a file.
    pub(super) fn put_override(&mut self, grantee: Grantee, name: &Arc<str>, found: Override) {
        let held = self.overrides.of_mut(grantee);
        let held = held.entry(Arc::clone(name)).or_default();
        match held.iter_mut().find(|other| other.limit == found.limit) {
            Some(other) if other.origin != Defined::Store && found.origin == Defined::Store => {
                self.remarks.push(format!(
                    "the override of {} for {} {name} is in the store and in a file; the file counts",
                    found.limit,
                    grantee.as_str(),
                ));
            }
            Some(other) => *other = found,
            None => {
                held.push(found);
                held.sort_by(|one, other| one.limit.cmp(&other.limit));
            }
        }
    }

    pub(super) fn drop_override(&mut self, grantee: Grantee, name: &str, limit: &str) {
        let overrides = self.overrides.of_mut(grantee);
        if let Some(held) = overrides.get_mut(name) {
            held.retain(|it| *it.limit != *limit);
            if held.is_empty() {
                overrides.remove(name);
            }
        }
    }

    /// Forgets what a grantee had that is gone: another of its name begins with nothing.
    pub(super) fn drop_overrides(&mut self, grantee: Grantee, name: &str) {
        self.overrides.of_mut(grantee).remove(name);
    }

    /// Overrides of plans' limits that change nothing, because the limit is not the grantee's.
    pub(super) fn remark_overrides(&self, remarks: &mut Vec<String>) {
        let limits = self.plans.values().flat_map(|plan| &plan.limits);
        let limits: HashMap<&Arc<str>, _> = limits.map(|limit| (&limit.id, limit)).collect();
        for (grantee, name, one) in self.overrides.all() {
            let limit = limits.get(&one.limit);
            if let Some((what, remedy)) = limit.and_then(|limit| grantee.is_none_of(limit)) {
                let whose = grantee.as_str();
                remarks.push(format!(
                    "the override of {} for {whose} {name} changes nothing: {what}; {remedy}",
                    one.limit
                ));
            }
        }
    }

    /// When the next override expires.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.overrides.all().filter_map(|it| it.2.expires).min()
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now: Timestamp, effects: &mut Effects) {
        let over = |it: &Override| it.expires.is_some_and(|at| at <= now);
        for grantee in Grantee::ALL {
            let mut concerned = Vec::new();
            self.overrides.of_mut(grantee).retain(|name, held| {
                let before = held.len();
                held.retain(|it| !over(it));
                if held.len() < before {
                    concerned.push(Arc::clone(name));
                }
                !held.is_empty()
            });
            for name in concerned {
                self.touch_grantee(grantee, name, effects);
            }
        }
    }

    /// What was made of the consumers of a grantee is made anew.
    pub(super) fn touch_grantee(
        &mut self,
        grantee: Grantee,
        name: Arc<str>,
        effects: &mut Effects,
    ) {
        let projects = &self.projects;
        let is_of = |held: &Held| match grantee {
            Grantee::Consumer => false,
            Grantee::Project => held.project == name,
            Grantee::Organisation => {
                let project = projects.get(&held.project);
                project.is_some_and(|it| it.organisation == name)
            }
        };
        let consumers = match grantee {
            Grantee::Consumer => vec![name],
            Grantee::Project | Grantee::Organisation => {
                let of = self.consumers.iter().filter(|(_, held)| is_of(held));
                of.map(|(name, _)| Arc::clone(name)).collect()
            }
        };
        for consumer in consumers {
            self.touch(consumer, effects);
        }
    }
}
