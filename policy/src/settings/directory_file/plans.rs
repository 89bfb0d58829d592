//! `plans.yaml`: what is sold to consumers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::super::decode::Text;
use super::super::limit_file::{Owner, WrittenLimit, WrittenPrice, limits, price};
use super::super::mention::Mention;
use super::super::names;
use super::super::reader::Reader;
use super::super::value::Wrong;
use super::terms::Terms;
use super::{File, unknown};
use crate::directory::{Defined, Plan, PlanApi};
use crate::finding::{Finding, Place};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    plans: Option<BTreeMap<Text, WrittenPlan>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPlan {
    apis: BTreeMap<Text, WrittenOperations>,
    roles: Option<Vec<Text>>,
    terms: Option<Vec<Text>>,
    limits: Option<Vec<WrittenLimit>>,
    price: Option<WrittenPrice>,
}

/// `all`, or a list.
#[derive(Debug, Deserialize)]
enum WrittenOperations {
    Text(Text),
    List(Vec<Text>),
}

/// The plans, and where they name terms.
#[derive(Debug, Default)]
pub(super) struct Plans {
    pub(super) plans: Vec<Arc<Plan>>,
    pub(super) mentions: Vec<Mention>,
    terms: Vec<(Arc<str>, Place)>,
}

impl File for Plans {
    type Written = Written;

    fn mean(reader: &mut Reader, written: &Written) -> Self {
        let mut found = Self::default();
        for (name, written) in written.plans.iter().flatten() {
            if let Some(plan) = found.plan(reader, name, written) {
                found.plans.push(Arc::new(plan));
            }
        }
        found
    }
}

impl Plans {
    fn plan(&mut self, reader: &mut Reader, at: &Text, written: &WrittenPlan) -> Option<Plan> {
        let field = |inner: &str| format!("plans.{}.{inner}", at.text);
        let name = reader.value("plans", Some(at), names::object);
        if written.apis.is_empty() {
            let wrong = Wrong::new(
                "is empty",
                "write `apis: { \"*\": all }`, or the APIs it opens",
            );
            reader.refuse(&field("apis"), at, wrong);
        }
        let mut apis = Vec::new();
        for (api, operations) in &written.apis {
            let Some(key) = reader.value(&field("apis"), Some(api), names::object_or_any) else {
                continue;
            };
            self.mention(reader, api, None);
            let operations = self.operations(reader, &field("apis"), api, operations);
            apis.push(PlanApi {
                api: key,
                operations,
            });
        }
        let roles = reader.list(&field("roles"), written.roles.as_ref(), names::word);
        let mut terms = Vec::new();
        for one in written.terms.iter().flatten() {
            let Some(name) = reader.value(&field("terms"), Some(one), names::object) else {
                continue;
            };
            self.terms.push((Arc::clone(&name), reader.place(one)));
            terms.push(name);
        }
        let limits = written.limits.as_deref().unwrap_or_default();
        let owner = Owner::Plan(&at.text);
        let limits = self::limits(reader, &field("limits"), limits, owner);
        let price = written.price.as_ref();
        let price = price.map(|it| self::price(reader, &field("price"), it));
        Some(Plan {
            name: name?,
            apis,
            roles,
            terms,
            limits,
            price: price.unwrap_or_default(),
            origin: Defined::File(reader.place(at)),
        })
    }

    fn operations(
        &mut self,
        reader: &mut Reader,
        field: &str,
        api: &Text,
        written: &WrittenOperations,
    ) -> Option<Vec<Arc<str>>> {
        let field = format!("{field}.{}", api.text);
        match written {
            WrittenOperations::Text(all) => {
                if all.text != "all" {
                    let wrong = Wrong::new(
                        format!("`{}` is neither `all` nor a list", all.text),
                        "write all, or [listBooks, \"GET /books/{id}\"]",
                    );
                    reader.refuse(&field, all, wrong);
                }
                None
            }
            WrittenOperations::List(list) => {
                for one in list {
                    self.mention(reader, api, Some(one));
                }
                Some(reader.list(&field, Some(list), names::line))
            }
        }
    }

    fn mention(&mut self, reader: &Reader, api: &Text, operation: Option<&Text>) {
        self.mentions.push(Mention {
            api: api.text.as_str().into(),
            operation: operation.map(|one| one.text.as_str().into()),
            place: reader.place(operation.unwrap_or(api)),
        });
    }

    /// Terms that are named and not there.
    pub(super) fn check_terms(&self, terms: &Terms, findings: &mut Vec<Finding>) {
        let known: HashSet<_> = terms.terms.iter().map(|it| &it.name).collect();
        for (name, place) in &self.terms {
            if !known.contains(name) {
                let all = known.iter().copied();
                findings.push(unknown(
                    name,
                    "terms",
                    place,
                    all,
                    "write them in terms.yaml",
                ));
            }
        }
    }
}
