//! From an API file and its OpenAPI file to [`ApiAccess`], with what is wrong in them.
//!
//! Mistakes that could let somebody through, such as a rule about an operation that does not exist, are errors: the file is not
//! served until they are repaired. Not here: what single values mean, which the settings have checked.

mod rules;
mod schemes;

use std::sync::Arc;

use self::rules::Rules;
use super::{ApiAccess, Demand, NamedIssuer, OperationAccess, OwnRules, RuleRef, Scheme};
use crate::finding::{Finding, Place, Severity};
use crate::openapi::{Description, Operation, SchemeIssuer};
use crate::settings::{ApiConfig, nearest};

pub(super) fn compile(config: &ApiConfig, description: &Description) -> (ApiAccess, Vec<Finding>) {
    let mut compiler = Compiler {
        config,
        file: Place::file(config.file.display().to_string()),
        issuers: Vec::new(),
        schemes: Vec::new(),
        origins: Vec::new(),
        rules: Rules::default(),
        findings: Vec::new(),
    };
    let names: Vec<_> = description.operations.iter().map(names).collect();
    compiler.issuers();
    compiler.rules(&names);
    let operations = description.operations.iter().zip(names);
    let operations = operations
        .map(|(described, names)| compiler.operation(described, names))
        .collect();
    compiler.unused_schemes(description);
    let own = |kind, name: &str, place: &Place| {
        Arc::new(RuleRef {
            kind,
            name: name.into(),
            place: Some(place.clone()),
        })
    };
    let network = config.networks.place.as_ref().unwrap_or(&compiler.file);
    let access = ApiAccess {
        own: OwnRules {
            security: own("security", &config.name, &compiler.file),
            subscription: own("subscription", &config.name, &compiler.file),
            network: own("network", "networks", network),
            itself: OperationAccess {
                demand: Demand::Alternatives {
                    combinations: Vec::new(),
                    anonymous: false,
                },
                needs_cel: false,
                names: [Arc::from(".tollgate")].into(),
                denials: Vec::new(),
                allowances: Vec::new(),
            },
        },
        schemes: compiler.schemes,
        issuers: compiler.issuers,
        operations,
        authoriser: config.authoriser.as_ref().is_some_and(|it| !it.shadow),
        subscription: config.auth.subscription,
        rules: compiler.rules.all,
        networks: config.networks.clone(),
    };
    (access, compiler.findings)
}

/// What rules, plans and credentials may call an operation; the label-safe name first.
fn names(operation: &Operation) -> Box<[Arc<str>]> {
    let others = operation.names().into_iter();
    let others = others.filter(|name| *name != operation.name);
    std::iter::once(operation.name.clone())
        .chain(others)
        .collect()
}

struct Compiler<'c> {
    config: &'c ApiConfig,
    /// The API file as a whole, for what has no place of its own.
    file: Place,
    /// Those of the API file first, then those that schemes name themselves.
    issuers: Vec<Arc<NamedIssuer>>,
    schemes: Vec<Scheme>,
    /// For each scheme, who its definition says issues its tokens.
    origins: Vec<Option<Arc<SchemeIssuer>>>,
    rules: Rules,
    findings: Vec<Finding>,
}

impl Compiler<'_> {
    fn operation(&mut self, described: &Operation, names: Box<[Arc<str>]>) -> OperationAccess {
        let settings = self.config.settings_for(described);
        let mut access = OperationAccess {
            demand: self.demand(described, settings.security_off),
            needs_cel: false,
            names,
            denials: Vec::new(),
            allowances: Vec::new(),
        };
        self.judge(&mut access, settings.acl.unwrap_or_default());
        access
    }

    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: &Place,
        what: String,
        remedy: &str,
    ) {
        let (place, remedy) = (place.clone(), remedy.to_owned());
        self.findings.push(Finding {
            severity,
            code,
            place,
            what,
            remedy,
        });
    }
}

fn did_you_mean<'c>(
    wrong: &str,
    known: impl IntoIterator<Item = &'c str>,
    otherwise: &str,
) -> String {
    match nearest(wrong, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise.to_owned(),
    }
}
