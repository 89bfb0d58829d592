//! All APIs of the process and which of them a request is for: exact host before `*.suffix` (longest first) before any host,
//! then the longest base path.
//!
//! A look-up allocates nothing, and its cost depends on the host's labels and the base path's segments, not on how many APIs
//! there are. Not here: who owns a host and base path that two APIs claim (`live::conflicts`), and which operation a call is.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_policy::quota::Limit;
use tollgate_policy::settings::HostPattern;

use crate::api::Api;

/// Segments a base path may have. Bounds what a look-up walks; the longest base path seen in 4,000 public files has seven.
pub const MAX_BASE_SEGMENTS: usize = 16;

/// All APIs served, by host and base path. Immutable; replaced as a whole when one API changes.
#[derive(Debug, Default)]
pub struct Apis {
    all: Vec<Arc<Api>>,
    exact: HashMap<Arc<str>, BasePaths<Arc<Api>>>,
    /// By suffix with its leading dot: `.example.com`.
    suffixes: HashMap<Arc<str>, BasePaths<Arc<Api>>>,
    /// Most dots a suffix has: longer tails of a host need no look-up.
    suffix_dots: usize,
    any: BasePaths<Arc<Api>>,
}

impl Apis {
    /// Builds the selection. The caller has resolved conflicts: of two APIs with the same host and base path the first wins.
    pub fn new(mut all: Vec<Arc<Api>>) -> Self {
        all.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        let mut apis = Self::default();
        for api in &all {
            if api.config.hosts.is_empty() {
                apis.any.add(&api.bases, api);
            }
            for host in &api.config.hosts {
                let by_host = match host {
                    HostPattern::Exact(host) => apis.exact.entry(Arc::clone(host)),
                    HostPattern::Suffix(suffix) => {
                        apis.suffix_dots = apis.suffix_dots.max(dots(suffix));
                        apis.suffixes.entry(Arc::clone(suffix))
                    }
                };
                by_host.or_default().add(&api.bases, api);
            }
        }
        apis.all = all;
        apis
    }

    /// All APIs, by name.
    pub fn all(&self) -> &[Arc<Api>] {
        &self.all
    }

    /// The limits of an API, by its name.
    pub fn limits(&self, api: &str) -> Option<Vec<Arc<Limit>>> {
        let found = self.all.iter().find(|it| *it.config.name == *api);
        found.map(|api| api.limits.clone())
    }

    /// The API for a host (lower case, no port) and a canonical path.
    pub fn select(&self, host: &str, path: &str) -> Option<&Arc<Api>> {
        self.exact
            .get(host)
            .and_then(|bases| bases.longest(path))
            .or_else(|| self.select_by_suffix(host, path))
            .or_else(|| self.any.longest(path))
    }

    fn select_by_suffix(&self, host: &str, path: &str) -> Option<&Arc<Api>> {
        if self.suffixes.is_empty() {
            return None;
        }
        // A tail with as many dots as the longest suffix is the longest that can match. `*.a.b` does not match `.a.b`.
        let skipped = dots(host).saturating_sub(self.suffix_dots);
        host.match_indices('.')
            .skip(skipped)
            .filter(|(at, _)| *at > 0)
            .filter_map(|(at, _)| self.suffixes.get(host.get(at..)?))
            .find_map(|bases| bases.longest(path))
    }
}

/// Base paths of one host.
#[derive(Debug)]
struct BasePaths<T> {
    by_base: HashMap<Arc<str>, T>,
    /// Segments of the longest base path.
    segments: usize,
}

impl<T> Default for BasePaths<T> {
    fn default() -> Self {
        Self {
            by_base: HashMap::new(),
            segments: 0,
        }
    }
}

impl<T: Clone> BasePaths<T> {
    fn add(&mut self, bases: &[Arc<str>], value: &T) {
        for base in bases {
            self.segments = self.segments.max(base_segments(base));
            self.by_base
                .entry(Arc::clone(base))
                .or_insert_with(|| value.clone());
        }
    }

    /// What serves the longest base path that is a prefix of `path` ending at a segment boundary.
    fn longest(&self, path: &str) -> Option<&T> {
        if self.by_base.is_empty() {
            return None;
        }
        let path = path.split('?').next().unwrap_or_default();
        let mut ends = [0_usize; MAX_BASE_SEGMENTS + 1];
        let mut found = 1;
        let boundaries = path
            .match_indices('/')
            .map(|(at, _)| at)
            .skip(1)
            .chain([path.len()]);
        for (slot, at) in ends.iter_mut().skip(1).zip(boundaries).take(self.segments) {
            *slot = at;
            found += 1;
        }
        ends.iter()
            .take(found)
            .rev()
            .find_map(|end| self.by_base.get(path.get(..*end)?))
    }
}

/// Segments of a base path: 0 for `""`.
pub(crate) fn base_segments(base: &str) -> usize {
    base.matches('/').count()
}

fn dots(host: &str) -> usize {
    host.matches('.').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_base_path_that_ends_at_a_segment_boundary_wins() {
        let bases = |list: &[&str]| {
            let mut paths = BasePaths::default();
            for base in list {
                paths.add(&[Arc::from(*base)], &(*base).to_owned());
            }
            paths
        };
        let table: &[(&[&str], &str, Option<&str>)] = &[
            (&["/v1"], "/v1", Some("/v1")),
            (&["/v1"], "/v1/", Some("/v1")),
            (&["/v1"], "/v1/x", Some("/v1")),
            (&["/v1"], "/v1?q=/v2", Some("/v1")),
            (&["/v1"], "/v10", None),
            (&["/v1"], "/", None),
            (&["/v1"], "/V1/x", None),
            (&[""], "/", Some("")),
            (&[""], "/anything/at/all", Some("")),
            (&[""], "*", Some("")),
            (&["", "/v1", "/v1/admin"], "/v1/admin/x", Some("/v1/admin")),
            (&["", "/v1", "/v1/admin"], "/v1/administrator", Some("/v1")),
            (&["", "/v1", "/v1/admin"], "/v2", Some("")),
            (&["/a/b/c"], "/a/b", None),
            (&["/a/b/c", "/a"], "/a/b/d/e/f/g", Some("/a")),
            (&[], "/", None),
        ];
        for (list, path, expected) in table {
            let paths = bases(list);
            assert_eq!(
                paths.longest(path).map(String::as_str),
                *expected,
                "{list:?} {path}"
            );
        }
    }

    #[test]
    fn a_path_of_many_segments_is_walked_no_further_than_the_longest_base() {
        let mut paths = BasePaths::default();
        paths.add(&[Arc::from("/a".repeat(MAX_BASE_SEGMENTS))], &1);
        assert_eq!(paths.longest(&"/a".repeat(10_000)), Some(&1));
        assert_eq!(paths.longest(&"/a".repeat(MAX_BASE_SEGMENTS - 1)), None);
    }
}
