//! From pixels to a model's numbers: (value / scale - mean) / std of each channel, in the model's layout, order and type.

use half::f16;
use weir_plugin::{Error, Result};

/// Where a model wants its channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, weir_plugin::Choice)]
pub enum Layout {
    /// [batch, channel, height, width]
    #[default]
    Nchw,
    /// [batch, height, width, channel]
    Nhwc,
}

/// The order of a model's channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, weir_plugin::Choice)]
pub enum Channels {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first, as OpenCV and Caffe have it.
    Bgr,
}

/// The type of a model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32 bits.
    F32,
    /// 16 bits; rounded from 32, to nearest, ties to even.
    F16,
    /// The pixels as they are.
    U8,
}

/// A pass's input.
pub enum Numbers {
    /// As its name says.
    F32(Vec<f32>),
    /// The bits.
    F16(Vec<u16>),
    /// As its name says.
    U8(Vec<u8>),
}

/// How a tile's bytes become numbers.
pub struct Form {
    layout: Layout,
    channels: Channels,
    table: Table,
}

/// What each byte becomes, by the model's channel. 256 divisions a channel in place of three a pixel, with the same bits.
enum Table {
    F32(Box<[[f32; 256]; 3]>),
    F16(Box<[[u16; 256]; 3]>),
    U8,
}

impl Form {
    /// `mean` and `std` are in the order of the model's channels. Of u8 nothing is to be changed.
    pub fn new(
        element: Element,
        layout: Layout,
        channels: Channels,
        scale: f32,
        mean: [f32; 3],
        std: [f32; 3],
    ) -> Form {
        let number =
            |channel: usize, byte: usize| (byte as f32 / scale - mean[channel]) / std[channel];
        let table = match element {
            Element::F32 => Table::F32(Box::new(std::array::from_fn(|channel| {
                std::array::from_fn(|byte| number(channel, byte))
            }))),
            Element::F16 => Table::F16(Box::new(std::array::from_fn(|channel| {
                std::array::from_fn(|byte| f16::from_f32(number(channel, byte)).to_bits())
            }))),
            Element::U8 => Table::U8,
        };
        Form {
            layout,
            channels,
            table,
        }
    }

    /// Room for a pass of so many numbers, all of them 0.
    pub fn room(&self, numbers: usize) -> Numbers {
        match self.table {
            Table::F32(_) => Numbers::F32(vec![0.0; numbers]),
            Table::F16(_) => Numbers::F16(vec![0; numbers]),
            Table::U8 => Numbers::U8(vec![0; numbers]),
        }
    }

    /// Bytes of so many numbers.
    pub fn bytes(&self, numbers: usize) -> u64 {
        let each = match self.table {
            Table::F32(_) => 4,
            Table::F16(_) => 2,
            Table::U8 => 1,
        };
        (numbers as u64).saturating_mul(each)
    }

    /// Writes a tile (interleaved RGB, rows top to bottom) into place `place` of a pass.
    pub fn fill(&self, into: &mut Numbers, place: usize, tile: &[u8]) {
        match (&self.table, into) {
            (Table::F32(table), Numbers::F32(into)) => {
                self.write(into, place, tile, |channel, byte| {
                    table[channel][usize::from(byte)]
                });
            }
            (Table::F16(table), Numbers::F16(into)) => {
                self.write(into, place, tile, |channel, byte| {
                    table[channel][usize::from(byte)]
                });
            }
            (Table::U8, Numbers::U8(into)) => self.write(into, place, tile, |_, byte| byte),
            // `room` made it of the table's own type.
            _ => unreachable!("a pass of another type"),
        }
    }

    fn write<T>(&self, into: &mut [T], place: usize, tile: &[u8], number: impl Fn(usize, u8) -> T) {
        let into = &mut into[place * tile.len()..][..tile.len()];
        let source = |channel: usize| match self.channels {
            Channels::Rgb => channel,
            Channels::Bgr => 2 - channel,
        };
        match self.layout {
            Layout::Nchw => {
                let plane = tile.len() / 3;
                for (channel, into) in into.chunks_exact_mut(plane.max(1)).enumerate() {
                    let from = source(channel);
                    for (into, pixel) in into.iter_mut().zip(tile.chunks_exact(3)) {
                        *into = number(channel, pixel[from]);
                    }
                }
            }
            Layout::Nhwc => {
                for (into, pixel) in into.chunks_exact_mut(3).zip(tile.chunks_exact(3)) {
                    for (channel, into) in into.iter_mut().enumerate() {
                        *into = number(channel, pixel[source(channel)]);
                    }
                }
            }
        }
    }
}

/// Three numbers of a text as `0.485, 0.456, 0.406`, or one that holds for all channels.
///
/// # Errors
/// What is wrong with it, as parameter `param`'s fault.
pub fn three(param: &str, text: &str) -> Result<[f32; 3]> {
    let wrong = || {
        Error::param(
            param,
            format!("{text:?} is neither one number nor three with commas between them"),
        )
        .help("as \"0.485, 0.456, 0.406\"")
    };
    let numbers: Vec<f32> = text
        .split(',')
        .map(|part| part.trim().parse::<f32>().ok().filter(|it| it.is_finite()))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    match numbers[..] {
        [one] => Ok([one; 3]),
        [first, second, third] => Ok([first, second, third]),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Two tiles of 2 x 1 px.
    const TILES: [[u8; 6]; 2] = [[10, 20, 30, 40, 50, 60], [1, 2, 3, 4, 5, 6]];

    fn filled(form: &Form) -> Numbers {
        let mut room = form.room(12);
        for (place, tile) in TILES.iter().enumerate() {
            form.fill(&mut room, place, tile);
        }
        room
    }

    fn form(element: Element, layout: Layout, channels: Channels) -> Form {
        Form::new(element, layout, channels, 10.0, [1.0, 2.0, 3.0], [2.0; 3])
    }

    #[test]
    fn tiles_lie_in_the_models_layout_and_order() {
        let Numbers::U8(rows) = filled(&form(Element::U8, Layout::Nchw, Channels::Rgb)) else {
            panic!()
        };
        assert_eq!(rows, [10, 40, 20, 50, 30, 60, 1, 4, 2, 5, 3, 6]);
        let Numbers::U8(rows) = filled(&form(Element::U8, Layout::Nhwc, Channels::Bgr)) else {
            panic!()
        };
        assert_eq!(rows, [30, 20, 10, 60, 50, 40, 3, 2, 1, 6, 5, 4]);
    }

    #[test]
    fn values_are_scaled_then_centred_then_divided_by_the_models_channels() {
        let Numbers::F32(rows) = filled(&form(Element::F32, Layout::Nchw, Channels::Rgb)) else {
            panic!()
        };
        assert_eq!(rows[..6], [0.0, 1.5, 0.0, 1.5, 0.0, 1.5]);
        let Numbers::F16(rows) = filled(&form(Element::F16, Layout::Nhwc, Channels::Bgr)) else {
            panic!()
        };
        let rows: Vec<f32> = rows.iter().map(|it| f16::from_bits(*it).to_f32()).collect();
        assert_eq!(rows[..3], [1.0, 0.0, -1.0]);
    }

    #[test]
    fn three_numbers_are_one_or_three() {
        assert_eq!(three("mean", "0.5").unwrap(), [0.5; 3]);
        assert_eq!(three("mean", " 1,2 , 3 ").unwrap(), [1.0, 2.0, 3.0]);
        for wrong in ["", "1,2", "1,2,3,4", "one", "nan", "1;2;3"] {
            let error = three("std", wrong).unwrap_err();
            assert_eq!(error.of_which_param(), "std", "{wrong}");
        }
    }
}
