//! Drafts without mistakes to a plan.

use super::Cx;
use super::stages::Draft;
use super::wiring::Link;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::Table;
use crate::hash;
use crate::memory;
use crate::plan::{Edge, Node, Plan};
use crate::run::RunSettings;
use crate::shapes::Shape;
use crate::source::Span;
use crate::units::show_bytes;
use std::path::Path;

/// The plan of sound drafts; `shapes` by place in `order`. Reports when the memory is too small for it.
#[allow(clippy::too_many_arguments)]
pub(crate) fn make(
    cx: &mut Cx,
    root: &Table,
    file: &Path,
    run: RunSettings,
    drafts: &[Draft],
    links: &[Vec<Link>],
    order: &[usize],
    shapes: &[Vec<Shape>],
) -> Option<Plan> {
    let mut place = vec![0; drafts.len()];
    for (at, index) in order.iter().enumerate() {
        place[*index] = at;
    }
    let mut nodes = Vec::with_capacity(order.len());
    for (at, index) in order.iter().enumerate() {
        let draft = &drafts[*index];
        let mut inputs = Vec::with_capacity(links[*index].len());
        for link in &links[*index] {
            inputs.push(Edge {
                port: link.port,
                node: place[link.from],
                output: link.output?,
            });
        }
        nodes.push(Node {
            name: draft.name.clone(),
            schema: draft.schema?,
            values: draft.values.clone(),
            inputs,
            run: draft.run.clone(),
            shapes: shapes.get(at)?.iter().map(whole).collect(),
        });
    }
    let mut models = std::collections::BTreeMap::new();
    for (name, model) in &cx.models {
        models.insert(name.clone(), model.header.clone()?);
    }
    let plugins = cx.plugins.values();
    let plugins = plugins
        .map(|declared| declared.plugin.clone())
        .collect::<Option<Vec<_>>>()?;
    let name = root.get("name").and_then(|entry| entry.value.text());
    let mut plan = Plan {
        name: name.map_or_else(|| stem(file), str::to_owned),
        file: file.to_owned(),
        run,
        models,
        plugins,
        nodes,
        hash: String::new(),
    };
    match hash::of(&plan) {
        Ok(hash) => plan.hash = hash,
        Err(unread) => unreadable(cx, drafts, &unread),
    }
    memory(cx, root, &plan);
    Some(plan)
}

/// Reports a file that belongs to the plan and cannot be read, at the parameter that names it.
fn unreadable(cx: &mut Cx, drafts: &[Draft], unread: &hash::Unread) {
    let title = format!(
        "`{}` cannot be read: {}",
        unread.path.display(),
        unread.what
    );
    let help = "its bytes belong to the plan, so that a run with others is another run: see to it that they can be read";
    let draft = drafts.iter().find(|draft| draft.name == unread.stage);
    let item = draft.and_then(|draft| draft.given.get(&unread.param));
    match (item, draft) {
        (Some(item), _) => {
            let found = Diagnostic::new(&codes::E0308, item.span, title, "this path");
            super::convert::push(cx, item, found.help(help));
        }
        (None, Some(draft)) => {
            let label = format!("the default of its `{}`", unread.param);
            let found = Diagnostic::new(&codes::E0308, draft.key, title, label);
            cx.found.push(found.help(help));
        }
        (None, None) => {}
    }
}

/// A number that is not known before the run is 0.
fn whole(shape: &Shape) -> Vec<u64> {
    shape
        .dims
        .iter()
        .map(|dim| dim.map_or(0, |number| number.value as u64))
        .collect()
}

/// `demo` of `pipelines/demo.weir.toml`.
fn stem(file: &Path) -> String {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = name.strip_suffix(".toml").unwrap_or(&name);
    name.strip_suffix(".weir").unwrap_or(name).to_owned()
}

fn memory(cx: &mut Cx, root: &Table, plan: &Plan) {
    let parts = memory::least(plan);
    let least = memory::needed(&parts);
    if plan.run.memory >= least {
        return;
    }
    let item = root
        .get("run")
        .and_then(|entry| entry.value.table()?.get("memory"))
        .map(|entry| &entry.value);
    // Rounded, as much as is asked for might be too little.
    let mebibytes = least.div_ceil(1 << 20);
    let needed = match mebibytes {
        ..=1 => show_bytes(least),
        whole if whole.is_multiple_of(1 << 10) => show_bytes(whole << 20),
        _ => format!("{mebibytes}MiB"),
    };
    let title = format!(
        "{} of memory are less than the least that the graph can run with, {needed}",
        show_bytes(plan.run.memory),
    );
    let span = item.map_or(Span::default(), |item| item.span);
    let mut diagnostic = Diagnostic::new(&codes::E0602, span, title, format!("at least {needed}"));
    for part in &parts {
        diagnostic = diagnostic.help(format!("{} of {}", show_bytes(part.bytes), part.what));
    }
    for memory in plan.stage_memories() {
        diagnostic = diagnostic.help(format!(
            "`stage.{}.{}` says how much an instance of it allocates: give less where that is enough",
            memory.node.name, memory.param
        ));
    }
    match item {
        Some(item) => super::convert::push(
            cx,
            item,
            diagnostic.fix("write", item.span, format!("\"{mebibytes}MiB\"")),
        ),
        None => cx.found.push(diagnostic),
    }
}
