//! The checked graph, ready to run.

use crate::{Kind, ModelHeader, Plugin, RunSettings, Schema, Values};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A checked pipeline: every name resolved, every type agreed, every parameter in range.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `name =` of the file, else its stem.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// `[run]`.
    pub run: RunSettings,
    /// Models by the name of their table.
    pub models: BTreeMap<String, ModelHeader>,
    /// Plugins that the file names, by name; also those of which only a slide reader is used.
    pub plugins: Vec<Plugin>,
    /// Stages in topological order; ties in the order of the file. Edges point to earlier nodes only.
    pub nodes: Vec<Node>,
    /// SHA-256, in hexadecimal, over everything that can change an answer: stages, parameters, edges, models' and
    /// plugins' hashes, and the settings of `[run]` that matter (executor, seed, max-failed, default-mpp, ...), not threads, memory or paths of
    /// outputs and slides.
    pub hash: String,
}

/// A stage of a plan.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of its table.
    pub name: String,
    /// Its type.
    pub schema: &'static Schema,
    /// Its parameters.
    pub values: Values,
    /// Its inputs, by port and then in the order of the list.
    pub inputs: Vec<Edge>,
    /// `run = { batch, .. }`.
    pub run: StageRun,
    /// Agreed shape of each output port, without the batch dimension.
    pub shapes: Vec<Vec<u64>>,
}

/// What a stage of a plugin allocates beside rows and slides.
#[derive(Clone, Copy, Debug)]
pub struct NodeMemory<'a> {
    /// The stage.
    pub node: &'a Node,
    /// Its parameter that says so.
    pub param: &'a str,
    /// Bytes of an instance.
    pub each: u64,
    /// Instances in a process of the run.
    pub instances: u64,
}

impl NodeMemory<'_> {
    /// Of all instances.
    pub fn bytes(&self) -> u64 {
        self.each.saturating_mul(self.instances)
    }
}

/// An edge into a stage: one feeder of one input port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Index of the input port in the schema.
    pub port: usize,
    /// Index of the sending node in the plan.
    pub node: usize,
    /// Index of its output port.
    pub output: usize,
}

/// `run = { .. }` of a stage; what is `None` is the stage's or the run's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageRun {
    /// Rows of a batch.
    pub batch: Option<usize>,
    /// How long a batch waits to fill, while open slides bring more; `None`: as long as it is worth it.
    pub linger: Option<Duration>,
    /// How long a batch may take.
    pub timeout: Option<Duration>,
    /// How often a row is tried again.
    pub retries: Option<u32>,
    /// Device of this stage.
    pub device: Option<String>,
}

impl Plan {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Bytes that plugins have for themselves, whatever slides are open: what their slide readers keep of all slides, and what their
    /// stages allocate. Part of `run.memory` that nothing else has.
    pub fn of_plugins(&self) -> u64 {
        let caches = self.plugins.iter().map(|plugin| plugin.cache);
        let stages = self.stage_memories().map(|memory| memory.bytes());
        caches.chain(stages).fold(0, u64::saturating_add)
    }

    /// What stages of plugins allocate beside rows and slides, of those that say so.
    pub fn stage_memories(&self) -> impl Iterator<Item = NodeMemory<'_>> {
        let all = self.plugins.iter().flat_map(|plugin| &plugin.memory);
        all.flat_map(move |memory| {
            let nodes = self.nodes.iter();
            nodes
                .filter(|node| node.schema.name == memory.stage)
                .map(|node| NodeMemory {
                    node,
                    param: &memory.param,
                    // The checker gave every required and every default value.
                    each: node.values.bytes(&memory.param).unwrap_or(0),
                    instances: memory.instances.count(&self.run),
                })
        })
    }

    /// Of a slide of `tiles` tiles, how many can stand at what `node` sends. A stage that gives picks lets through as many as its
    /// parameters `highest` and `lowest` say; others let through what reaches them.
    pub fn sends_at_most(&self, node: usize, tiles: u64) -> u64 {
        self.sent(node + 1, tiles)[node]
    }

    /// Of a slide of `tiles` tiles, how many can reach `node`.
    pub fn takes_at_most(&self, node: usize, tiles: u64) -> u64 {
        let sent = self.sent(node, tiles);
        self.reaching(node, &sent, tiles)
    }

    /// What each of the first `count` nodes sends at most. Feeders stand before their users, so each is asked once.
    fn sent(&self, count: usize, tiles: u64) -> Vec<u64> {
        let mut sent: Vec<u64> = Vec::with_capacity(count);
        for (index, node) in self.nodes.iter().enumerate().take(count) {
            let reaching = self.reaching(index, &sent, tiles);
            let picks = node.schema.outs.iter().any(|port| port.kind == Kind::Picks);
            let selected = match (
                node.values.integer("highest"),
                node.values.integer("lowest"),
            ) {
                (Ok(highest), Ok(lowest)) if picks => highest.saturating_add(lowest).max(0) as u64,
                _ => u64::MAX,
            };
            sent.push(reaching.min(selected));
        }
        sent
    }

    fn reaching(&self, node: usize, sent: &[u64], tiles: u64) -> u64 {
        let feeders = self.nodes[node].inputs.iter();
        feeders
            .filter_map(|edge| sent.get(edge.node).copied())
            .max()
            .unwrap_or(tiles)
    }

    /// Where an output port is used: (node, edge).
    pub fn users(&self, node: usize, output: usize) -> impl Iterator<Item = (&Node, &Edge)> {
        self.nodes.iter().flat_map(move |user| {
            user.inputs
                .iter()
                .filter(move |edge| edge.node == node && edge.output == output)
                .map(move |edge| (user, edge))
        })
    }
}
