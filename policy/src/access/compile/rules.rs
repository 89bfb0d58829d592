//! Rules: those of `acl` of the API file, and those that hang on single operations.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::cel::Condition;
use super::super::rule::Rule;
use super::super::{OperationAccess, RuleRef};
use super::{Compiler, did_you_mean};
use crate::finding::Severity;
use crate::settings::{Effect, Network, NetworkLists, RuleConfig};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Every rule once, also where it hangs on a thousand operations.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) all: Vec<Rule>,
    /// How many of them stand in `acl` of the API file; the others hang on operations.
    wide: usize,
    /// Those that hang, by name, line and column.
    hanging: HashMap<(Arc<str>, u32, u32), Vec<usize>>,
    /// Those whose name another rule of the same operation has.
    doubled: HashSet<usize>,
}

impl Compiler<'_> {
    /// Compiles `acl` of the API file. `operations` are the names of each.
    pub(super) fn rules(&mut self, operations: &[Box<[Arc<str>]>]) {
        let mut taken = HashSet::new();
        let config = self.config;
        for rule in &config.acl {
            if !taken.insert(&rule.name) {
                let what = format!("there are two rules `{}`", rule.name);
                self.doubled(rule, what);
            }
            self.unknown_operations(rule, operations);
            self.rule(rule.clone());
        }
        self.rules.wide = self.rules.all.len();
    }

    /// Gives an operation its rules: those of the API file that are about it, and `hanging`.
    pub(super) fn judge(&mut self, access: &mut OperationAccess, hanging: Vec<RuleConfig>) {
        let hanging: Vec<usize> = hanging.into_iter().map(|rule| self.hanging(rule)).collect();
        let wide = self.rules.all.iter().enumerate().take(self.rules.wide);
        let about =
            |of: &RuleConfig| of.operations.is_empty() || access.is_named_in(&of.operations);
        let wide = wide.filter(|(_, rule)| about(&rule.config));
        let mut indexes: Vec<usize> = wide.map(|(index, _)| index).collect();
        if !hanging.is_empty() {
            self.one_name_each(access.name(), &indexes, &hanging);
        }
        indexes.extend(hanging);
        for index in indexes {
            let Some(rule) = self.rules.all.get(index) else {
                continue;
            };
            access.needs_cel |= rule.condition.is_some();
            match rule.config.effect {
                Effect::Deny => access.denials.push(index),
                Effect::Allow => access.allowances.push(index),
            }
        }
    }

    /// Index of a rule that hangs on operations; the same on the next operation is the same rule.
    fn hanging(&mut self, config: RuleConfig) -> usize {
        // What it hangs on is said by the operation.
        let config = RuleConfig {
            operations: Vec::new(),
            ..config
        };
        let (line, column) = (config.place.line, config.place.column);
        let key = (config.name.clone(), line, column);
        let known = self.rules.hanging.get(&key).into_iter().flatten();
        let same = |index: &&usize| {
            let rule = self.rules.all.get(**index);
            rule.is_some_and(|rule| rule.config == config)
        };
        if let Some(index) = known.copied().find(|index| same(&index)) {
            return index;
        }
        let index = self.rule(config);
        self.rules.hanging.entry(key).or_default().push(index);
        index
    }

    /// Explanations speak of rules by name: an operation has no two of the same.
    fn one_name_each(&mut self, operation: &str, wide: &[usize], hanging: &[usize]) {
        let rule = |index: &usize| Some(&self.rules.all.get(*index)?.config);
        let mut taken: HashSet<&Arc<str>> =
            wide.iter().filter_map(rule).map(|it| &it.name).collect();
        let mut doubled = Vec::new();
        for index in hanging {
            let Some(config) = rule(index) else { continue };
            if !taken.insert(&config.name) && !self.rules.doubled.contains(index) {
                doubled.push((*index, config.clone()));
            }
        }
        for (index, config) in doubled {
            self.rules.doubled.insert(index);
            let what = format!("operation `{operation}` has two rules `{}`", config.name);
            self.doubled(&config, what);
        }
    }

    fn doubled(&mut self, rule: &RuleConfig, what: String) {
        let remedy = "give each rule its own name";
        self.find(Severity::Error, "duplicate-rule", &rule.place, what, remedy);
    }

    /// Compiles a rule and returns its index.
    fn rule(&mut self, config: RuleConfig) -> usize {
        if let Some(why) = never(&config, &self.config.networks) {
            let what = format!("rule `{}` never matches: {why}", config.name);
            let remedy = "correct it, or remove it";
            self.find(
                Severity::Error,
                "never-matches",
                &config.place,
                what,
                remedy,
            );
        }
        let when = config.when.as_ref();
        let condition = when.map(|text| self.condition(&config, text));
        let reference = RuleRef {
            kind: "acl",
            name: config.name.clone(),
            place: Some(config.place.clone()),
        };
        self.rules.all.push(Rule {
            reference: reference.into(),
            config,
            condition,
        });
        self.rules.all.len() - 1
    }

    fn unknown_operations(&mut self, config: &RuleConfig, operations: &[Box<[Arc<str>]>]) {
        let known = || operations.iter().flatten();
        for name in config
            .operations
            .iter()
            .filter(|name| !known().any(|one| one == *name))
        {
            let what = format!(
                "rule `{}` is about `{name}`, which is no operation",
                config.name
            );
            let otherwise = "write an operationId, or method and template as in the OpenAPI file";
            let remedy = did_you_mean(name, known().map(|one| &**one), otherwise);
            self.find(
                Severity::Error,
                "unknown-operation",
                &config.place,
                what,
                &remedy,
            );
        }
    }

    fn condition(&mut self, config: &RuleConfig, text: &Arc<str>) -> Condition {
        Condition::compile(text).unwrap_or_else(|why| {
            let what = format!("the condition of rule `{}` is refused: {why}", config.name);
            let remedy = "correct `when`; it is CEL over request, path, query, header, caller, claims and now";
            self.find(Severity::Error, "bad-condition", &config.place, what, remedy);
            Condition::broken(text)
        })
    }
}

/// Why no call can ever match a rule.
fn never(rule: &RuleConfig, lists: &NetworkLists) -> Option<&'static str> {
    if let (Some(start), Some(end)) = (rule.not_before, rule.not_after)
        && start >= end
    {
        return Some("it ends before it begins");
    }
    if let Some((from, until)) = rule.hours
        && (from == until || from >= DAY || until > DAY)
    {
        return Some("its hours hold no minute of a day");
    }
    if rule.networks.is_empty() || lists.shadow {
        return None;
    }
    let overlap =
        |one: &Network, other: &Network| one.contains(other.address) || other.contains(one.address);
    let allowed = |network: &Network| {
        lists.allow.is_empty() || lists.allow.iter().any(|allowed| overlap(allowed, network))
    };
    let denied = |network: &Network| {
        let covers = |of: &Network| of.prefix <= network.prefix && of.contains(network.address);
        lists.deny.iter().any(covers)
    };
    if rule
        .networks
        .iter()
        .any(|network| allowed(network) && !denied(network))
    {
        return None;
    }
    Some("`networks` of the API refuses every address it is about")
}
