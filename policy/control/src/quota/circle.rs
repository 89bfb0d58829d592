//! Which counters are of an organisation, a project or a consumer: its own, and those of whatever belongs to it. Counters of
//! addresses and of everybody are nobody's.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::index::Index;

/// Whose counters are wanted; nothing named: all.
#[derive(Debug, Default)]
pub(crate) struct Circle {
    pub(crate) organisation: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) consumer: Option<String>,
    /// Credentials by public identifier, with their consumers.
    credentials: HashMap<Arc<str>, Arc<str>>,
}

impl Circle {
    /// Those who are in all that is named.
    pub(crate) fn of(
        index: &Index,
        organisation: Option<String>,
        project: Option<String>,
        consumer: Option<String>,
    ) -> Self {
        let mut circle = Self {
            organisation,
            project,
            consumer,
            credentials: HashMap::new(),
        };
        if !circle.is_everybody() {
            circle.credentials = index.credential_owners().collect();
        }
        circle
    }

    const fn is_everybody(&self) -> bool {
        self.organisation.is_none() && self.project.is_none() && self.consumer.is_none()
    }

    /// Whether the counter of a subject, such as `consumer:shop`, is wanted.
    pub(crate) fn has(&self, index: &RwLock<Index>, subject: &str) -> bool {
        if self.is_everybody() {
            return true;
        }
        let Some((kind, name)) = subject.split_once(':') else {
            return false;
        };
        let index = index.read();
        match kind {
            "organisation" => {
                self.project.is_none() && self.consumer.is_none() && named(&self.organisation, name)
            }
            "project" => self.consumer.is_none() && self.has_project(&index, name),
            "consumer" => self.has_consumer(&index, name),
            "user" => {
                let (consumer, _) = name.split_once(':').unwrap_or((name, ""));
                self.has_consumer(&index, consumer)
            }
            "credential" => {
                let consumer = self.credentials.get(name);
                consumer.is_some_and(|it| self.has_consumer(&index, it))
            }
            _ => false,
        }
    }

    fn has_project(&self, index: &Index, name: &str) -> bool {
        let organisation = index.projects.get(name).map(|it| &*it.organisation);
        named(&self.project, name) && named(&self.organisation, organisation.unwrap_or_default())
    }

    fn has_consumer(&self, index: &Index, name: &str) -> bool {
        // One that is gone is in no project any more.
        let project = index.consumers.get(name).map(|it| &*it.project);
        named(&self.consumer, name) && self.has_project(index, project.unwrap_or_default())
    }
}

fn named(wanted: &Option<String>, name: &str) -> bool {
    wanted.as_ref().is_none_or(|wanted| *wanted == *name)
}
