//! The lists of [`Bags`] on the device, kept from one call to the next.
//!
//! A stream keeps them, not the device and not the `Bags`: what a stream runs, it runs in order, so that the memory of bags that
//! are gone is written anew by a copy in the stream. Nobody waits for the device, neither when bags come nor when they go, and a
//! stream whose every batch has new bags allocates nothing once it has seen the largest.

use super::Gpu;
use super::buffer::{Memory, Span};
use super::fault::CudaError;
use crate::bags::{Bags, Item};
use std::fmt;
use std::sync::{Arc, Weak};

/// Bags whose lists a stream keeps; beyond them the ones that were asked for longest ago go.
const KEPT: usize = 8;
/// Bytes of the smallest piece.
const SMALLEST: usize = 16 << 10;

/// The lists of [`Bags`] on the device.
#[derive(Clone, Copy, Debug)]
pub struct PlacedBags {
    /// [`Bags::items`], as `struct Item` of cuda/bags.cuh: four u32 an item.
    pub items: Span<u32>,
    /// [`Bags::first`].
    pub first: Span<u32>,
    /// [`Bags::starts`].
    pub starts: Span<u32>,
    /// [`Bags::offsets`].
    pub offsets: Span<u32>,
    /// [`Bags::list`]; address 0 where every row is a member.
    pub members: Span<u32>,
}

impl PlacedBags {
    /// Of the spans of [`of`], in its order.
    pub(super) fn of(bags: &Bags, spans: [Span<u32>; 5]) -> PlacedBags {
        let [items, first, starts, offsets, members] = spans;
        PlacedBags {
            items,
            first,
            starts,
            offsets,
            members: match bags.list() {
                Some(_) => members,
                None => Span::none(),
            },
        }
    }
}

/// The lists of bags, as numbers: items, first, starts, offsets, members.
pub(super) fn of(bags: &Bags) -> [&[u32]; 5] {
    [
        flat(bags.items()),
        bags.first(),
        bags.starts(),
        bags.offsets(),
        bags.list().unwrap_or(&[]),
    ]
}

/// Items as the numbers they are made of.
fn flat(items: &[Item]) -> &[u32] {
    const { assert!(size_of::<Item>() == 16 && align_of::<Item>() == 4) };
    // SAFETY: an Item is four u32 in C's layout, without padding.
    unsafe { std::slice::from_raw_parts(items.as_ptr().cast(), items.len() * 4) }
}

/// Says which bags are meant: clones, whose lists are the same, have the same one.
#[derive(Clone, Default)]
pub(crate) struct Identity(Arc<()>);

impl PartialEq for Identity {
    /// Bags are equal by their lists.
    fn eq(&self, _: &Identity) -> bool {
        true
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}", self.0)
    }
}

struct Piece {
    // A weak one keeps the address from being another's.
    of: Weak<()>,
    memory: Memory,
    asked: u64,
}

impl Piece {
    fn is_of(&self, identity: &Identity) -> bool {
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(&identity.0))
    }

    fn gone(&self) -> bool {
        self.of.strong_count() == 0
    }
}

/// Where lists lie, or shall lie.
pub(crate) enum Place {
    /// They were carried there before.
    Known(u64),
    /// They are to be carried there, in the stream.
    New(u64),
}

/// The lists that a stream keeps.
#[derive(Default)]
pub(crate) struct Lists {
    pieces: Vec<Piece>,
    asked: u64,
}

impl Lists {
    /// `bytes` bytes for the lists of the bags of that identity, at a multiple of 256.
    pub(crate) fn place(
        &mut self,
        gpu: &Gpu,
        identity: &Identity,
        bytes: usize,
    ) -> Result<Place, CudaError> {
        self.asked += 1;
        if let Some(piece) = self.pieces.iter_mut().find(|piece| piece.is_of(identity)) {
            piece.asked = self.asked;
            return Ok(Place::Known(piece.memory.address()));
        }
        let fits = |piece: &&mut Piece| piece.gone() && piece.memory.bytes() >= bytes;
        let smallest = self.pieces.iter_mut().filter(fits);
        if let Some(piece) = smallest.min_by_key(|piece| piece.memory.bytes()) {
            piece.of = Arc::downgrade(&identity.0);
            piece.asked = self.asked;
            return Ok(Place::New(piece.memory.address()));
        }
        if self.pieces.len() == KEPT {
            let oldest = |(_, piece): &(usize, &Piece)| (!piece.gone(), piece.asked);
            let oldest = self.pieces.iter().enumerate().min_by_key(oldest);
            if let Some((place, _)) = oldest {
                self.pieces.swap_remove(place);
            }
        }
        let size = bytes.checked_next_power_of_two().unwrap_or(bytes);
        let memory = Memory::new(gpu, size.max(SMALLEST))?;
        let address = memory.address();
        self.pieces.push(Piece {
            of: Arc::downgrade(&identity.0),
            memory,
            asked: self.asked,
        });
        Ok(Place::New(address))
    }

    /// Takes back what [`Lists::place`] promised, where the lists could not be carried over.
    pub(crate) fn forget(&mut self, identity: &Identity) {
        if let Some(piece) = self.pieces.iter_mut().find(|piece| piece.is_of(identity)) {
            piece.of = Weak::new();
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.memory.bytes()).sum()
    }
}
