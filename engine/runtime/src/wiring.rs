//! What carries rows between workers: memory within a process, a connection for each pair of processes.

use std::any::Any;
use std::net::TcpStream;

use timely::CommunicationConfig;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Hooks};

use crate::abort::{Abort, Stop};
use crate::cluster::{JoinError, Member};
use crate::control::Control;

/// What timely needs to start workers.
pub(crate) struct Wires {
    pub(crate) builders: Vec<AllocatorBuilder>,
    /// The threads of the connections.
    pub(crate) others: Box<dyn Any + Send>,
    /// The connections, to be cut after an abort.
    pub(crate) sockets: Vec<TcpStream>,
    pub(crate) control: Option<Control>,
}

/// For `workers` workers of the only process.
pub(crate) fn alone(workers: usize) -> Result<Wires, String> {
    let config = if workers > 1 {
        CommunicationConfig::Process(workers)
    } else {
        CommunicationConfig::Thread
    };
    let (builders, others) = config.try_build()?;
    Ok(Wires {
        builders,
        others,
        sockets: Vec::new(),
        control: None,
    })
}

/// For `workers` workers of one of several processes. The sockets are ours: timely's own way of making them has no
/// time-out and prints to standard output.
pub(crate) fn between(
    member: Member,
    process: usize,
    workers: usize,
    abort: &Abort,
    stop: &Stop,
) -> Result<Wires, JoinError> {
    let links = member.link()?;
    let broken = |error: std::io::Error| JoinError {
        what: format!("the connections to the other processes cannot be used: {error}"),
        help: String::new(),
    };
    let sockets = links
        .iter()
        .flatten()
        .map(TcpStream::try_clone)
        .collect::<Result<_, _>>()
        .map_err(broken)?;
    let control = Control::new(member, process, abort.clone(), stop.clone());
    let hooks = Hooks::default();
    let within = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
    let (builders, guard) =
        initialize_networking_from_sockets(within, links, process, workers, hooks)
            .map_err(broken)?;
    Ok(Wires {
        builders: builders.into_iter().map(AllocatorBuilder::Tcp).collect(),
        others: Box::new(guard),
        sockets,
        control: Some(control),
    })
}
