//! Conditions in CEL: compiled when an API is loaded, evaluated with only those facts they name.
//!
//! Anything but a plain true or false is [`Undecided`], and so is a panic of the evaluator: a rule that cannot be judged never
//! opens anything. Not here: what an expression may cost (`cost`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use ::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use ::cel::common::types::CelString;
use ::cel::common::value::CowVal;
use ::cel::{Context, Env, ExecutionError, FunctionContext, Program, Value};
use regex::Regex;

use super::cost::{self, LONGEST_LIST, Needs};
use super::rule::Facts;

/// Bytes of stack for the parser: twice what the deepest text it is given takes without optimisation.
const PARSER_STACK: usize = 8 << 20;
/// Bytes of one value of a request.
const LONGEST_TEXT: usize = 8192;
/// Levels of a claim.
const DEEPEST_CLAIM: usize = 8;

/// Standard functions and macros, without the optional syntax and without `matches`, which is ours.
static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// A compiled condition.
pub(super) struct Condition {
    text: Arc<str>,
    /// `None`: it could not be compiled, and is never decided.
    compiled: Option<(Program, Arc<Needs>)>,
}

/// A condition that is neither true nor false, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undecided(Cow<'static, str>);

impl Condition {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn compile(text: &Arc<str>) -> Result<Self, String> {
        cost::measure(text)?;
        let parse = || {
            let program = ENVIRONMENT
                .compile(text)
                .map_err(|errors| first_line(&errors.to_string()))?;
            let needs = cost::inspect(program.expression())?;
            Ok((program, Arc::new(needs)))
        };
        // On a stack of its own: the parser needs more than a thread that reloads may have, and a panic of it ends here.
        let parsed = std::thread::scope(|scope| {
            let parser = std::thread::Builder::new().stack_size(PARSER_STACK);
            parser
                .spawn_scoped(scope, parse)
                .ok()
                .and_then(|parser| parser.join().ok())
        });
        let compiled = parsed.unwrap_or_else(|| Err("it cannot be compiled".to_owned()))?;
        Ok(Self {
            text: text.clone(),
            compiled: Some(compiled),
        })
    }

    /// In place of one that does not compile: never decided.
    pub(super) fn broken(text: &Arc<str>) -> Self {
        Self {
            text: text.clone(),
            compiled: None,
        }
    }

    /// The expression as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds for a call.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> Result<bool, Undecided> {
        let Some((program, needs)) = &self.compiled else {
            return Err(Undecided("it was refused when it was loaded".into()));
        };
        let evaluation = || {
            let mut context = Context::with_env(ENVIRONMENT.clone());
            fill(&mut context, needs, facts)?;
            add_matches(&mut context, needs)?;
            match program.execute(&context) {
                Ok(Value::Bool(answer)) => Ok(answer),
                Ok(other) => Err(Undecided(
                    format!("its value is a {}, not a bool", other.type_of()).into(),
                )),
                Err(error) => Err(Undecided(first_line(&error.to_string()).into())),
            }
        };
        // The evaluator is pure; nothing of ours can be left half done by a panic inside.
        let contained = catch_unwind(AssertUnwindSafe(evaluation));
        contained.unwrap_or(Err(Undecided("the evaluator failed".into())))
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.text)
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}

/// Finds the member of a variable; `None`: it has none of this name.
type Look<'l> = &'l dyn Fn(&str) -> Result<Option<Value>, Undecided>;

/// Sets the variables an expression names.
fn fill(context: &mut Context<'_, '_>, needs: &Needs, facts: &Facts<'_>) -> Result<(), Undecided> {
    let values = facts.circumstances.values;
    let groups: [(&str, &BTreeSet<String>, Look<'_>); 5] = [
        ("request", &needs.request, &|name| {
            request(name, facts).map(Some)
        }),
        ("caller", &needs.caller, &|name| {
            caller(name, facts).map(Some)
        }),
        ("path", &needs.path, &|name| {
            values.path(name).map(short).transpose()
        }),
        ("query", &needs.query, &|name| {
            values.query(name).map(short).transpose()
        }),
        ("header", &needs.header, &|name| {
            values.header(name).map(short).transpose()
        }),
    ];
    for (variable, names, value) in groups {
        let mut members = HashMap::new();
        for name in names {
            if let Some(value) = value(name)? {
                members.insert(name.clone(), value);
            }
        }
        if !names.is_empty() {
            context.add_variable_from_value(variable, members);
        }
    }
    if needs.all_claims || !needs.claims.is_empty() {
        context.add_variable_from_value("claims", claims(needs, facts)?);
    }
    if needs.now {
        let now = moment(&facts.circumstances.now.to_string())?;
        context.add_variable_from_value("now", now);
    }
    Ok(())
}

/// Declares `matches`, which looks its pattern up among those that were compiled with the expression.
fn add_matches(context: &mut Context<'_, '_>, needs: &Arc<Needs>) -> Result<(), Undecided> {
    if needs.patterns.is_empty() {
        return Ok(());
    }
    let needs = needs.clone();
    let matches = move |call: &FunctionContext<'_, '_>| matches(&needs.patterns, call);
    let added = context.add_function("matches", matches);
    added.map_err(|_| Undecided("the evaluator has a `matches` of its own".into()))
}

/// `text.matches(pattern)` and `matches(text, pattern)`.
fn matches(
    patterns: &BTreeMap<String, Regex>,
    call: &FunctionContext<'_, '_>,
) -> Result<bool, ExecutionError> {
    let mut words = call.this.iter().chain(&call.args).map(word);
    match (words.next(), words.next(), words.next()) {
        (Some(Some(text)), Some(Some(pattern)), None) => match patterns.get(pattern) {
            Some(pattern) => Ok(pattern.is_match(text)),
            None => Err(call.error("the pattern is not known")),
        },
        _ => Err(call.error("it takes a text and a pattern")),
    }
}

fn word<'w>(value: &'w CowVal<'_, '_>) -> Option<&'w str> {
    value
        .as_ref()
        .downcast_ref::<CelString<'_>>()
        .map(|text| text.inner())
}

fn request(name: &str, facts: &Facts<'_>) -> Result<Value, Undecided> {
    let seen = facts.circumstances;
    let client = || {
        seen.client
            .map_or_else(String::new, |client| client.to_canonical().to_string())
    };
    short(match name {
        "method" => seen.method.into(),
        "host" => seen.host.into(),
        "path" => seen.path.into(),
        "operation" => facts.operation.into(),
        _ => client().into(),
    })
}

/// A fact about the caller; empty where there is none.
fn caller(name: &str, facts: &Facts<'_>) -> Result<Value, Undecided> {
    let consumer = facts.consumer();
    let text = |text: Option<&Arc<str>>| short(text.map_or("", |text| text).into());
    match name {
        "consumer" => text(consumer.map(|of| &of.name)),
        "project" => text(consumer.map(|of| &of.project)),
        "organisation" => text(consumer.map(|of| &of.organisation)),
        "plan" => text(facts.plan.map(|plan| &plan.name)),
        "roles" => list(facts.roles()),
        "scopes" => list(facts.scopes().iter()),
        _ => text(
            facts
                .identity
                .caller
                .as_ref()
                .map(|caller| &caller.credential.id),
        ),
    }
}

fn list<'l>(texts: impl Iterator<Item = &'l Arc<str>>) -> Result<Value, Undecided> {
    let list: Vec<Value> = texts
        .map(|text| short((&**text).into()))
        .collect::<Result<_, _>>()?;
    if list.len() > LONGEST_LIST {
        return Err(Undecided("a list is too long".into()));
    }
    Ok(list.into())
}

fn short(text: Cow<'_, str>) -> Result<Value, Undecided> {
    if text.len() > LONGEST_TEXT {
        return Err(Undecided("a value is too long".into()));
    }
    Ok(text.into_owned().into())
}

fn claims(needs: &Needs, facts: &Facts<'_>) -> Result<HashMap<String, Value>, Undecided> {
    let Some(claims) = &facts.identity.claims else {
        return Ok(HashMap::new());
    };
    if needs.all_claims && claims.all.len() > LONGEST_LIST {
        return Err(Undecided("the token has too many claims".into()));
    }
    let wanted = claims.all.iter();
    let wanted = wanted.filter(|(name, _)| needs.all_claims || needs.claims.contains(*name));
    wanted
        .map(|(name, value)| Ok((name.clone(), claim(value, 0)?)))
        .collect()
}

fn claim(value: &serde_json::Value, depth: usize) -> Result<Value, Undecided> {
    if depth > DEEPEST_CLAIM {
        return Err(Undecided("a claim is nested too deep".into()));
    }
    let long = |length: usize| match length > LONGEST_LIST {
        true => Err(Undecided("a claim has too many members".into())),
        false => Ok(()),
    };
    match value {
        serde_json::Value::Null => Ok(Value::Null),
        serde_json::Value::Bool(value) => Ok(Value::Bool(*value)),
        serde_json::Value::String(text) => short(text.into()),
        serde_json::Value::Number(number) => {
            let whole = number
                .as_i64()
                .map(Value::Int)
                .or_else(|| number.as_u64().map(Value::UInt));
            Ok(whole.unwrap_or_else(|| number.as_f64().map_or(Value::Null, Value::Float)))
        }
        serde_json::Value::Array(members) => {
            long(members.len())?;
            let members: Vec<Value> = members
                .iter()
                .map(|member| claim(member, depth + 1))
                .collect::<Result<_, _>>()?;
            Ok(members.into())
        }
        serde_json::Value::Object(members) => {
            long(members.len())?;
            let members: HashMap<String, Value> = members
                .iter()
                .map(|(name, member)| Ok((name.clone(), claim(member, depth + 1)?)))
                .collect::<Result<_, Undecided>>()?;
            Ok(members.into())
        }
    }
}

/// A timestamp, made by the evaluator's own function from RFC 3339.
fn moment(text: &str) -> Result<Value, Undecided> {
    let argument = Expr::Literal(LiteralValue::String(text.to_owned().into()));
    let call = Expr::Call(CallExpr {
        func_name: "timestamp".to_owned(),
        target: None,
        args: vec![IdedExpr {
            id: 2,
            expr: argument,
        }],
    });
    let context = Context::with_env(ENVIRONMENT.clone());
    Value::resolve(&IdedExpr { id: 1, expr: call }, &context)
        .map_err(|_| Undecided("the time cannot be expressed".into()))
}
