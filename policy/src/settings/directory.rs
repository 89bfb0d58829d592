//! `plans.yaml`, `consumers.yaml` and `terms.yaml`, as meant: the directory as far as files define it.

use std::sync::Arc;

use super::{Grantee, Network, Override};
use crate::directory::{Plan, Secret, TermsVersion};
use crate::finding::Place;
use crate::time::Timestamp;

/// All a configuration directory says about consumers, plans and terms. References between them are checked; APIs are
/// named only, because each is loaded apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectoryConfig {
    /// Organisations.
    pub organisations: Vec<OrganisationConfig>,
    /// Projects.
    pub projects: Vec<ProjectConfig>,
    /// Consumers.
    pub consumers: Vec<ConsumerConfig>,
    /// Plans.
    pub plans: Vec<Arc<Plan>>,
    /// Terms.
    pub terms: Vec<TermsConfig>,
}

impl DirectoryConfig {
    /// Whose limits are others, and which.
    pub fn overrides(&self) -> impl Iterator<Item = (Grantee, &Arc<str>, &Override)> {
        granted(&self.organisations, &self.projects, &self.consumers)
    }
}

/// The overrides of these.
pub(super) fn granted<'c>(
    organisations: &'c [OrganisationConfig],
    projects: &'c [ProjectConfig],
    consumers: &'c [ConsumerConfig],
) -> impl Iterator<Item = (Grantee, &'c Arc<str>, &'c Override)> {
    let organisations = organisations.iter();
    let organisations = organisations.map(|it| (Grantee::Organisation, &it.name, &it.overrides));
    let projects = projects.iter();
    let projects = projects.map(|it| (Grantee::Project, &it.name, &it.overrides));
    let consumers = consumers.iter();
    let consumers = consumers.map(|it| (Grantee::Consumer, &it.name, &it.overrides));
    let all = organisations.chain(projects).chain(consumers);
    all.flat_map(|(grantee, name, all)| all.iter().map(move |one| (grantee, name, one)))
}

/// An organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct OrganisationConfig {
    /// Unique name.
    pub name: Arc<str>,
    /// For people.
    pub title: String,
    /// Limits that are others for all of it together, at most one each.
    pub overrides: Vec<Override>,
    /// Where it is said.
    pub place: Place,
}

/// A project of an organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectConfig {
    /// Unique name.
    pub name: Arc<str>,
    /// Its organisation.
    pub organisation: Arc<str>,
    /// For people.
    pub title: String,
    /// Limits that are others for all of it together, at most one each.
    pub overrides: Vec<Override>,
    /// Where it is said.
    pub place: Place,
}

/// A consumer of a project.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerConfig {
    /// Unique name.
    pub name: Arc<str>,
    /// Its project.
    pub project: Arc<str>,
    /// What rules may ask for.
    pub roles: Vec<Arc<str>>,
    /// Refused whatever it shows.
    pub suspended: bool,
    /// May ask for the explanation of a decision by header.
    pub explains: bool,
    /// (API, plan), at most one per API.
    pub subscriptions: Vec<(Arc<str>, Arc<str>)>,
    /// Tokens by which it is known: (`iss`, value of the client claim).
    pub logins: Vec<(Arc<str>, Arc<str>)>,
    /// SPIFFE IDs or certificate subjects by which it is known.
    pub certificates: Vec<Arc<str>>,
    /// Users of `basic`: (name, Argon2id hash in PHC form).
    pub users: Vec<(Arc<str>, Secret)>,
    /// Keys given by reference (`${NAME}`, `file:`); others are made by `tollgate keys create`.
    pub keys: Vec<KeyConfig>,
    /// Limits of plans and APIs that are others for it, at most one each.
    pub overrides: Vec<Override>,
    /// Where it is said.
    pub place: Place,
}

/// A key whose secret a file refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyConfig {
    /// Unique within the consumer; part of its public identifier.
    pub name: Arc<str>,
    /// The key itself.
    pub secret: Secret,
    /// Before then it is not valid.
    pub not_before: Option<Timestamp>,
    /// From then on it is not valid.
    pub expires: Option<Timestamp>,
    /// Operations it may call; `None`: all.
    pub operations: Option<Vec<Arc<str>>>,
    /// Networks it may be used from; empty: any.
    pub networks: Vec<Network>,
    /// Origins or `Referer` prefixes it may be used from; empty: any.
    pub referrers: Vec<Arc<str>>,
    /// Where it is said.
    pub place: Place,
}

/// A document consumers have to accept.
#[derive(Clone, Debug, PartialEq)]
pub struct TermsConfig {
    /// Unique name.
    pub name: Arc<str>,
    /// For people.
    pub title: String,
    /// Versions, lowest first, each with its Markdown text.
    pub versions: Vec<(TermsVersion, Arc<str>)>,
    /// APIs that require it of every subscriber, besides the plans that name it.
    pub apis: Vec<Arc<str>>,
    /// Counted and reported, not enforced.
    pub shadow: bool,
    /// Where it is said.
    pub place: Place,
}
