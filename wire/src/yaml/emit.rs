//! From a document to text.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::resolve::{Resolved, go_float, resolve};

/// Lines are folded at the first space behind this column.
const WIDTH: usize = 80;
/// The longest key that stands on one line with its value, in bytes.
const SIMPLE_KEY: usize = 128;

/// Writes a document as `kubectl -o yaml` and Kubernetes' API server do.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut writer = Writer::default();
    match value {
        Value::Object(map) if !map.is_empty() => writer.mapping(map, 0),
        Value::Array(items) if !items.is_empty() => writer.sequence(items, 0),
        other => {
            writer.leaf(other, 2, false);
            writer.line_break();
        }
    }
    writer.out
}

#[derive(Default)]
struct Writer {
    out: String,
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn line_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn indent(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column += indent;
    }

    /// A mapping that begins where the writer stands; its further lines are indented.
    fn mapping(&mut self, map: &Map<String, Value>, indent: usize) {
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort_by(|a, b| natural_order(a, b));
        for (number, key) in keys.into_iter().enumerate() {
            if number > 0 {
                self.indent(indent);
            }
            let simple = key.len() <= SIMPLE_KEY && !key.chars().any(is_break);
            if simple {
                self.string(key, indent + 2, true);
                self.put(":");
            } else {
                self.put("? ");
                self.string(key, indent + 2, false);
                self.line_break();
                self.indent(indent);
                self.put(":");
            }
            match &map[key] {
                Value::Object(inner) if !inner.is_empty() => {
                    if simple {
                        self.line_break();
                        self.indent(indent + 2);
                    } else {
                        self.put(" ");
                    }
                    self.mapping(inner, indent + 2);
                }
                Value::Array(inner) if !inner.is_empty() => {
                    if simple {
                        // A sequence is not indented under its key.
                        self.line_break();
                        self.indent(indent);
                        self.sequence(inner, indent);
                    } else {
                        self.put(" ");
                        self.sequence(inner, indent + 2);
                    }
                }
                leaf => {
                    self.put(" ");
                    self.leaf(leaf, indent + 2, false);
                    self.line_break();
                }
            }
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize) {
        for (number, item) in items.iter().enumerate() {
            if number > 0 {
                self.indent(indent);
            }
            self.put("- ");
            match item {
                Value::Object(inner) if !inner.is_empty() => self.mapping(inner, indent + 2),
                Value::Array(inner) if !inner.is_empty() => self.sequence(inner, indent + 2),
                leaf => {
                    self.leaf(leaf, indent + 2, false);
                    self.line_break();
                }
            }
        }
    }

    /// What has nothing in it.
    fn leaf(&mut self, value: &Value, indent: usize, key: bool) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(true) => self.put("true"),
            Value::Bool(false) => self.put("false"),
            Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => self.put(&go_float(&format!("{float:e}"))),
                _ => self.put(&number.to_string()),
            },
            Value::String(text) => self.string(text, indent, key),
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
        }
    }

    /// A string in the plainest style that reads back as the same. The further lines of one that has several are indented.
    fn string(&mut self, text: &str, indent: usize, key: bool) {
        let form = Form::of(text);
        if text.contains('\n') {
            if form.block && !key {
                self.literal(text, indent)
            } else {
                self.double_quoted(text, indent, key)
            }
        } else if resolve(text) != Resolved::Text || is_base_60(text) {
            self.double_quoted(text, indent, key);
        } else if form.plain && !text.is_empty() {
            self.folded(text, "", indent, key);
        } else if form.single {
            self.folded(text, "'", indent, key);
        } else {
            self.double_quoted(text, indent, key);
        }
    }

    /// Plain or in single quotes: a long one goes on in the next line at a lone space.
    fn folded(&mut self, text: &str, quote: &str, indent: usize, key: bool) {
        self.put(quote);
        let mut after_space = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            let inside = quote.is_empty() || (at > 0 && next.is_some());
            if c == ' '
                && !key
                && !after_space
                && inside
                && self.column > WIDTH
                && next != Some(' ')
            {
                self.line_break();
                self.indent(indent);
            } else if c == '\'' && !quote.is_empty() {
                self.put("''");
            } else {
                self.out.push(c);
                self.column += 1;
            }
            after_space = c == ' ';
        }
        self.put(quote);
    }

    fn double_quoted(&mut self, text: &str, indent: usize, key: bool) {
        self.put("\"");
        let mut after_space = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            if c == ' ' && !key && !after_space && at > 0 && next.is_some() && self.column > WIDTH {
                self.line_break();
                self.indent(indent);
                if next == Some(' ') {
                    self.put("\\");
                }
            } else if is_printable(c) && !is_break(c) && c != '"' && c != '\\' {
                self.out.push(c);
                self.column += 1;
            } else {
                let escaped = escape(c);
                self.put(&escaped);
            }
            after_space = c == ' ';
        }
        self.put("\"");
    }

    /// A block as it is, behind `|`.
    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with(is_blank_or_break) {
            self.put("2");
        }
        let body = match text.strip_suffix('\n') {
            None => {
                self.put("-");
                text
            }
            Some(body) => {
                if body.is_empty() || body.ends_with('\n') {
                    self.put("+");
                }
                body
            }
        };
        for line in body.split('\n') {
            self.line_break();
            if !line.is_empty() {
                self.indent(indent);
                self.put(line);
            }
        }
    }
}

/// In which styles a string may be written.
struct Form {
    plain: bool,
    single: bool,
    block: bool,
}

impl Form {
    fn of(text: &str) -> Self {
        let (mut indicator, mut space_before_break, mut space_after_break) = (false, false, false);
        let (mut special, mut breaks) = (false, false);
        if text.starts_with("---") || text.starts_with("...") {
            indicator = true;
        }
        let mut before = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let ends_word = chars.peek().is_none_or(|next| is_blank_or_break(*next));
            indicator |= match c {
                ':' => ends_word,
                '#' => before.is_none_or(is_blank_or_break),
                '?' | '-' => before.is_none() && ends_word,
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
                | '@' | '`' => before.is_none(),
                _ => false,
            };
            special |= !is_printable(c);
            breaks |= is_break(c);
            space_after_break |= c == ' ' && before.is_some_and(is_break);
            space_before_break |= is_break(c) && before == Some(' ');
            before = Some(c);
        }
        let edge = text.starts_with(is_space_or_break) || text.ends_with(is_space_or_break);
        let odd = space_before_break || special;
        Self {
            plain: !(indicator || edge || space_after_break || odd || breaks),
            single: !(space_after_break || odd),
            block: !(text.ends_with(' ') || odd || text.is_empty()),
        }
    }
}

fn is_space_or_break(c: char) -> bool {
    c == ' ' || is_break(c)
}

fn is_blank_or_break(c: char) -> bool {
    c == '\t' || is_space_or_break(c)
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What may stand unescaped. As in Go's library, nothing beyond the basic plane, and no tab.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let mut text = String::new();
            let code = u32::from(c);
            // Writing to a string does not fail.
            let _ = match code {
                ..=0xff => write!(text, "\\x{code:02X}"),
                0x100..=0xffff => write!(text, "\\u{code:04X}"),
                _ => write!(text, "\\U{code:08X}"),
            };
            return text;
        }
    };
    format!("\\{short}")
}

/// Written like a number of YAML 1.1 in base 60, `12:30`, which old readers would take it for.
fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (text, ""),
    };
    let mut groups = whole.split(':');
    let first = groups.next().unwrap_or_default();
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let mut more = groups.peekable();
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && digits(fraction)
        && more.peek().is_some()
        && more.all(|group| matches!(group.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']))
}

/// The order of keys: letters by their codes and after everything else, numbers by their value (`a2` before `a10`).
fn natural_order(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) else {
        return a.len().cmp(&b.len());
    };
    let (x, y) = (a[at], b[at]);
    let in_number = at > 0 && a[at - 1].is_ascii_digit();
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        // A letter ends a number, so the one with the letter is the smaller number; elsewhere letters come last.
        (true, false) => {
            return if in_number {
                Ordering::Less
            } else {
                Ordering::Greater
            };
        }
        (false, true) => {
            return if in_number {
                Ordering::Greater
            } else {
                Ordering::Less
            };
        }
        (false, false) => {}
    }
    let digits = |text: &[char]| text[at..].iter().take_while(|c| c.is_ascii_digit()).count();
    let (m, n) = (digits(&a), digits(&b));
    // Zeros in front of a number count for nothing, but zeros inside of it do.
    let inside = a[..at]
        .iter()
        .rev()
        .take_while(|c| c.is_ascii_digit())
        .any(|c| *c != '0');
    let strip = |text: &'_ [char], count: usize| -> String {
        let number: String = text[at..at + count].iter().collect();
        if inside {
            number
        } else {
            number.trim_start_matches('0').to_owned()
        }
    };
    let (p, q) = (strip(&a, m), strip(&b, n));
    p.len()
        .cmp(&q.len())
        .then_with(|| p.cmp(&q))
        .then_with(|| m.cmp(&n))
        .then_with(|| x.cmp(&y))
}
