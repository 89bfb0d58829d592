//! YAML 1.2 text as a tree: one document, core schema, anchors and `<<` resolved within limits.
//!
//! Where the core schema and the readers that authors use differ, the authors' reading wins: `08` is text.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::node::number;
use super::{Entry, Limits, Map, Mistake, Node, Value, narrow};

/// Reads the one document of `text`; nothing at all is `null`.
pub(super) fn parse(text: &str, limits: &Limits) -> Result<Node, Mistake> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        limits: *limits,
        nodes: 0,
        aliased: 0,
    };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => {
                let (line, column) = position(span);
                if root.is_some() {
                    let what = "more than one YAML document in the file";
                    return Err(Mistake::at(line, column, SYNTAX, what));
                }
                root = Some(reader.node(event, span, 0)?.node);
            }
        }
    }
    Ok(root.unwrap_or(Node {
        line: 1,
        column: 1,
        value: Value::Null,
    }))
}

const SYNTAX: &str = "yaml-syntax";

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Measured>,
    limits: Limits,
    nodes: usize,
    aliased: usize,
}

/// A tree and its size, so that a copy can be refused before it is made.
#[derive(Clone)]
struct Measured {
    node: Node,
    /// Values in it, itself included.
    nodes: usize,
    /// Levels in it, itself included.
    levels: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Mistake> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(syntax(&error)),
            None => Err(Mistake::at(1, 1, SYNTAX, "not YAML: the text ends early")),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Measured, Mistake> {
        let (line, column) = position(span);
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(Mistake::too_many_nodes(line, column, &self.limits));
        }
        if depth > self.limits.depth {
            return Err(Mistake::too_deep(line, column, &self.limits));
        }
        let place = (line, column);
        let (anchor, (value, nodes, levels)) = match event {
            Event::Alias(anchor) => return self.alias(anchor, place, depth),
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, (scalar(text, style, tag.as_deref()), 1, 1))
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.map(depth)?),
            _ => {
                return Err(Mistake::at(
                    line,
                    column,
                    SYNTAX,
                    "not YAML: a value is missing",
                ));
            }
        };
        let measured = Measured {
            node: Node {
                line,
                column,
                value,
            },
            nodes,
            levels,
        };
        if anchor != 0 {
            self.charge(nodes, place)?;
            self.anchors.insert(anchor, measured.clone());
        }
        Ok(measured)
    }

    fn alias(
        &mut self,
        anchor: usize,
        place: (u32, u32),
        depth: usize,
    ) -> Result<Measured, Mistake> {
        let (line, column) = place;
        let Some(target) = self.anchors.get(&anchor) else {
            let what = "an alias refers to a value that it is part of";
            return Err(Mistake::at(line, column, SYNTAX, what));
        };
        if depth + target.levels > self.limits.depth + 1 {
            return Err(Mistake::too_deep(line, column, &self.limits));
        }
        let nodes = target.nodes;
        self.charge(nodes, place)?;
        self.anchors
            .get(&anchor)
            .cloned()
            .ok_or_else(|| Mistake::at(line, column, SYNTAX, "an alias without its anchor"))
    }

    /// Counts values that are copied, before the copy is made.
    fn charge(&mut self, nodes: usize, (line, column): (u32, u32)) -> Result<(), Mistake> {
        self.aliased += nodes;
        if self.aliased > self.limits.aliased_nodes {
            return Err(Mistake::too_many_aliased(line, column, &self.limits));
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<(Value, usize, usize), Mistake> {
        let (mut list, mut nodes, mut levels) = (Vec::new(), 1, 0);
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((Value::List(list), nodes, levels + 1));
            }
            let element = self.node(event, span, depth + 1)?;
            nodes += element.nodes;
            levels = levels.max(element.levels);
            list.push(element.node);
        }
    }

    fn map(&mut self, depth: usize) -> Result<(Value, usize, usize), Mistake> {
        let (mut map, mut nodes, mut levels) = (Map::default(), 1, 0);
        let mut merged = None;
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let (line, column) = position(span);
            let merge = is_merge(&event);
            let key = self.key(event, line, column)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            nodes += value.nodes;
            levels = levels.max(value.levels);
            if merge {
                if merged.replace((value.node, line, column)).is_some() {
                    return Err(Mistake::at(
                        line,
                        column,
                        "duplicate-key",
                        "key `<<` stands twice",
                    ));
                }
                continue;
            }
            let entry = Entry {
                key,
                line,
                column,
                node: value.node,
            };
            let key = entry.key.clone();
            map.push(entry)
                .map_err(|first| Mistake::duplicate(line, column, &key, first))?;
        }
        if let Some((node, line, column)) = merged {
            merge_into(&mut map, node)
                .map_err(|()| Mistake::at(line, column, SYNTAX, "`<<` merges mappings only"))?;
        }
        Ok((Value::Map(map), nodes, levels + 1))
    }

    /// A key as text: as it is written, so that `200` and `"200"` are the same.
    fn key(&mut self, event: Event<'t>, line: u32, column: u32) -> Result<Box<str>, Mistake> {
        let text = match event {
            Event::Scalar(text, _, anchor, _) => {
                let key: Box<str> = text.as_ref().into();
                if anchor != 0 {
                    let node = Node {
                        line,
                        column,
                        value: Value::String(key.clone()),
                    };
                    self.charge(1, (line, column))?;
                    self.anchors.insert(
                        anchor,
                        Measured {
                            node,
                            nodes: 1,
                            levels: 1,
                        },
                    );
                }
                Some(key)
            }
            Event::Alias(anchor) => self
                .anchors
                .get(&anchor)
                .and_then(|target| target.node.as_str())
                .map(Into::into),
            _ => None,
        };
        text.ok_or_else(|| Mistake::at(line, column, SYNTAX, "a key that is not plain text"))
    }
}

/// `<<` as YAML 1.1 defined it: unquoted, and no text by tag.
fn is_merge(event: &Event<'_>) -> bool {
    matches!(event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<")
}

/// Adds what `map` does not say itself; of several mappings the earlier one wins.
fn merge_into(map: &mut Map, node: Node) -> Result<(), ()> {
    match node.value {
        Value::Map(other) => {
            for entry in other.into_entries() {
                // A key that is there already was said closer by and stays.
                let _ = map.push(entry);
            }
            Ok(())
        }
        Value::List(list) => {
            if list.iter().any(|node| node.as_map().is_none()) {
                return Err(());
            }
            list.into_iter().try_for_each(|node| merge_into(map, node))
        }
        _ => Err(()),
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let core = tag.and_then(Tag::core_suffix);
    let plain = match (core, style) {
        (Some("str"), _) => false,
        (Some("int" | "float" | "bool" | "null"), _) => true,
        // `!` alone means "text as it stands".
        _ => style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.original() != "!"),
    };
    let resolved = if plain { resolve(&text) } else { None };
    resolved.unwrap_or_else(|| Value::String(text.into_owned().into()))
}

/// The core schema (YAML 1.2.2, section 10.3.2); `None` is text.
fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    is_decimal(text)
        .then(|| number(text).map(Value::Number))
        .flatten()
}

fn radix(digits: &str, base: u32) -> Option<Value> {
    if !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    u64::from_str_radix(digits, base)
        .ok()
        .map(|whole| Value::Number(whole.into()))
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, but for bare digits with a leading zero: those
/// are post codes and merchant categories, which their authors' tools read as text.
fn is_decimal(text: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits(unsigned) {
        return !unsigned.is_empty() && (unsigned.len() == 1 || !unsigned.starts_with('0'));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let power = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !power.is_empty() && digits(power)
    });
    !(whole.is_empty() && fraction.is_empty()) && digits(whole) && digits(fraction) && exponent_fits
}

fn position(span: Span) -> (u32, u32) {
    (narrow(span.start.line()), narrow(span.start.col() + 1))
}

fn syntax(error: &ScanError) -> Mistake {
    let marker = error.marker();
    let what = format!("not YAML: {}", error.info());
    Mistake::at(
        narrow(marker.line()).max(1),
        narrow(marker.col() + 1),
        SYNTAX,
        what,
    )
}
