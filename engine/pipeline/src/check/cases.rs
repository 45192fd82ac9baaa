//! Reading `[[test]]`.

use super::stages::Draft;
use super::{Cx, convert, structure};
use crate::cases::{Expect, Feed, OUTCOMES, TestCase};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Entry, Item, Table};
use crate::nearest::{list, nearest};
use crate::schema::{ParamKind, Rows};
use crate::source::Span;
use crate::values::Value;
use std::collections::BTreeMap;

/// Reads all tests; those with mistakes are left out.
pub(crate) fn read(cx: &mut Cx, root: &Table, drafts: &[Draft]) -> Vec<TestCase> {
    let Some(entry) = root.get("test") else {
        return Vec::new();
    };
    let Data::List(items) = &entry.value.data else {
        if !entry.value.is_reported() {
            let title = "`test` is a list of tables: [[test]]";
            let label = format!("this is {}", entry.value.data.type_name());
            cx.found
                .push(Diagnostic::new(&codes::E0302, entry.key, title, label));
        }
        return Vec::new();
    };
    let mut tests: Vec<TestCase> = Vec::new();
    for item in items {
        let Some(table) = item.table() else {
            let label = item.data.type_name();
            let title = "`test` is a list of tables: [[test]]";
            cx.found
                .push(Diagnostic::new(&codes::E0302, item.span, title, label));
            continue;
        };
        structure::known_keys(cx, table, &["name", "feed", "expect"], "[[test]]");
        tests.extend(case(cx, item.span, table, drafts));
    }
    tests
}

/// An entry that must be there.
fn needed<'t>(
    cx: &mut Cx,
    table: &'t Table,
    name: &str,
    key: Span,
    example: &str,
) -> Option<&'t Entry> {
    let found = table.get(name);
    if found.is_none() && !cx.damage.may_lack_keys(key) {
        let title = format!("a test needs `{name}`");
        cx.found.push(
            Diagnostic::new(&codes::E0306, key, title, format!("no `{name}` here"))
                .help(format!("add `{example}`")),
        );
    }
    found
}

fn case(cx: &mut Cx, span: Span, table: &Table, drafts: &[Draft]) -> Option<TestCase> {
    let name = needed(
        cx,
        table,
        "name",
        span,
        "name = \"a black tile is skipped\"",
    )
    .and_then(|entry| convert::text(cx, &entry.value, "name"));
    let fed = needed(
        cx,
        table,
        "feed",
        span,
        "feed = { stage = \"tiles\", colour = [0, 0, 0] }",
    )
    .and_then(|entry| feed(cx, entry, drafts));
    let expected = needed(
        cx,
        table,
        "expect",
        span,
        "expect = { score = { values = 1 } }",
    )
    .and_then(|entry| expect(cx, entry, drafts));
    let (name, (stage, feed), (expect, prediction)) = (name?, fed?, expected?);
    Some(TestCase {
        name,
        span,
        stage,
        feed,
        expect,
        prediction,
    })
}

fn table_of<'e>(cx: &mut Cx, entry: &'e Entry, example: &str) -> Option<&'e Table> {
    let table = entry.value.table();
    if table.is_none() && !entry.value.is_reported() {
        let title = format!("`{}` is a table: {example}", entry.name);
        let label = format!("this is {}", entry.value.data.type_name());
        let diagnostic = Diagnostic::new(&codes::E0302, entry.value.span, title, label);
        convert::push(cx, &entry.value, diagnostic);
    }
    table
}

fn feed(cx: &mut Cx, entry: &Entry, drafts: &[Draft]) -> Option<(String, Feed)> {
    let table = table_of(
        cx,
        entry,
        "feed = { stage = \"tiles\", colour = [0, 0, 0] }",
    )?;
    const WAYS: [&str; 4] = ["colour", "tiles", "slides", "script"];
    let keys = ["stage", "colour", "tiles", "slides", "script", "count"];
    structure::known_keys(cx, table, &keys, "`feed`");
    let stage = fed_stage(cx, entry, table, drafts);
    let ways: Vec<&Entry> = table
        .entries
        .iter()
        .filter(|entry| WAYS.contains(&entry.name.as_str()))
        .collect();
    let way = match ways.as_slice() {
        [way] => way,
        [] => {
            let title = "`feed` does not say with what";
            let label = format!("one of {}", WAYS.join(", "));
            cx.found.push(Diagnostic::new(
                &codes::E0306,
                entry.value.span,
                title,
                label,
            ));
            return None;
        }
        [first, second, ..] => {
            let title = format!("`{}` and `{}` exclude each other", first.name, second.name);
            cx.found.push(
                Diagnostic::new(&codes::E0307, second.key, title, "this")
                    .with(first.key, "or this"),
            );
            return None;
        }
    };
    let count = match table.get("count") {
        None => 1,
        Some(entry) if way.name != "colour" => {
            let title = format!("`count` and `{}` exclude each other", way.name);
            cx.found.push(
                Diagnostic::new(
                    &codes::E0307,
                    entry.key,
                    title,
                    "only tiles of a colour are counted",
                )
                .with(way.key, "says how many tiles there are"),
            );
            return None;
        }
        Some(entry) => {
            let kind = ParamKind::Integer {
                min: 1,
                max: 10_000,
            };
            match convert::value(cx, &entry.value, "count", &kind)? {
                Value::Integer(count) => count as u32,
                _ => return None,
            }
        }
    };
    let item = &way.value;
    let feed = match way.name.as_str() {
        "colour" => Feed::Colour {
            rgb: colour(cx, item)?,
            count,
        },
        "tiles" => match convert::value(cx, item, "tiles", &ParamKind::Path { exists: true })? {
            Value::Path(path) => Feed::Tiles(path),
            _ => return None,
        },
        "slides" => match convert::value(cx, item, "slides", &ParamKind::Slides)? {
            Value::Texts(slides) => Feed::Slides(slides),
            _ => return None,
        },
        _ => Feed::Script(convert::text(cx, item, "script")?),
    };
    Some((stage?, feed))
}

/// The source that is fed; the only one when the test does not say.
fn fed_stage(cx: &mut Cx, entry: &Entry, table: &Table, drafts: &[Draft]) -> Option<String> {
    let is_source = |draft: &&Draft| {
        draft
            .schema
            .is_some_and(|schema| schema.rows == Rows::Source)
    };
    let sources: Vec<&str> = drafts
        .iter()
        .filter(is_source)
        .map(|draft| draft.name.as_str())
        .collect();
    let Some(named) = table.get("stage") else {
        if let [only] = sources.as_slice() {
            return Some((*only).to_owned());
        }
        if !cx.found.iter().any(Diagnostic::is_error) {
            let title = "`feed` does not say which stage is fed";
            let label = format!("`stage` = one of {}", list(&sources));
            cx.found.push(Diagnostic::new(
                &codes::E0306,
                entry.value.span,
                title,
                label,
            ));
        }
        return None;
    };
    let name = convert::text(cx, &named.value, "stage")?;
    known_stage(cx, &name, named.value.span, drafts)?;
    let unknown = drafts
        .iter()
        .any(|draft| draft.name == name && draft.schema.is_none());
    if !unknown && !sources.contains(&name.as_str()) {
        let title = format!("stage `{name}` is no source and cannot be fed");
        let label = format!("sources: {}", list(&sources));
        cx.found.push(Diagnostic::new(
            &codes::E0401,
            named.value.span,
            title,
            label,
        ));
        return None;
    }
    Some(name)
}

fn known_stage(cx: &mut Cx, name: &str, span: Span, drafts: &[Draft]) -> Option<()> {
    let names = || drafts.iter().map(|draft| draft.name.as_str());
    if names().any(|known| known == name) {
        return Some(());
    }
    if !cx.damage.tables_lost {
        let title = format!("no stage is called `{name}`");
        let at = cx.sources.slice(span).find(name).unwrap_or(0);
        let place = span.part(at, at + name.len());
        cx.found.push(
            Diagnostic::new(&codes::E0401, span, title, "not found")
                .did_you_mean(place, nearest(name, names()).map(str::to_owned)),
        );
    }
    None
}

/// Three numbers of 0 to 255.
fn colour(cx: &mut Cx, item: &Item) -> Option<[u8; 3]> {
    let channel = |item: &Item| match item.data {
        Data::Integer(Some(number)) => u8::try_from(number).ok(),
        _ => None,
    };
    let found = match &item.data {
        Data::List(items) => items.iter().map(channel).collect::<Option<Vec<u8>>>(),
        Data::Reported => return None,
        _ => None,
    };
    let rgb = found.and_then(|found| <[u8; 3]>::try_from(found).ok());
    if rgb.is_none() {
        let title = "`colour` is red, green and blue, each 0 to 255";
        let diagnostic = Diagnostic::new(&codes::E0302, item.span, title, "as [255, 0, 0]");
        convert::push(cx, item, diagnostic);
    }
    rgb
}

type Expected = (Vec<Expect>, Option<(String, Span)>);

fn expect(cx: &mut Cx, entry: &Entry, drafts: &[Draft]) -> Option<Expected> {
    let table = table_of(cx, entry, "expect = { score = { values = 1 } }")?;
    if table.entries.is_empty() {
        let title = "`expect` expects nothing";
        cx.found.push(Diagnostic::new(
            &codes::E0306,
            entry.value.span,
            title,
            "empty",
        ));
        return None;
    }
    let mut found = Vec::new();
    let mut prediction = None;
    let mut sound = true;
    for entry in &table.entries {
        if let ("prediction", Some(class)) = (entry.name.as_str(), entry.value.text()) {
            prediction = Some((class.to_owned(), entry.value.span));
            continue;
        }
        if known_stage(cx, &entry.name, entry.key, drafts).is_none() {
            sound = false;
            continue;
        }
        let Some(counts) = table_of(cx, entry, "{ values = 1, skipped = 0 }") else {
            sound = false;
            continue;
        };
        structure::known_keys(cx, counts, &OUTCOMES, "what a stage is expected to make");
        let mut expect = Expect {
            stage: entry.name.clone(),
            counts: BTreeMap::new(),
        };
        for name in OUTCOMES {
            let Some(entry) = counts.get(name) else {
                continue;
            };
            let kind = ParamKind::Integer {
                min: 0,
                max: i64::MAX,
            };
            match convert::value(cx, &entry.value, name, &kind) {
                Some(Value::Integer(count)) => {
                    expect.counts.insert(name, (count as u64, entry.value.span));
                }
                _ => sound = false,
            }
        }
        found.push(expect);
    }
    sound.then_some((found, prediction))
}
