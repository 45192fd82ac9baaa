//! A plan becomes operators.

use std::sync::Arc;

use timely::dataflow::Scope;
use timely::dataflow::operators::Concatenate;
use weir_pipeline::{Node, Place, Rows};

use crate::host::{Counted, Edge, Route, host};
use crate::house::House;
use crate::reduce::ReduceLogic;
use crate::report::{Report, ReportLogic};
use crate::sink::SinkLogic;
use crate::source::SourceLogic;
use crate::stage::{MakeSink, Prepared};
use crate::work::{WorkLogic, runners};

/// For each input edge of a node, in order: its port and its place among the port's feeders.
pub(crate) fn feeders(node: &Node) -> Vec<(usize, usize)> {
    node.inputs
        .iter()
        .enumerate()
        .map(|(at, edge)| {
            (
                edge.port,
                node.inputs[..at]
                    .iter()
                    .filter(|other| other.port == edge.port)
                    .count(),
            )
        })
        .collect()
}

/// Attaches to the stream of what reaches the sinks: Opened, Event and Prediction rows, in each worker. For views.
/// A slide's rows come once from each sink, in its home process.
pub trait Tap: Send + Sync {
    /// Builds the same operators in every worker; called once in each.
    fn attach<'s>(&self, scope: Scope<'s, u64>, rows: Edge<'s>);
}

/// Builds the operators of `plan` in a worker. Every worker builds the same ones in the same order.
pub(crate) fn build<'s>(
    scope: Scope<'s, u64>,
    house: &House,
    prepared: &[Prepared],
    report: &Report,
    taps: &[Arc<dyn Tap>],
    keep: &Arc<dyn Fn(u64) -> bool + Send + Sync>,
) {
    let worker = scope.index() % house.workers;
    let runners = runners(house, prepared);
    let mut outputs: Vec<Vec<Edge<'s>>> = Vec::new();
    let mut reports: Vec<Edge<'s>> = Vec::new();
    for (index, (node, stage)) in house.plan.nodes.iter().zip(prepared).enumerate() {
        let inputs = |route| -> Vec<(Edge<'s>, Route)> {
            node.inputs
                .iter()
                .map(|edge| (outputs[edge.node][edge.output].clone(), route))
                .collect()
        };
        let count = node.schema.outs.len();
        let counted = |made, busy| {
            Some(Counted {
                progress: house.progress.clone(),
                stage: index,
                made,
                busy,
            })
        };
        let mut sink = |home: Option<&MakeSink>, first: Option<&MakeSink>| {
            let home = home.map(|make| make());
            reports.extend(host(
                scope,
                &node.name,
                counted(false, true),
                inputs(Route::Home),
                1,
                |_| {
                    Box::new(SinkLogic::new(
                        house.clone(),
                        index,
                        home,
                        true,
                        report.clone(),
                    ))
                },
            ));
            if let Some(first) = first.map(|make| make()) {
                let name = format!("{} at process 0", node.name);
                // Only the worker that gets rows has the sink: the others' would write empty tables at the end.
                let stage = (scope.index() == 0).then_some(first);
                host(
                    scope,
                    &name,
                    counted(false, true),
                    inputs(Route::First),
                    0,
                    |_| {
                        Box::new(SinkLogic::new(
                            house.clone(),
                            index,
                            stage,
                            false,
                            report.clone(),
                        ))
                    },
                );
            }
        };
        let streams = match stage {
            Prepared::Source(source) => host(
                scope,
                &node.name,
                counted(true, false),
                Vec::new(),
                count,
                |wake| {
                    Box::new(SourceLogic::new(
                        house.clone(),
                        index,
                        source.clone(),
                        worker,
                        &**keep,
                        wake,
                    ))
                },
            ),
            Prepared::Work(_) => host(
                scope,
                &node.name,
                counted(true, false),
                inputs(Route::Home),
                count,
                |wake| Box::new(WorkLogic::new(runners[&index].clone(), wake)),
            ),
            Prepared::Reduce(make) => host(
                scope,
                &node.name,
                counted(true, true),
                inputs(Route::Home),
                count,
                |wake| Box::new(ReduceLogic::new(house.clone(), index, make(), wake)),
            ),
            Prepared::Sink(make) => {
                match node.schema.place {
                    Place::Home => sink(Some(make), None),
                    Place::First => sink(None, Some(make)),
                }
                Vec::new()
            }
            Prepared::SinkPair { home, first } => {
                sink(Some(home), Some(first));
                Vec::new()
            }
        };
        outputs.push(streams);
    }
    debug_assert!(
        house
            .plan
            .nodes
            .iter()
            .any(|node| node.schema.rows == Rows::Sink)
    );
    for tap in taps {
        tap.attach(scope, scope.concatenate(reports.iter().cloned()));
    }
    let inputs = reports
        .into_iter()
        .map(|rows| (rows, Route::First))
        .collect();
    host(scope, "report", None, inputs, 0, |_| {
        Box::new(ReportLogic::new(
            report.clone(),
            house.plan.clone(),
            house.stop.clone(),
        ))
    });
}
