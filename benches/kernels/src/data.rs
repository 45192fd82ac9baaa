//! Arrays of the host with their type, filled at random or poisoned, and what a view of them is.

use crate::Fault;
use half::{bf16, f16};
use weir_kernels::{Dtype, KernelError, View, ViewMut};

/// An array of the host.
#[derive(Clone, Debug)]
pub enum Array {
    /// f32
    F32(Vec<f32>),
    /// f16
    F16(Vec<f16>),
    /// bf16
    Bf16(Vec<bf16>),
    /// u8
    U8(Vec<u8>),
    /// u32
    U32(Vec<u32>),
    /// i32
    I32(Vec<i32>),
}

/// Runs `$body` with `$data` bound to the vector, whatever its type.
macro_rules! each {
    ($array:expr, $data:ident => $body:expr) => {
        match $array {
            Array::F32($data) => $body,
            Array::F16($data) => $body,
            Array::Bf16($data) => $body,
            Array::U8($data) => $body,
            Array::U32($data) => $body,
            Array::I32($data) => $body,
        }
    };
}

impl Array {
    /// `len` elements of poison, so that an element that nobody wrote shows.
    pub fn poisoned(dtype: Dtype, len: usize) -> Array {
        let mut array = match dtype {
            Dtype::F32 => Array::F32(vec![0.0; len]),
            Dtype::F16 => Array::F16(vec![f16::ZERO; len]),
            Dtype::Bf16 => Array::Bf16(vec![bf16::ZERO; len]),
            Dtype::U8 => Array::U8(vec![0; len]),
            Dtype::U32 => Array::U32(vec![0; len]),
            Dtype::I32 => Array::I32(vec![0; len]),
        };
        array.poison();
        array
    }

    /// NaN in every float, a number that no kernel gives in every integer.
    pub fn poison(&mut self) {
        match self {
            Array::F32(data) => data.fill(f32::from_bits(0xffff_ffff)),
            Array::F16(data) => data.fill(f16::from_bits(0xffff)),
            Array::Bf16(data) => data.fill(bf16::from_bits(0xffff)),
            Array::U8(data) => data.fill(0xa5),
            Array::U32(data) => data.fill(0xa5a5_a5a5),
            Array::I32(data) => data.fill(i32::MIN),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, data => data.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        match self {
            Array::F32(_) => Dtype::F32,
            Array::F16(_) => Dtype::F16,
            Array::Bf16(_) => Dtype::Bf16,
            Array::U8(_) => Dtype::U8,
            Array::U32(_) => Dtype::U32,
            Array::I32(_) => Dtype::I32,
        }
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().bytes()
    }

    /// To read.
    pub fn view<const N: usize>(&self, shape: [usize; N]) -> Result<View<'_, N>, KernelError> {
        each!(self, data => View::new(data, shape))
    }

    /// To write.
    pub fn view_mut<const N: usize>(
        &mut self,
        shape: [usize; N],
    ) -> Result<ViewMut<'_, N>, KernelError> {
        each!(self, data => ViewMut::new(data, shape))
    }

    /// Elements `from..to`.
    pub fn part(&self, from: usize, to: usize) -> Array {
        match self {
            Array::F32(data) => Array::F32(data[from..to].to_vec()),
            Array::F16(data) => Array::F16(data[from..to].to_vec()),
            Array::Bf16(data) => Array::Bf16(data[from..to].to_vec()),
            Array::U8(data) => Array::U8(data[from..to].to_vec()),
            Array::U32(data) => Array::U32(data[from..to].to_vec()),
            Array::I32(data) => Array::I32(data[from..to].to_vec()),
        }
    }

    /// Element `at` in f64.
    pub fn at(&self, at: usize) -> f64 {
        match self {
            Array::F32(data) => f64::from(data[at]),
            Array::F16(data) => data[at].to_f64(),
            Array::Bf16(data) => data[at].to_f64(),
            Array::U8(data) => f64::from(data[at]),
            Array::U32(data) => f64::from(data[at]),
            Array::I32(data) => f64::from(data[at]),
        }
    }

    /// Place of the first element whose bits differ; `None`: the same bits.
    pub fn differs(&self, other: &Array) -> Option<usize> {
        fn first<T: Copy, B: PartialEq>(a: &[T], b: &[T], bits: fn(T) -> B) -> Option<usize> {
            a.iter()
                .zip(b)
                .position(|(a, b)| bits(*a) != bits(*b))
                .or((a.len() != b.len()).then(|| a.len().min(b.len())))
        }
        match (self, other) {
            (Array::F32(a), Array::F32(b)) => first(a, b, f32::to_bits),
            (Array::F16(a), Array::F16(b)) => first(a, b, f16::to_bits),
            (Array::Bf16(a), Array::Bf16(b)) => first(a, b, bf16::to_bits),
            (Array::U8(a), Array::U8(b)) => first(a, b, |x| x),
            (Array::U32(a), Array::U32(b)) => first(a, b, |x| x),
            (Array::I32(a), Array::I32(b)) => first(a, b, |x| x),
            _ => Some(0),
        }
    }

    /// The f32s.
    pub fn floats(&self) -> Result<&[f32], Fault> {
        match self {
            Array::F32(data) => Ok(data),
            other => Err(Fault::internal(format!(
                "an array of {} was taken for f32",
                other.dtype()
            ))),
        }
    }
}

/// Splitmix64: fast, and every seed gives another sequence.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform between -1 and 1.
    #[inline]
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (2.0 / 16_777_216.0) - 1.0
    }

    /// `len` numbers between -`range` and `range`.
    pub fn array(&mut self, dtype: Dtype, len: usize, range: f32) -> Array {
        let mut next = || self.unit() * range;
        match dtype {
            Dtype::F16 => Array::F16((0..len).map(|_| f16::from_f32(next())).collect()),
            Dtype::Bf16 => Array::Bf16((0..len).map(|_| bf16::from_f32(next())).collect()),
            Dtype::U8 => Array::U8((0..len).map(|_| (self.bits() >> 56) as u8).collect()),
            _ => Array::F32((0..len).map(|_| next()).collect()),
        }
    }
}
