//! What a condition may say, and what it may cost: found out once, before it is ever evaluated.
//!
//! The evaluator has no budget of its own, so everything that could grow is bounded here: nodes, nesting, lists within lists,
//! patterns. Only known variables and functions pass, which also tells what of a request has to be looked up. Not here:
//! evaluation (`cel`).

use std::collections::{BTreeMap, BTreeSet};

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use regex::{Regex, RegexBuilder};

use crate::settings::nearest;

/// Members of a list that a request brings; a longer one cannot be judged.
pub(super) const LONGEST_LIST: usize = 256;
/// Nodes of an expression with its macros expanded. A rule beyond that is a program.
const MOST_NODES: usize = 400;
/// Nodes within nodes: evaluation is recursive, and takes some 30 KiB of stack a level without optimisation.
const DEEPEST: usize = 24;
/// Nodes visited at worst; some tenths of a microsecond each, so about a millisecond.
const HIGHEST_COST: u64 = 10_000;
/// Bytes of an expression.
pub(crate) const LONGEST_EXPRESSION: usize = 2048;
/// Openings of brackets, and question marks, each: the parser is recursive in both and takes up to 50 KiB of stack a level.
/// Those in quotes count as well, because only the parser knows for certain what is quoted.
const MOST_OPENINGS: usize = 48;
/// Bytes of a pattern.
const LONGEST_PATTERN: usize = 256;
/// Bytes a pattern may compile to: some 10 ms when a file is loaded. A class of Unicode such as `\w` takes 35 KiB, counted as
/// often as its `{n}` says.
const LARGEST_PATTERN: usize = 1 << 20;
/// What a match counts: 14 µs for the longest text, whatever the pattern, and 30 ns for a usual path.
const MATCH_COST: u64 = 30;

const ROOTS: [&str; 7] = [
    "request", "path", "query", "header", "caller", "claims", "now",
];
const REQUEST: [&str; 5] = ["method", "host", "path", "operation", "client"];
const CALLER: [&str; 7] = [
    "consumer",
    "project",
    "organisation",
    "plan",
    "roles",
    "scopes",
    "credential",
];
const FUNCTIONS: [&str; 20] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "timestamp",
    "duration",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
];
const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// What of a call an expression looks at, and the patterns it holds that against.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) request: BTreeSet<String>,
    pub(super) path: BTreeSet<String>,
    pub(super) query: BTreeSet<String>,
    pub(super) header: BTreeSet<String>,
    pub(super) caller: BTreeSet<String>,
    pub(super) claims: BTreeSet<String>,
    /// Claims are looked at other than by a name that stands in the expression.
    pub(super) all_claims: bool,
    pub(super) now: bool,
    /// What `matches` is asked for, compiled, by how it is written.
    pub(super) patterns: BTreeMap<String, Regex>,
}

/// Whether a text may be handed to the parser, whose stack it could otherwise exhaust.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn measure(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_EXPRESSION {
        return Err(format!("it is longer than {LONGEST_EXPRESSION} bytes"));
    }
    for (what, openings) in [("brackets", &b"([{"[..]), ("question marks", b"?")] {
        let count = text.bytes().filter(|byte| openings.contains(byte)).count();
        if count > MOST_OPENINGS {
            return Err(format!("it has more than {MOST_OPENINGS} {what}"));
        }
    }
    Ok(())
}

/// What an expression needs, if it keeps within the bounds.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn inspect(expression: &IdedExpr) -> Result<Needs, String> {
    let mut inspection = Inspection {
        needs: Needs::default(),
        nodes: 0,
        depth: 0,
        bound: Vec::new(),
        bodies: 0,
    };
    let cost = inspection.cost(expression)?;
    if cost > HIGHEST_COST {
        return Err(format!(
            "it may visit {cost} nodes, more than {HIGHEST_COST}: lists are walked within lists, or several patterns are held against each member"
        ));
    }
    Ok(inspection.needs)
}

struct Inspection {
    needs: Needs,
    nodes: usize,
    depth: usize,
    /// Variables of the macros around.
    bound: Vec<String>,
    /// Macro bodies around.
    bodies: usize,
}

impl Inspection {
    fn cost(&mut self, expression: &IdedExpr) -> Result<u64, String> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(format!("it has more than {MOST_NODES} nodes"));
        }
        if self.depth >= DEEPEST {
            return Err(format!("it is nested more than {DEEPEST} deep"));
        }
        self.depth += 1;
        let cost = self.node(&expression.expr);
        self.depth -= 1;
        cost
    }

    fn node(&mut self, expression: &Expr) -> Result<u64, String> {
        match expression {
            Expr::Literal(_) => Ok(1),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => match self.root(&select.operand) {
                Some(root) => self.member(&root, &select.field),
                None => self
                    .cost(&select.operand)
                    .map(|cost| cost.saturating_add(1)),
            },
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(walk) => self.walk(walk),
            Expr::List(list) => self.sum(list.elements.iter()),
            Expr::Map(map) => {
                let mut sum = 1_u64;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("it makes an object".to_owned());
                    };
                    sum = sum.saturating_add(self.cost(&entry.key)?);
                    sum = sum.saturating_add(self.cost(&entry.value)?);
                }
                Ok(sum)
            }
            Expr::Struct(_) | Expr::Unspecified => Err("it makes an object".to_owned()),
        }
    }

    fn sum<'e>(&mut self, parts: impl Iterator<Item = &'e IdedExpr>) -> Result<u64, String> {
        let mut sum = 1_u64;
        for part in parts {
            sum = sum.saturating_add(self.cost(part)?);
        }
        Ok(sum)
    }

    /// The variable of ours that an expression is, unless a macro has one of the same name.
    fn root(&self, expression: &IdedExpr) -> Option<String> {
        match &expression.expr {
            Expr::Ident(name) if !self.bound.contains(name) && ROOTS.contains(&name.as_str()) => {
                Some(name.clone())
            }
            _ => None,
        }
    }

    /// A variable that stands alone.
    fn variable(&mut self, name: &str) -> Result<u64, String> {
        match name {
            _ if self.bound.iter().any(|bound| bound == name) => Ok(1),
            "now" => {
                self.needs.now = true;
                Ok(1)
            }
            "claims" => {
                self.needs.all_claims = true;
                Ok(1)
            }
            "request" | "path" | "query" | "header" | "caller" => Err(format!(
                "`{name}` is used as a whole; name the member that is meant, as in `{name}.x` or `{name}['x']`"
            )),
            _ => Err(unknown("variable", name, &ROOTS)),
        }
    }

    /// `root.name`, `root['name']`, `'name' in root` or `has(root.name)`.
    fn member(&mut self, root: &str, name: &str) -> Result<u64, String> {
        let known = |members: &[&str]| match members.contains(&name) {
            true => Ok(()),
            false => Err(unknown(&format!("member of `{root}`"), name, members)),
        };
        let names = match root {
            "request" => known(&REQUEST).map(|()| &mut self.needs.request)?,
            "caller" => known(&CALLER).map(|()| &mut self.needs.caller)?,
            "path" => &mut self.needs.path,
            "query" => &mut self.needs.query,
            "header" => &mut self.needs.header,
            "claims" => &mut self.needs.claims,
            _ => return Err(format!("`{root}` has no members")),
        };
        names.insert(name.to_owned());
        Ok(2)
    }

    fn call(&mut self, call: &CallExpr) -> Result<u64, String> {
        let name = call.func_name.as_str();
        let inside = self.bodies > 0 && name == operators::NOT_STRICTLY_FALSE;
        if !inside && !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
            return Err(unknown("function", name, &FUNCTIONS));
        }
        let parts = || call.target.as_deref().into_iter().chain(&call.args);
        let ends = (parts().next(), parts().nth(1));
        if let (Some(first), Some(second)) = ends {
            let looked_up = match name {
                operators::INDEX => self.root(first).zip(text(second)),
                operators::IN => self.root(second).zip(text(first)),
                _ => None,
            };
            if let Some((root, member)) = looked_up {
                return self.member(&root, member);
            }
        }
        let own = match name {
            "matches" => self.pattern(parts().nth(1).and_then(text))?,
            operators::ADD if self.bodies > 0 && !parts().next().is_some_and(is_result) => {
                return Err(
                    "`+` stands in the body of a list macro, where values could grow".to_owned(),
                );
            }
            _ => 1,
        };
        self.sum(parts()).map(|cost| cost.saturating_add(own))
    }

    /// Only a pattern that stands in the expression can be compiled before it is asked for.
    fn pattern(&mut self, pattern: Option<&str>) -> Result<u64, String> {
        let Some(pattern) = pattern else {
            return Err("`matches` needs a pattern that stands in the expression".to_owned());
        };
        if !self.needs.patterns.contains_key(pattern) {
            let compiled = compiled(pattern)?;
            self.needs.patterns.insert(pattern.to_owned(), compiled);
        }
        Ok(MATCH_COST)
    }

    fn walk(&mut self, walk: &ComprehensionExpr) -> Result<u64, String> {
        let longest = longest(&walk.iter_range);
        let mut cost = self
            .cost(&walk.iter_range)?
            .saturating_add(self.cost(&walk.accu_init)?);
        let outer = self.bound.len();
        self.bound.push(walk.iter_var.clone());
        self.bound.extend(walk.iter_var2.clone());
        self.bound.push(walk.accu_var.clone());
        self.bodies += 1;
        let body = self
            .cost(&walk.loop_cond)?
            .saturating_add(self.cost(&walk.loop_step)?);
        self.bodies -= 1;
        cost = cost.saturating_add(body.saturating_mul(longest));
        cost = cost.saturating_add(self.cost(&walk.result)?);
        self.bound.truncate(outer);
        Ok(cost)
    }
}

/// The list a macro builds; its name cannot be written by hand.
fn is_result(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name.starts_with('@'))
}

fn text(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Members of a list at most. `+` adds lists up, and is the only way to a longer one than a request brings.
fn longest(list: &IdedExpr) -> u64 {
    match &list.expr {
        Expr::List(list) => u64::try_from(list.elements.len()).unwrap_or(u64::MAX),
        Expr::Map(map) => u64::try_from(map.entries.len()).unwrap_or(u64::MAX),
        Expr::Comprehension(walk) => longest(&walk.iter_range),
        Expr::Call(call)
            if matches!(
                call.func_name.as_str(),
                operators::ADD | operators::CONDITIONAL
            ) =>
        {
            call.args
                .iter()
                .fold(0, |sum: u64, part| sum.saturating_add(longest(part)))
        }
        _ => u64::try_from(LONGEST_LIST).unwrap_or(u64::MAX),
    }
}

/// Compiles a pattern. The matcher takes time that grows with pattern and text alone, never with their product's powers.
///
/// # Errors
/// What is wrong with it, in words.
fn compiled(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!(
            "the pattern of `matches` is longer than {LONGEST_PATTERN} bytes"
        ));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(LARGEST_PATTERN);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!(
                "the pattern `{pattern}` takes more than {LARGEST_PATTERN} bytes compiled; `\\w` and `\\d` \
                 stand for all of Unicode, `[0-9]` does not"
            )
        }
        other => {
            // The message is a drawing of several lines; the last says it in words.
            let told = other.to_string();
            let why = told.lines().next_back().unwrap_or_default();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            format!("the pattern `{pattern}` cannot be read: {why}")
        }
    })
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no {kind} `{name}`; did you mean `{near}`?"),
        None => format!(
            "there is no {kind} `{name}`; there are {}",
            known.join(", ")
        ),
    }
}
