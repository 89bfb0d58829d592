//! A look at what is held: at the start at everything, later at what waits. What is good is served, the rest goes on waiting.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::Live;
use super::super::attempt::{Attempt, Outcome};
use super::super::load::Source;
use super::trial::Phase;
use super::{Bundles, lacks_descriptions, may_wait, serving};

impl Live {
    /// The first look: each API from its newest generation that is good.
    pub(in crate::live) fn begin(&self, bundles: &Bundles) {
        bundles.count_deaths();
        let apis = bundles.store.apis();
        let attempts: Vec<_> = apis
            .iter()
            .filter_map(|api| self.first(bundles, api))
            .collect();
        for attempt in &attempts {
            if let Source::Bundle(held) = &attempt.source {
                bundles.know(&attempt.name, |known| {
                    known.waiting = Some(Arc::clone(held))
                });
            }
        }
        self.conclude(attempts);
        self.note_served(bundles);
        bundles
            .known
            .lock()
            .values_mut()
            .for_each(|it| it.late = None);
        let entries = self.entries.lock();
        for (api, entry) in &*entries {
            if !may_wait(entry) {
                bundles.know(api, |known| known.waiting = None);
            }
        }
    }

    /// Another look: at what waits, and with `all` at whether anything changed that bundles refer to.
    pub(in crate::live) fn look(&self, bundles: &Bundles, all: bool) {
        let before = self.entries.lock().clone();
        let waiting = bundles.waiting();
        let names: BTreeSet<&String> = before.keys().chain(waiting.keys()).collect();
        let attempt = |name: &String| {
            let entry = before.get(name);
            if let Some(held) = waiting.get(name) {
                bundles.put_to_trial(name, held.stamp.generation, Some(Phase::Compiling));
                let source = Source::Bundle(Arc::clone(held));
                let attempt = self.attempt(entry, name.clone(), source);
                bundles.put_to_trial(name, held.stamp.generation, None);
                return Some(attempt);
            }
            let entry = entry?;
            Some(match all && entry.serving.is_some() {
                true => self.attempt(Some(entry), name.clone(), entry.source.clone()),
                false => Attempt::unchanged(name.clone(), entry.clone()),
            })
        };
        let attempts: Vec<_> = names.into_iter().filter_map(attempt).collect();
        for api in waiting.keys() {
            self.will_serve(bundles, api, &attempts);
        }
        self.conclude(attempts);
        self.note_served(bundles);
    }

    /// Before it takes traffic, not after.
    fn will_serve(&self, bundles: &Bundles, api: &str, attempts: &[Attempt]) {
        let attempt = attempts.iter().find(|attempt| attempt.name == api);
        if let Some((Source::Bundle(held), Outcome::Loaded(_))) =
            attempt.map(|it| (&it.source, &it.outcome))
        {
            let before = bundles.know(api, |known| known.on_trial.take());
            if let Some((before, _)) = before {
                bundles.put_to_trial(api, before, None);
            }
            bundles.put_to_trial(api, held.stamp.generation, Some(Phase::Serving));
        }
    }

    /// What waited and serves now.
    fn note_served(&self, bundles: &Bundles) {
        for (api, held) in bundles.waiting() {
            let entry = self.entries.lock().get(&api).cloned();
            let serves = entry.as_ref().and_then(serving) == Some(&held.stamp);
            let generation = held.stamp.generation;
            if !serves {
                bundles.put_to_trial(&api, generation, None);
                continue;
            }
            bundles.store.prune(&api, generation);
            let aside = bundles.store.aside(&api);
            bundles.know(&api, |known| {
                known.waiting = None;
                known.late = Some(generation);
                if known
                    .aside
                    .as_ref()
                    .is_some_and(|it| it.stamp.generation <= generation)
                {
                    known.aside = aside;
                }
            });
        }
    }

    /// An API at the start: from its newest generation that can be served.
    fn first(&self, bundles: &Bundles, api: &str) -> Option<Attempt> {
        let mut troubles = Vec::new();
        let aside = bundles.know(api, |known| known.aside.clone());
        if let Some(aside) = &aside {
            let generation = aside.stamp.generation;
            troubles.push(format!(
                "generation {generation} was put aside: {}",
                aside.reason
            ));
        }
        let mut last = None;
        for generation in bundles.store.generations(api) {
            if aside
                .as_ref()
                .is_some_and(|it| it.stamp.generation == generation)
            {
                continue;
            }
            let held = match bundles.held(api, generation) {
                Ok(held) => Arc::new(held),
                Err(why) => {
                    let why = format!("generation {generation} cannot be used: {why}");
                    tracing::error!(%api, "API {api}: {why}");
                    troubles.push(why);
                    continue;
                }
            };
            bundles.put_to_trial(api, generation, Some(Phase::Compiling));
            let mut attempt = self.attempt(None, api.to_owned(), Source::Bundle(held));
            bundles.put_to_trial(api, generation, Some(Phase::Serving));
            let Outcome::Broken(why) = &attempt.outcome else {
                if let (Outcome::Loaded(loaded), false) = (&attempt.outcome, troubles.is_empty()) {
                    let loaded = loaded.clone();
                    attempt.outcome = Outcome::LastKnownGood(loaded, troubles.join("\n"));
                }
                return Some(attempt);
            };
            let waits = lacks_descriptions(why);
            troubles.push(why.clone());
            attempt.outcome = Outcome::Broken(troubles.join("\n"));
            bundles.put_to_trial(api, generation, None);
            last = last.or(Some(attempt));
            if waits {
                break;
            }
        }
        last
    }
}
