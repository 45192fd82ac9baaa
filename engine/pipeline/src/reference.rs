//! What a stage type says of itself, as text and Markdown; and what is wrong with what it says.

use crate::check::{range_of, schema_faults};
use crate::schema::{Dim, ModelField, Param, ParamKind, Port, Registry, Rows, Schema};
use std::fmt::Write;

/// All types, one line each, sources first.
pub fn list(registry: &Registry) -> String {
    let mut text = String::new();
    let width = registry
        .iter()
        .map(|schema| schema.name.len())
        .max()
        .unwrap_or(0);
    for rows in [
        Rows::Source,
        Rows::Map,
        Rows::Filter,
        Rows::Reduce,
        Rows::Sink,
    ] {
        for schema in registry.iter().filter(|schema| schema.rows == rows) {
            let _ = writeln!(
                text,
                "{:width$}  {:6}  {}",
                schema.name,
                rows.name(),
                schema.summary
            );
        }
    }
    text.push_str("\n`weir stages NAME` says more about one.\n");
    text
}

/// The same as a table in Markdown.
pub fn list_markdown(registry: &Registry) -> String {
    let mut text = String::from("| stage type | rows | what it does |\n|---|---|---|\n");
    for schema in registry.iter() {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            schema.name,
            schema.rows.name(),
            schema.summary
        );
    }
    text
}

/// What a parameter takes, in words.
pub fn takes(kind: &ParamKind) -> String {
    let range = range_of(kind).filter(|range| range != "a finite number");
    let with = |noun: &str| match &range {
        Some(range) => format!("{noun}, {range}"),
        None => noun.to_owned(),
    };
    match kind {
        ParamKind::Integer { .. } => with("whole number"),
        ParamKind::Float { .. } => with("number"),
        ParamKind::Boolean => "true or false".into(),
        ParamKind::Text => "text".into(),
        ParamKind::Choice(choices) => {
            let quoted: Vec<String> = choices
                .iter()
                .map(|choice| format!("\"{choice}\""))
                .collect();
            format!("one of {}", quoted.join(", "))
        }
        ParamKind::Bytes => "size, as \"64MiB\"".into(),
        ParamKind::Duration => "duration, as \"20ms\"".into(),
        ParamKind::Path { exists: true } => "path of something that is there".into(),
        ParamKind::Path { exists: false } => "path".into(),
        ParamKind::Model(kind) => format!("name of a [model.X] of kind {}", kind.name()),
        ParamKind::Slides => "path, or list of paths: files, folders, patterns, manifests".into(),
        ParamKind::Texts => "list of texts".into(),
    }
}

/// `required`, `default 0.25`, or nothing.
fn status(param: &Param) -> String {
    match (param.required, param.default) {
        (true, _) => "required".into(),
        (false, Some(default)) => format!("default {default}"),
        (false, None) => "may be left out".into(),
    }
}

/// `50 x 50 x 3 at mpp um/px`, with the names of what says the numbers.
fn shape(port: &Port) -> String {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(value) => value.to_string(),
        Dim::Param(name) | Dim::Same(name) => (*name).to_owned(),
        Dim::Model { param, field } => {
            let field = match field {
                ModelField::InputSize => "size",
                ModelField::InputMpp => "mpp",
                ModelField::Feature => "feature",
                ModelField::Classes => "classes",
            };
            format!("{param}.{field}")
        }
    };
    let mut text = port.shape.iter().map(dim).collect::<Vec<_>>().join(" x ");
    if let Some(mpp) = &port.mpp {
        let _ = write!(text, " at {} um/px", dim(mpp));
    }
    text
}

fn port_line(port: &Port, input: bool) -> String {
    let mut line = port.kind.name().to_owned();
    let shape = shape(port);
    if !shape.is_empty() {
        let _ = write!(line, " [{shape}]");
    }
    if input && port.many {
        line.push_str(", one or several");
    }
    if input && port.optional {
        line.push_str(", may be left out");
    }
    line
}

/// A type in full, for a terminal.
pub fn text(schema: &Schema) -> String {
    let mut text = format!("{}: {}\n", schema.name, schema.summary);
    let _ = writeln!(text, "rows: {}", schema.rows.name());
    section(&mut text, "What it does");
    for paragraph in schema.doc.split("\n\n") {
        match table(paragraph) {
            Some(rows) => rows.iter().for_each(|row| tabled(&mut text, row)),
            None => fill(&mut text, paragraph, "  "),
        }
        text.push('\n');
    }
    text.pop();
    for (title, ports, input) in [
        ("Inputs", schema.ins, true),
        ("Outputs", schema.outs, false),
    ] {
        section(&mut text, title);
        if ports.is_empty() {
            text.push_str("  none\n");
        }
        for port in ports {
            let _ = writeln!(text, "  {}: {}", port.name, port_line(port, input));
            fill(&mut text, port.doc, "      ");
        }
    }
    section(&mut text, "Parameters");
    if schema.params.is_empty() {
        text.push_str("  none\n");
    }
    for param in schema.params {
        let _ = writeln!(
            text,
            "  {}: {}; {}",
            param.name,
            takes(&param.kind),
            status(param)
        );
        fill(&mut text, param.doc, "      ");
    }
    section(&mut text, "Example");
    for line in schema.example.trim_end().lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn section(text: &mut String, title: &str) {
    let _ = writeln!(text, "\n{title}");
}

/// The rows of a paragraph that is a table in Markdown, each cell with what stands above it.
fn table(paragraph: &str) -> Option<Vec<Vec<(String, String)>>> {
    let mut rows = paragraph.lines().map(cells);
    let heads = rows.next()??;
    let rule = rows.next()??;
    let ruled = |cell: &String| !cell.is_empty() && cell.chars().all(|c| matches!(c, '-' | ':'));
    if !rule.iter().all(ruled) {
        return None;
    }
    rows.map(|row| Some(heads.iter().cloned().zip(row?).collect()))
        .collect()
}

/// The cells of a table's line.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    // `\|` is a character of its cell.
    let shielded = inner.replace("\\|", "\0");
    let cells = shielded.split('|');
    Some(cells.map(|cell| cell.trim().replace('\0', "|")).collect())
}

/// A table's row on a terminal, which is too narrow for columns of sentences: its first cell, and the others below it.
fn tabled(text: &mut String, row: &[(String, String)]) {
    for (place, (head, cell)) in row.iter().enumerate() {
        match (place, head.is_empty(), cell.is_empty()) {
            (_, _, true) => {}
            (0, _, _) => fill(text, cell, "  "),
            (_, true, _) => fill(text, cell, "      "),
            _ => fill(text, &format!("{head}: {cell}"), "      "),
        }
    }
}

/// Lines of at most 100 characters.
fn fill(text: &mut String, paragraph: &str, indent: &str) {
    let mut line = String::from(indent);
    for word in paragraph.split_whitespace() {
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > 100 {
            text.push_str(line.trim_end());
            text.push('\n');
            line = String::from(indent);
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.len() > indent.len() {
        text.push_str(&line);
        text.push('\n');
    }
}

/// A type in full, in Markdown.
pub fn markdown(schema: &Schema) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut text = format!(
        "# {}\n\n{} (rows: {})\n\n{}\n",
        schema.name,
        schema.summary,
        schema.rows.name(),
        schema.doc
    );
    for (title, ports, input) in [
        ("Inputs", schema.ins, true),
        ("Outputs", schema.outs, false),
    ] {
        if ports.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n## {title}\n\n| name | what flows | meaning |\n|---|---|---|\n"
        );
        for port in ports {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} |",
                port.name,
                cell(&port_line(port, input)),
                cell(port.doc)
            );
        }
    }
    if !schema.params.is_empty() {
        text.push_str("\n## Parameters\n\n| name | takes | | meaning |\n|---|---|---|---|\n");
        for param in schema.params {
            let (takes, status) = (cell(&takes(&param.kind)), cell(&status(param)));
            let _ = writeln!(
                text,
                "| `{}` | {takes} | {status} | {} |",
                param.name,
                cell(param.doc)
            );
        }
    }
    let _ = write!(
        text,
        "\n## Example\n\n```toml\n{}\n```\n",
        schema.example.trim_end()
    );
    text
}

/// What is wrong with what types say of themselves: a default that its own parameter refuses, a shape that speaks of a
/// parameter that is not there, an example that is no table of the type. Empty when all is well; for tests.
pub fn faults(registry: &Registry) -> Vec<String> {
    let mut faults = Vec::new();
    for schema in registry.iter() {
        let mut fault = |what: String| faults.push(format!("{}: {what}", schema.name));
        let is_param = |name: &str| schema.params.iter().any(|param| param.name == name);
        for port in schema.ins.iter().chain(schema.outs) {
            for dim in port.shape.iter().chain(&port.mpp) {
                if let Dim::Param(name) | Dim::Model { param: name, .. } = dim
                    && !is_param(name)
                {
                    fault(format!(
                        "port `{}` speaks of a parameter `{name}`",
                        port.name
                    ));
                }
            }
        }
        if (schema.rows == Rows::Source) != schema.ins.is_empty() {
            fault("a source has no inputs, and what has none is a source".into());
        }
        if (schema.rows == Rows::Sink) != schema.outs.is_empty() {
            fault("a sink has no outputs, and what has none is a sink".into());
        }
        for param in schema.params {
            if param.required && param.default.is_some() {
                fault(format!(
                    "parameter `{}` is required and has a default",
                    param.name
                ));
            }
        }
        faults.extend(schema_faults(registry, schema));
    }
    faults
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_comes_out_as_its_rows_each_cell_with_its_head() {
        let doc = "| layout | features | |\n|---|:--|---|\n| clam | `features`: [rows, numbers \\| 0] | f32 |\n| stamp | | f16 |";
        let mut text = String::new();
        for row in table(doc).unwrap() {
            tabled(&mut text, &row);
        }
        assert_eq!(
            text,
            "  clam\n      features: `features`: [rows, numbers | 0]\n      f32\n  stamp\n      f16\n"
        );
        for none in ["a | b", "| a |\nno rule", "| a |\n| b |", ""] {
            assert_eq!(table(none), None, "{none}");
        }
    }
}
