//! A model on pixels: held against what the pipeline says of it when it is opened, then run in passes of one size.
//!
//! What comes out for a tile cannot hang on its neighbours. A pass always has the same number of tiles, with zeros where there are
//! none; where that is more than one, it is tried at the start whether a tile's numbers are the same bits alone and at every place
//! among others (the edge of a matrix product may be another kernel than its middle). Where they are not, a pass has one tile, at
//! the first place, and zeros behind it.
//!
//! What a pass allocates is not known before one was made. So the first ones are measured, and as many run at once as have room in
//! the memory that the model was given.

use crate::arena::Held;
use crate::form::{Channels, Element, Form, Layout};
use crate::session::{MORE, Place, Session, mebibytes};
use crate::signature::{Dim, Signature, Tensor};
use crate::turns::Turns;
use ort::value::TensorElementType;
use std::path::PathBuf;
use weir_plugin::{Error, Result};

/// What a pipeline says of a model.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The ONNX file.
    pub model: PathBuf,
    /// Where it runs.
    pub place: Place,
    /// The input that takes pixels; the only one where it is not said.
    pub input: Option<String>,
    /// The output that is read; the only one where it is not said.
    pub output: Option<String>,
    /// Where the channels stand.
    pub layout: Layout,
    /// Their order.
    pub channels: Channels,
    /// What pixel values are divided by; 255 where it is not said.
    pub scale: Option<f32>,
    /// What is subtracted then.
    pub mean: [f32; 3],
    /// What they are divided by then.
    pub std: [f32; 3],
    /// Width and height of a tile, px.
    pub size: u32,
    /// Tiles of a pass; the model's own number, or 1, where it is not said.
    pub batch: Option<u32>,
    /// Bytes that it may hold of the processor's memory: weights, and the numbers of all passes at once.
    pub memory: u64,
}

/// Passes that run at once, whatever room there is: more threads than that no machine has.
const MOST: usize = 1024;

/// A model that was opened.
pub struct Model {
    session: Session,
    signature: Signature,
    input: String,
    output: String,
    form: Form,
    /// Of a pass's input.
    shape: [i64; 4],
    /// Numbers of a tile's output.
    width: usize,
    /// Whether a pass has as many tiles as its shape.
    full: bool,
    /// How many passes have room at once.
    turns: Turns,
    /// Bytes that it holds between passes, and that each pass takes.
    holds: (u64, u64),
}

impl Model {
    /// Opens the model and tries it on tiles of noise.
    ///
    /// # Errors
    /// The parameter that does not fit, with what the model takes and gives.
    pub fn open(wanted: &Wanted) -> Result<Model> {
        let session = Session::open(&wanted.model, wanted.place, wanted.memory)?;
        let signature = session.signature();
        let all = |error: Error| Error::clone(&error).help(help(&error, &signature));
        // Before `input` is asked for, which would not help.
        if signature.inputs.len() > 1 {
            return Err(all(Error::param(
                "model",
                format!(
                    "it takes {} inputs, and only pixels can be given",
                    signature.inputs.len()
                ),
            )));
        }
        let input = choose("input", &signature.inputs, wanted.input.as_deref()).map_err(all)?;
        let output = choose("output", &signature.outputs, wanted.output.as_deref()).map_err(all)?;
        if !matches!(
            output.element,
            Some(TensorElementType::Float32 | TensorElementType::Float16)
        ) {
            return Err(all(Error::param(
                "output",
                format!("{output} has no numbers of type f32 or f16"),
            )));
        }
        let form = form(input, wanted).map_err(all)?;
        let batch = batch(input, wanted).map_err(all)?;
        check_size(input, wanted).map_err(all)?;
        let (input, output) = (input.name.clone(), output.name.clone());
        let mut model = Model {
            session,
            signature,
            input,
            output,
            form,
            shape: shape(wanted, batch),
            width: 0,
            full: true,
            turns: Turns::new(1),
            holds: (0, 0),
        };
        model.check_room(wanted)?;
        model.try_out(wanted)?;
        Ok(model)
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Numbers that it gives of a tile.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The output that is read.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The same parameter's fault, with what the model takes and gives.
    pub fn blame(&self, error: Error) -> Error {
        Error::clone(&error).help(help(&error, &self.signature))
    }

    /// Tiles that a pass takes from a batch.
    pub fn tiles_of_a_pass(&self) -> usize {
        if self.full { self.places() } else { 1 }
    }

    /// Whether a pass could have more tiles, but a tile's numbers would hang on its place.
    pub fn is_alone(&self) -> bool {
        !self.full
    }

    /// Bytes that it holds between passes, and that each pass takes, as they were measured when it was opened.
    pub fn holds(&self) -> (u64, u64) {
        self.holds
    }

    /// Passes that have room at once; more threads wait.
    pub fn passes_at_once(&self) -> usize {
        self.turns.all()
    }

    /// What ONNX Runtime holds for it now.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn held(&self) -> Result<Held> {
        self.session.held()
    }

    /// What runs it, and how: a line for the log.
    pub fn describe(&self, place: Place) -> String {
        format!(
            "{}; {} on {place}; reads {} numbers of `{}`; tiles of a pass: {}; holds {}, and {} a pass, of which {} may run at once",
            self.signature,
            self.session.library(),
            self.width,
            self.output,
            self.tiles_of_a_pass(),
            mebibytes(self.holds.0),
            mebibytes(self.holds.1),
            self.turns.all()
        )
    }

    /// The model's numbers of each tile (interleaved RGB, [size, size, 3]), one after the other, [tiles, width]. From any number of
    /// threads at once.
    ///
    /// # Errors
    /// [`Error::cancelled`] when `cancelled` says so between passes; what ONNX Runtime says.
    pub fn forward(&self, tiles: &[&[u8]], cancelled: impl Fn() -> bool) -> Result<Vec<f32>> {
        let mut numbers = Vec::with_capacity(tiles.len() * self.width);
        for pass in tiles.chunks(self.tiles_of_a_pass()) {
            if cancelled() {
                return Err(Error::cancelled());
            }
            let given = self.pass(pass)?;
            numbers.extend_from_slice(&given[..pass.len() * self.width]);
        }
        Ok(numbers)
    }

    fn places(&self) -> usize {
        self.shape[0] as usize
    }

    fn tile_len(&self) -> usize {
        self.shape[1..].iter().product::<i64>() as usize
    }

    fn pass(&self, tiles: &[&[u8]]) -> Result<Vec<f32>> {
        let (shape, numbers) = self.raw_pass(tiles)?;
        match width(&shape, self.places()) {
            Ok(width) if width == self.width => Ok(numbers),
            _ => Err(Error::new(format!(
                "the model's output `{}` had {} numbers a tile when it was opened, and is {shape:?} now",
                self.output, self.width
            ))),
        }
    }

    /// Bytes of the numbers that go into a pass.
    fn room(&self) -> u64 {
        self.form
            .bytes(self.places().saturating_mul(self.tile_len()))
    }

    fn raw_pass(&self, tiles: &[&[u8]]) -> Result<(Vec<u64>, Vec<f32>)> {
        let turn = self.turns.one();
        match self.pass_in_turn(tiles) {
            // What others have just freed may lie in pieces: with nobody beside it there is the room that was measured.
            Err(error) if error.of_which_param() == "memory" && self.turns.all() > 1 => {
                drop(turn);
                let _alone = self.turns.alone();
                self.pass_in_turn(tiles)
            }
            done => done,
        }
    }

    fn pass_in_turn(&self, tiles: &[&[u8]]) -> Result<(Vec<u64>, Vec<f32>)> {
        let len = self.tile_len();
        if let Some(other) = tiles.iter().find(|tile| tile.len() != len) {
            return Err(Error::new(format!(
                "a tile has {} bytes, and the model takes {len}",
                other.len()
            )));
        }
        let mut numbers = self.form.room(self.places() * len);
        for (place, tile) in tiles.iter().enumerate() {
            self.form.fill(&mut numbers, place, tile);
        }
        let given = self
            .session
            .run((&self.input, &mut numbers, &self.shape), &self.output)?;
        Ok((given.shape, given.numbers))
    }

    /// That the numbers of a pass alone have room: before anything of that size is made.
    fn check_room(&self, wanted: &Wanted) -> Result<()> {
        let room = self.room();
        if room <= wanted.memory {
            return Ok(());
        }
        let what = format!(
            "a pass of {} x {1} x {1} px has {2} of numbers to go in, and {3} are less",
            self.places(),
            wanted.size,
            mebibytes(room),
            mebibytes(wanted.memory)
        );
        Err(self.blame(Error::param("memory", what).help(MORE)))
    }

    /// Runs noise: how many numbers come out, whether they hang on a tile's place, and how many passes have room at once.
    fn try_out(&mut self, wanted: &Wanted) -> Result<()> {
        let noise: Vec<Vec<u8>> = (0..self.places().clamp(1, 5))
            .map(|seed| noise(seed as u32, self.tile_len()))
            .collect();
        let tiles: Vec<&[u8]> = noise.iter().map(Vec::as_slice).collect();
        let weights = self.session.held()?.allocated;
        let (shape, _) = self.raw_pass(&tiles[..1]).map_err(|error| {
            if error.of_which_param() == "memory" {
                return self.blame(error);
            }
            let what = format!(
                "the model cannot be run on tiles of {0} x {0} px: {1}",
                wanted.size,
                error.message()
            );
            self.blame(Error::param("size", what))
        })?;
        self.width = width(&shape, self.places()).map_err(|what| {
            self.blame(Error::param(
                "output",
                format!("`{}` is {shape:?}: {what}", self.output),
            ))
        })?;
        self.full = self.places() == 1 || self.is_invariant(&tiles)?;
        if !self.full && open_batch(&self.signature, &self.input) {
            // The zeros behind the one tile are then not needed either.
            self.shape[0] = 1;
        }
        // Again: the first pass of a shape is laid out as it goes, later ones by what it needed.
        self.pass(&tiles[..1])?;
        self.measure(weights, wanted)
    }

    /// From what it held with its weights alone, and holds after passes one by one: how many there may be at once.
    fn measure(&mut self, weights: u64, wanted: &Wanted) -> Result<()> {
        let a_pass = self.session.held()?.allocated.saturating_sub(weights) + self.room();
        self.holds = (weights, a_pass);
        if weights + a_pass > wanted.memory {
            let what = format!(
                "the model holds {}, and {} a pass, and {} are less",
                mebibytes(weights),
                mebibytes(a_pass),
                mebibytes(wanted.memory)
            );
            return Err(self.blame(Error::param("memory", what).help(MORE)));
        }
        if wanted.place == Place::Cpu {
            // A quarter more for each: passes that run at once free and take in another order than one alone.
            let at_once = (wanted.memory - weights) / (a_pass + a_pass / 4).max(1);
            self.turns = Turns::new(usize::try_from(at_once).unwrap_or(usize::MAX).min(MOST));
        }
        Ok(())
    }

    fn is_invariant(&self, tiles: &[&[u8]]) -> Result<bool> {
        let bits =
            |numbers: &[f32]| -> Vec<u32> { numbers.iter().map(|it| it.to_bits()).collect() };
        let alone = tiles
            .iter()
            .map(|tile| Ok(bits(&self.pass(&[tile])?[..self.width])))
            .collect::<Result<Vec<_>>>()?;
        let places = self.places();
        for turn in 0..tiles.len() {
            let order = |place: usize| (place + turn) % tiles.len();
            let pass: Vec<&[u8]> = (0..places).map(|place| tiles[order(place)]).collect();
            let given = self.pass(&pass)?;
            for (place, numbers) in given.chunks_exact(self.width).enumerate() {
                if bits(numbers) != alone[order(place)] {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// What to do about a parameter's fault: what the model takes and gives.
fn help(error: &Error, signature: &Signature) -> String {
    match error.what_to_do() {
        "" => format!("the model {signature}"),
        help => format!("{help}; the model {signature}"),
    }
}

fn choose<'s>(param: &str, tensors: &'s [Tensor], name: Option<&str>) -> Result<&'s Tensor> {
    let names = || {
        let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.join(", ")
    };
    match (name, tensors) {
        (Some(name), _) => tensors
            .iter()
            .find(|tensor| tensor.name == name)
            .ok_or_else(|| {
                Error::param(
                    param,
                    format!("the model has no {param} `{name}`: it has {}", names()),
                )
            }),
        (None, [one]) => Ok(one),
        (None, []) => Err(Error::param("model", format!("it has no {param}"))),
        (None, _) => Err(Error::param(
            param,
            format!("which {param} is it? The model has {}", names()),
        )),
    }
}

fn form(input: &Tensor, wanted: &Wanted) -> Result<Form> {
    let element = match input.element {
        Some(TensorElementType::Float32) => Element::F32,
        Some(TensorElementType::Float16) => Element::F16,
        Some(TensorElementType::Uint8) => Element::U8,
        _ => {
            return Err(Error::param(
                "input",
                format!("{input} takes no numbers of type f32, f16 or u8"),
            ));
        }
    };
    if element == Element::U8 {
        let given = [
            ("scale", wanted.scale.is_some()),
            ("mean", wanted.mean != [0.0; 3]),
            ("std", wanted.std != [1.0; 3]),
        ];
        if let Some((param, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(Error::param(
                param,
                "the model takes pixels as they are (u8), so nothing can be done to them before",
            ));
        }
    }
    Ok(Form::new(
        element,
        wanted.layout,
        wanted.channels,
        wanted.scale.unwrap_or(255.0),
        wanted.mean,
        wanted.std,
    ))
}

/// The input's dimensions of batch, channel, height and width.
fn dims(input: &Tensor, layout: Layout) -> Result<[&Dim; 4]> {
    let [batch, one, two, three] = &input.dims[..] else {
        return Err(Error::param(
            "input",
            format!("{input} has not the four dimensions of a batch of pixels"),
        ));
    };
    Ok(match layout {
        Layout::Nchw => [batch, one, two, three],
        Layout::Nhwc => [batch, three, one, two],
    })
}

fn batch(input: &Tensor, wanted: &Wanted) -> Result<u32> {
    match (dims(input, wanted.layout)?[0], wanted.batch) {
        (Dim::Open(_), asked) => Ok(asked.unwrap_or(1)),
        (Dim::Fixed(own), None) => u32::try_from(*own)
            .ok()
            .filter(|own| *own > 0)
            .ok_or_else(|| Error::param("model", format!("it takes batches of {own} tiles"))),
        (Dim::Fixed(own), Some(asked)) if *own == u64::from(asked) => Ok(asked),
        (Dim::Fixed(own), Some(asked)) => Err(Error::param(
            "batch",
            format!("the model takes batches of {own} tiles, and no others, not {asked}"),
        )
        .help("leave `batch` out")),
    }
}

fn check_size(input: &Tensor, wanted: &Wanted) -> Result<()> {
    let [_, channel, height, width] = dims(input, wanted.layout)?;
    if *channel != Dim::Fixed(3) && !matches!(channel, Dim::Open(_)) {
        let (is, other) = match wanted.layout {
            Layout::Nchw => ("nchw", "nhwc"),
            Layout::Nhwc => ("nhwc", "nchw"),
        };
        return Err(Error::param(
            "input-layout",
            format!("as {is}, {input} takes {channel} channels, and pixels have 3"),
        )
        .help(format!("where the 3 stands last it is \"nhwc\", where it stands second \"nchw\": try \"{other}\"")));
    }
    for extent in [height, width] {
        if let Dim::Fixed(extent) = extent
            && *extent != u64::from(wanted.size)
        {
            let what = match height == width {
                true => format!("the model takes tiles of {extent} px, not {}", wanted.size),
                false => format!(
                    "the model takes {height} x {width} px (height x width), and tiles are square"
                ),
            };
            return Err(Error::param("size", what));
        }
    }
    Ok(())
}

fn shape(wanted: &Wanted, batch: u32) -> [i64; 4] {
    let (batch, size) = (i64::from(batch), i64::from(wanted.size));
    match wanted.layout {
        Layout::Nchw => [batch, 3, size, size],
        Layout::Nhwc => [batch, size, size, 3],
    }
}

fn open_batch(signature: &Signature, input: &str) -> bool {
    signature
        .inputs
        .iter()
        .find(|tensor| tensor.name == input)
        .is_some_and(|tensor| matches!(tensor.dims.first(), Some(Dim::Open(_))))
}

/// Numbers of a tile in an output of this shape: of [n], [n, d], [n, d, 1, 1], [n, 1, d] and the like.
fn width(shape: &[u64], places: usize) -> std::result::Result<usize, String> {
    let Some((&rows, rest)) = shape.split_first() else {
        return Err("it has one number for the whole batch".to_owned());
    };
    if rows != places as u64 {
        return Err(format!(
            "its first dimension is not the batch's {places}; a row a tile is needed"
        ));
    }
    if rest.iter().filter(|extent| **extent > 1).count() > 1 {
        return Err(
            "a tile's part is a map, not one vector; export the model with its pooling, or name another output"
                .to_owned(),
        );
    }
    match rest.iter().product::<u64>() {
        0 => Err("it has no numbers".to_owned()),
        width => Ok(width as usize),
    }
}

/// A tile that differs in every byte, and from others: a Weyl sequence, so that no generator is needed.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_is_a_vector_wherever_its_numbers_stand() {
        for shape in [&[4, 7][..], &[4, 7, 1, 1], &[4, 1, 1, 7], &[4, 1, 7]] {
            assert_eq!(width(shape, 4), Ok(7), "{shape:?}");
        }
        assert_eq!(width(&[4], 4), Ok(1));
        assert_eq!(width(&[1, 1, 1, 1], 1), Ok(1));
        for shape in [&[][..], &[3, 7], &[4, 7, 2], &[4, 0]] {
            assert!(width(shape, 4).is_err(), "{shape:?}");
        }
    }
}
