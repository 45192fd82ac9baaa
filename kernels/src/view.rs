//! What a kernel is given: a typed, strided window on memory of the host or of a device.

use crate::error::{Cause, KernelError};
use half::{bf16, f16};
use std::fmt;
use std::marker::PhantomData;

/// Type of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// A byte.
    U8,
    /// 32 bits without sign.
    U32,
    /// 32 bits with sign.
    I32,
}

impl Dtype {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F32 | Dtype::U32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::U8 => 1,
        }
    }

    /// As numpy and safetensors' readers call it.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::U8 => "u8",
            Dtype::U32 => "u32",
            Dtype::I32 => "i32",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type with a [`Dtype`]: any bit pattern is a value of it, and it has no padding.
pub trait Element: Copy + Default + fmt::Debug + Send + Sync + 'static + sealed::Sealed {
    /// Which.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}
elements!(f32 => F32, f16 => F16, bf16 => Bf16, u8 => U8, u32 => U32, i32 => I32);

/// Where memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The processor's memory.
    Host,
    /// The CUDA device of that number.
    Cuda(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Host => f.write_str("host"),
            Place::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// What a view is apart from its right to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout<const N: usize> {
    /// Address of the first element, in the address space of `place`.
    pub address: u64,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Elements along each axis.
    pub shape: [usize; N],
    /// Elements from one place of an axis to the next.
    pub strides: [usize; N],
    /// Where the memory lies.
    pub place: Place,
}

impl<const N: usize> Layout<N> {
    fn of_slice<T: Element>(
        data: &[T],
        shape: [usize; N],
        strides: [usize; N],
    ) -> Result<Self, KernelError> {
        let layout = Layout {
            address: data.as_ptr() as u64,
            dtype: T::DTYPE,
            shape,
            strides,
            place: Place::Host,
        };
        match layout.span() {
            Some(span) if span <= data.len() => Ok(layout),
            span => Err(KernelError {
                kernel: "view",
                shape: format!("{shape:?} {}", T::DTYPE),
                cause: Cause::Shape {
                    argument: "data",
                    expected: match span {
                        Some(span) => format!("at least {span} elements"),
                        None => "no more elements than memory has addresses".into(),
                    },
                    got: format!("{}", data.len()),
                },
            }),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Elements from the first to the last, both counted; `None` when that is more than memory has addresses.
    pub fn span(&self) -> Option<usize> {
        if self.is_empty() {
            return Some(0);
        }
        let mut last = 0usize;
        for (&n, &stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add((n - 1).checked_mul(stride)?)?;
        }
        last.checked_add(1)
            .filter(|span| span.checked_mul(4).is_some())
    }

    /// Whether the processor can read it where it lies.
    pub fn on_host(&self) -> bool {
        self.place == Place::Host
    }

    /// Whether the elements lie in order without a gap.
    pub fn contiguous(&self) -> bool {
        self.is_empty() || self.strides == dense(self.shape)
    }

    /// Whether every element lies at a multiple of its size.
    pub fn aligned(&self) -> bool {
        self.is_empty() || self.address.is_multiple_of(self.dtype.bytes() as u64)
    }

    /// Whether no element stands for two places: along the axes by ascending stride, each step passes all before.
    pub fn apart(&self) -> bool {
        let mut axes: [(usize, usize); N] =
            std::array::from_fn(|axis| (self.strides[axis], self.shape[axis]));
        axes.sort_unstable();
        let mut reach = 0usize;
        self.is_empty()
            || axes.into_iter().filter(|&(_, n)| n > 1).all(|(stride, n)| {
                let passes = stride > reach;
                reach = reach.saturating_add(stride.saturating_mul(n - 1));
                passes
            })
    }
}

/// Strides of an array without gaps.
pub fn dense<const N: usize>(shape: [usize; N]) -> [usize; N] {
    let mut strides = [1; N];
    for axis in (0..N.saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// A window to read.
#[derive(Clone, Copy)]
pub struct View<'a, const N: usize> {
    layout: Layout<N>,
    memory: PhantomData<&'a [u8]>,
}

/// A window to write.
pub struct ViewMut<'a, const N: usize> {
    layout: Layout<N>,
    memory: PhantomData<&'a mut [u8]>,
}

impl<const N: usize> fmt::Debug for View<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<const N: usize> fmt::Display for View<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.layout.dtype, self.layout.shape)
    }
}

impl<const N: usize> fmt::Debug for ViewMut<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_view())
    }
}

impl<'a, const N: usize> View<'a, N> {
    /// The whole of `data`, in order and without gaps. An error when it has fewer elements than `shape` says.
    pub fn new<T: Element>(data: &'a [T], shape: [usize; N]) -> Result<Self, KernelError> {
        Self::strided(data, shape, dense(shape))
    }

    /// A window on `data`, `strides` in elements.
    pub fn strided<T: Element>(
        data: &'a [T],
        shape: [usize; N],
        strides: [usize; N],
    ) -> Result<Self, KernelError> {
        Ok(View {
            layout: Layout::of_slice(data, shape, strides)?,
            memory: PhantomData,
        })
    }

    /// Memory that is not Rust's to check: a tensor of another library, a device's buffer.
    ///
    /// # Safety
    /// For `'a` the layout's elements are initialised, lie in `layout.place`, and nobody writes them. On a device that holds
    /// until the work that a stream was given with it is done, which may be after the call that gave it.
    pub unsafe fn foreign(layout: Layout<N>) -> Self {
        View {
            layout,
            memory: PhantomData,
        }
    }

    /// What it is.
    pub fn layout(&self) -> &Layout<N> {
        &self.layout
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// Elements along each axis.
    pub fn shape(&self) -> [usize; N] {
        self.layout.shape
    }

    /// The elements, when they lie on the host, in order, without gaps and are of this type.
    pub fn slice<T: Element>(&self) -> Option<&'a [T]> {
        let fits = self.layout.place == Place::Host
            && self.layout.dtype == T::DTYPE
            && self.layout.contiguous();
        // SAFETY: the constructor's layout holds for 'a, it lies on the host, and its elements are these.
        fits.then(|| unsafe { slice(self.layout.address, self.layout.len()) })
    }
}

impl<'a> View<'a, 2> {
    /// Row `row`, when the view lies on the host, is of this type, and the elements of a row lie side by side.
    pub fn row<T: Element>(&self, row: usize) -> Option<&'a [T]> {
        let layout = &self.layout;
        let fits = layout.place == Place::Host
            && layout.dtype == T::DTYPE
            && (layout.strides[1] == 1 || layout.shape[1] <= 1)
            && row < layout.shape[0];
        let address = layout.address + (row * layout.strides[0] * size_of::<T>()) as u64;
        // SAFETY: the row lies inside the layout, which holds for 'a.
        fits.then(|| unsafe { slice(address, layout.shape[1]) })
    }
}

/// # Safety
/// As `std::slice::from_raw_parts`, for an address that may be anything when `len` is 0.
unsafe fn slice<'a, T: Element>(address: u64, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(address as *const T, len) }
}

impl<'a, const N: usize> ViewMut<'a, N> {
    /// The whole of `data`, in order and without gaps. An error when it has fewer elements than `shape` says.
    pub fn new<T: Element>(data: &'a mut [T], shape: [usize; N]) -> Result<Self, KernelError> {
        Self::strided(data, shape, dense(shape))
    }

    /// A window on `data`, `strides` in elements. Kernels refuse one in which two places are one element.
    pub fn strided<T: Element>(
        data: &'a mut [T],
        shape: [usize; N],
        strides: [usize; N],
    ) -> Result<Self, KernelError> {
        let layout = Layout::of_slice(data, shape, strides)?;
        Ok(ViewMut {
            layout: Layout {
                // Not the address that a shared borrow gave: writing through that would be undefined, and the compiler
                // does take values from before it.
                address: data.as_mut_ptr() as u64,
                ..layout
            },
            memory: PhantomData,
        })
    }

    /// Memory that is not Rust's to check.
    ///
    /// # Safety
    /// For `'a` the layout's elements lie in `layout.place`, no two of its places are one element, and nobody else reads
    /// or writes them; on a device until the work that a stream was given with it is done.
    pub unsafe fn foreign(layout: Layout<N>) -> Self {
        ViewMut {
            layout,
            memory: PhantomData,
        }
    }

    /// What it is.
    pub fn layout(&self) -> &Layout<N> {
        &self.layout
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// Elements along each axis.
    pub fn shape(&self) -> [usize; N] {
        self.layout.shape
    }

    /// The same to read.
    pub fn as_view(&self) -> View<'_, N> {
        View {
            layout: self.layout,
            memory: PhantomData,
        }
    }

    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, N> {
        ViewMut {
            layout: self.layout,
            memory: PhantomData,
        }
    }

    /// The elements, when they lie on the host, in order, without gaps and are of this type.
    pub fn slice<T: Element>(&mut self) -> Option<&mut [T]> {
        let fits = self.layout.place == Place::Host
            && self.layout.dtype == T::DTYPE
            && self.layout.contiguous();
        if !fits {
            return None;
        }
        if self.layout.is_empty() {
            return Some(&mut []);
        }
        // SAFETY: the constructor's layout holds while `self` is borrowed, and it is borrowed exclusively.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.layout.address as *mut T, self.layout.len())
        })
    }
}

impl ViewMut<'_, 2> {
    /// The rows from the first on, when the view lies on the host, is of this type, the elements of a row lie side by side,
    /// and no two rows share one.
    pub fn rows<T: Element>(&mut self) -> Option<impl Iterator<Item = &mut [T]>> {
        let layout = self.layout;
        let fits = layout.place == Place::Host
            && layout.dtype == T::DTYPE
            && (layout.strides[1] == 1 || layout.shape[1] <= 1)
            && layout.apart();
        let row = move |row: usize| {
            if layout.shape[1] == 0 {
                return &mut [][..];
            }
            let address = layout.address + (row * layout.strides[0] * size_of::<T>()) as u64;
            // SAFETY: the row lies inside the layout, which holds while `self` is borrowed, exclusively, and no two places
            // of it are one element, as was just seen, so that no two rows overlap.
            unsafe { std::slice::from_raw_parts_mut(address as *mut T, layout.shape[1]) }
        };
        fits.then(|| (0..layout.shape[0]).map(row))
    }
}
