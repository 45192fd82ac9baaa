//! Columns as bodies: which columns each kind of output has, how long they are, and what may stand in them.

use crate::about::About;
use std::ffi::c_void;
use std::sync::Arc;
use weir_abi::Str;
use weir_abi::column::{CPU, Column, Device, Dtype, WRITABLE};
use weir_pipeline::Kind;
use weir_record::{
    Attention, Bag, BagFlags, Body, Feature, Prediction, Scores, State, Table, TileBuf,
};

/// An output port, as the plan agreed on it.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub name: String,
    pub kind: Kind,
    /// Shape of a row.
    pub shape: Vec<u64>,
    /// Names of the classes of what predicts; their numbers where the stage has no parameter `classes`.
    pub classes: Vec<String>,
    /// What tables and bags name as their maker, as `stain.normalise/1`.
    pub format: String,
}

/// Of a kind of port: its columns, each with its type and how many numbers a row has.
fn layout(output: &Output) -> Vec<(&'static str, Dtype, Option<usize>)> {
    let number = |at: usize| output.shape.get(at).map_or(0, |&n| n as usize);
    let one = |name| (name, Dtype::F32, None);
    match output.kind {
        Kind::Scores => vec![one("score"), ("probabilities", Dtype::F32, Some(number(2)))],
        Kind::Picks => vec![one("score")],
        Kind::Attention => vec![
            one("logit"),
            one("weight"),
            one("contribution"),
            one("without"),
        ],
        Kind::Bag => vec![
            ("pooled", Dtype::F32, Some(number(0))),
            one("effective"),
            one("entropy"),
            ("members", Dtype::U64, None),
            ("flags", Dtype::U32, None),
        ],
        Kind::Predictions => vec![
            ("logits", Dtype::F32, Some(number(0))),
            ("probabilities", Dtype::F32, Some(number(0))),
            ("class", Dtype::I32, None),
        ],
        Kind::Pixels | Kind::Features | Kind::Table => Vec::new(),
    }
}

/// Bytes of a row of this shape; `None` where that is no number, or the shape says -1.
pub(crate) fn row_bytes(dtype: Dtype, shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(dtype.bytes(), |bytes, &side| {
        bytes.checked_mul(usize::try_from(side).ok()?)
    })
}

/// A column of what a plugin makes: name, type, shape of a row.
pub(crate) type Form = (&'static str, Dtype, Vec<i64>);

/// The columns of what a plugin makes for an output.
pub(crate) fn made(output: &Output) -> Result<Vec<Form>, String> {
    let side = |at: usize| output.shape.get(at).map_or(0, |&n| n as i64);
    Ok(match output.kind {
        Kind::Table => {
            return Err(format!(
                "output `{}` carries tables, which are made in another way",
                output.name
            ));
        }
        Kind::Pixels => vec![("pixels", Dtype::U8, vec![side(0), side(1), 3])],
        Kind::Features => vec![("features", Dtype::F32, vec![side(0)])],
        _ => layout(output)
            .into_iter()
            .map(|(name, dtype, width)| {
                (
                    name,
                    dtype,
                    width.map(|width| width as i64).into_iter().collect(),
                )
            })
            .collect(),
    })
}

/// A column's memory outside of its rows' own.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    dtype: Dtype,
    pub rows: Vec<*mut c_void>,
    shape: Vec<i64>,
    pub lengths: Vec<u64>,
    writable: bool,
}

impl Part {
    pub fn new(name: &'static str, dtype: Dtype, shape: Vec<i64>, rows: Vec<*mut c_void>) -> Part {
        Part {
            name,
            dtype,
            rows,
            shape,
            lengths: Vec::new(),
            writable: false,
        }
    }

    pub fn writable(mut self) -> Part {
        self.writable = true;
        self
    }

    /// Bytes from each row to the next where they are all alike, else 0.
    #[inline]
    pub fn pitch(&self) -> i64 {
        pitch(&self.rows)
    }

    /// As a plugin sees it, as long as this lives unmoved in its vectors.
    pub fn column(&self) -> Column {
        Column {
            name: Str::new(self.name),
            rows: self.rows.as_ptr(),
            shape: self.shape.as_ptr(),
            strides: std::ptr::null(),
            lengths: match self.lengths.is_empty() {
                true => std::ptr::null(),
                false => self.lengths.as_ptr(),
            },
            pitch: self.pitch(),
            device: Device { kind: CPU, id: 0 },
            dtype: self.dtype,
            ndim: self.shape.len() as i32,
            flags: if self.writable { WRITABLE } else { 0 },
            reserved: 0,
        }
    }
}

/// Columns of a batch, filled again and again: their vectors keep their room.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    all: Vec<Part>,
    used: usize,
}

impl Parts {
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The next column, without rows.
    pub fn next(&mut self, name: &'static str, dtype: Dtype, shape: &[i64]) -> &mut Part {
        if self.used == self.all.len() {
            self.all
                .push(Part::new(name, dtype, Vec::new(), Vec::new()));
        }
        let part = &mut self.all[self.used];
        self.used += 1;
        (part.name, part.dtype, part.writable) = (name, dtype, false);
        part.rows.clear();
        part.lengths.clear();
        part.shape.clear();
        part.shape.extend(shape);
        part
    }

    pub fn used(&self) -> &[Part] {
        &self.all[..self.used]
    }
}

impl From<Vec<Part>> for Parts {
    fn from(all: Vec<Part>) -> Parts {
        let used = all.len();
        Parts { all, used }
    }
}

#[inline]
fn pitch(rows: &[*mut c_void]) -> i64 {
    let (Some(&first), Some(&second)) = (rows.first(), rows.get(1)) else {
        return 0;
    };
    let step = (second as i64).wrapping_sub(first as i64);
    let alike = rows
        .windows(2)
        .all(|pair| (pair[1] as i64).wrapping_sub(pair[0] as i64) == step);
    if alike { step } else { 0 }
}

/// What a plugin fills: memory of the host's, until it is emitted.
#[derive(Debug)]
pub(crate) enum Draft {
    Pixels(Vec<Arc<TileBuf>>),
    /// A vector a row.
    Features(Vec<Vec<f32>>),
    /// The kind's columns in their order.
    Numbers(Vec<Storage>),
}

/// A column of numbers, the rows side by side.
#[derive(Debug)]
pub(crate) enum Storage {
    F32 { per: usize, data: Vec<f32> },
    I32(Vec<i32>),
    U32(Vec<u32>),
    U64(Vec<u64>),
}

impl Storage {
    fn rows(&mut self, n: usize) -> Vec<*mut c_void> {
        fn each<T>(data: &mut [T], per: usize, n: usize) -> Vec<*mut c_void> {
            let start = data.as_mut_ptr();
            (0..n).map(|i| start.wrapping_add(i * per).cast()).collect()
        }
        match self {
            Storage::F32 { per, data } => each(data, *per, n),
            Storage::I32(data) => each(data, 1, n),
            Storage::U32(data) => each(data, 1, n),
            Storage::U64(data) => each(data, 1, n),
        }
    }

    fn f32(&self, row: usize) -> &[f32] {
        match self {
            Storage::F32 { per, data } => &data[row * per..(row + 1) * per],
            _ => &[],
        }
    }

    fn whole(&self, row: usize) -> i64 {
        match self {
            Storage::F32 { .. } => 0,
            Storage::I32(data) => data[row].into(),
            Storage::U32(data) => data[row].into(),
            Storage::U64(data) => data[row] as i64,
        }
    }
}

impl Draft {
    /// Memory for `n` rows of tiles that were made, as columns that a plugin may write.
    pub fn pixels(mut tiles: Vec<Arc<TileBuf>>) -> (Draft, Vec<Part>) {
        let shape = tiles.first().map_or([0, 0], |tile| {
            [i64::from(tile.height()), i64::from(tile.width())]
        });
        let rows = tiles
            .iter_mut()
            .map(|tile| match Arc::get_mut(tile) {
                Some(tile) => tile.pixels_mut().as_mut_ptr().cast(),
                // Nobody else has a tile that was made for this.
                None => std::ptr::null_mut(),
            })
            .collect();
        let part = Part::new("pixels", Dtype::U8, vec![shape[0], shape[1], 3], rows).writable();
        (Draft::Pixels(tiles), vec![part])
    }

    /// Memory for `n` rows of anything else.
    pub fn new(output: &Output, n: usize) -> Result<(Draft, Vec<Part>), String> {
        match output.kind {
            Kind::Pixels | Kind::Table => Err(format!(
                "output `{}` carries {}, which are made in another way",
                output.name,
                output.kind.name()
            )),
            Kind::Features => {
                let d = output.shape.first().map_or(0, |&d| d as usize);
                let mut rows: Vec<Vec<f32>> = (0..n).map(|_| vec![0.0; d]).collect();
                let pointers = rows.iter_mut().map(|row| row.as_mut_ptr().cast()).collect();
                let part = Part::new("features", Dtype::F32, vec![d as i64], pointers).writable();
                Ok((Draft::Features(rows), vec![part]))
            }
            _ => {
                let mut all = Vec::new();
                let mut parts = Vec::new();
                for (name, dtype, width) in layout(output) {
                    let mut storage = match dtype {
                        Dtype::I32 => Storage::I32(vec![0; n]),
                        Dtype::U32 => Storage::U32(vec![0; n]),
                        Dtype::U64 => Storage::U64(vec![0; n]),
                        _ => {
                            let per = width.unwrap_or(1);
                            Storage::F32 {
                                per,
                                data: vec![0.0; n * per],
                            }
                        }
                    };
                    let shape = width.map(|width| width as i64).into_iter().collect();
                    parts.push(Part::new(name, dtype, shape, storage.rows(n)).writable());
                    all.push(storage);
                }
                Ok((Draft::Numbers(all), parts))
            }
        }
    }

    /// The bodies of its rows, in order; of each that cannot be, why not. Vectors move into their bodies, so that their memory stays
    /// where it was.
    pub fn bodies(&mut self, output: &Output, abouts: &[About]) -> Vec<Result<Body, String>> {
        match self {
            Draft::Pixels(tiles) => tiles
                .iter()
                .map(|tile| Ok(Body::Pixels(tile.clone())))
                .collect(),
            Draft::Features(rows) => rows
                .iter_mut()
                .map(|row| {
                    finite("features", row)?;
                    Ok(Body::Feature(Arc::new(Feature::new(
                        std::mem::take(row),
                        None,
                    ))))
                })
                .collect(),
            Draft::Numbers(columns) => abouts
                .iter()
                .enumerate()
                .map(|(row, about)| body(output, columns, row, about))
                .collect(),
        }
    }
}

fn finite(what: &str, numbers: &[f32]) -> Result<(), String> {
    match numbers.iter().position(|number| !number.is_finite()) {
        None => Ok(()),
        Some(at) => Err(format!(
            "number {at} of its {what} is {}, and every number must be finite",
            numbers[at]
        )),
    }
}

fn body(output: &Output, columns: &[Storage], row: usize, about: &About) -> Result<Body, String> {
    let of = |column: usize| columns[column].f32(row);
    for (column, (name, ..)) in layout(output).into_iter().enumerate() {
        finite(name, of(column))?;
    }
    let first = |column: usize| of(column).first().copied().unwrap_or(0.0);
    Ok(match output.kind {
        Kind::Scores => Body::Score(Arc::new(Scores {
            score: first(0),
            probabilities: of(1).to_vec(),
        })),
        Kind::Picks => Body::Picked {
            source_rev: about.source_rev,
            score: first(0),
        },
        Kind::Attention => Body::Attention(Arc::new(Attention {
            logit: first(0),
            weight: first(1),
            contribution: first(2),
            leave_one_out: first(3),
            class: 0,
        })),
        Kind::Bag => {
            let flags = u8::try_from(columns[4].whole(row))
                .ok()
                .filter(|flags| flags >> 4 == 0)
                .ok_or("its flags are none of a bag's")?;
            let n = columns[3].whole(row) as u64;
            Body::Bag(Arc::new(Bag {
                n,
                flags: BagFlags(flags),
                pooled: if n == 0 { Vec::new() } else { of(0).to_vec() },
                effective: first(1),
                entropy: first(2),
                exact: None,
                contract: output.format.clone(),
                coverage: about.coverage.clone(),
                selection: about.through,
                ended: about.end,
                state: about.state.unwrap_or(State::Provisional),
            }))
        }
        Kind::Predictions => {
            let class = match columns[2].whole(row) {
                -1 => None,
                class => Some(
                    u32::try_from(class)
                        .ok()
                        .filter(|&class| (class as usize) < of(0).len())
                        .ok_or_else(|| {
                            format!("its class is {class}, and it has {} classes", of(0).len())
                        })?,
                ),
            };
            let bag = about.bag.clone().unwrap_or_else(|| Bag {
                n: 0,
                flags: BagFlags::default(),
                pooled: Vec::new(),
                effective: 0.0,
                entropy: 0.0,
                exact: None,
                contract: output.format.clone(),
                coverage: about.coverage.clone(),
                selection: about.through,
                ended: about.end,
                state: about.state.unwrap_or(State::Provisional),
            });
            let state = bag.state;
            // What failed or has no tissue has no class, whatever a plugin makes of nothing.
            let classless = matches!(state, State::Failed | State::Interrupted | State::NoTissue);
            let some = |numbers: &[f32]| match classless {
                true => Vec::new(),
                false => numbers.to_vec(),
            };
            Body::Prediction(Arc::new(Prediction {
                revision: about.revision,
                state,
                classes: output.classes.clone(),
                class: class.filter(|_| !classless),
                logits: some(of(0)),
                probabilities: some(of(1)),
                bag,
            }))
        }
        Kind::Pixels | Kind::Features | Kind::Table => {
            return Err("it is made in another way".into());
        }
    })
}

/// A row of a table port.
pub(crate) fn table(output: &Output, bytes: &[u8]) -> Result<Body, String> {
    if output.kind != Kind::Table {
        return Err(format!(
            "output `{}` carries {}, not tables",
            output.name,
            output.kind.name()
        ));
    }
    Ok(Body::Ext(Arc::new(Table {
        format: output.format.clone(),
        bytes: bytes.to_vec(),
    })))
}

/// Whether a body may flow through an output as it is: it is of the kind and of the shape.
#[inline]
pub(crate) fn fits(output: &Output, body: &Body) -> bool {
    let is = |at: usize, n: usize| output.shape.get(at) == Some(&(n as u64));
    match (output.kind, body) {
        (Kind::Pixels, Body::Pixels(tile)) => {
            is(0, tile.height() as usize) && is(1, tile.width() as usize)
        }
        (Kind::Scores, Body::Score(scores)) => is(2, scores.probabilities.len()),
        (Kind::Features, Body::Feature(feature)) => is(0, feature.len()),
        // Of an empty bag there is no vector.
        (Kind::Bag, Body::Bag(bag)) => bag.pooled.is_empty() || is(0, bag.pooled.len()),
        (Kind::Predictions, Body::Prediction(prediction)) => is(0, prediction.classes.len()),
        (Kind::Picks, Body::Picked { .. })
        | (Kind::Attention, Body::Attention(_))
        | (Kind::Table, Body::Ext(_)) => true,
        _ => false,
    }
}
