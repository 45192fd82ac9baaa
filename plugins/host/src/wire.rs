//! Numbers and texts as bytes, for what two processes of the same build tell each other.
//!
//! Whoever reads trusts nothing: every length is held against what is there before anything is made of it.

/// Bytes that end too early, or say what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbage(pub &'static str);

/// Writes.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    pub fn u32(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    pub fn i32(&mut self, number: i32) {
        self.0.extend(number.to_le_bytes());
    }

    pub fn u64(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub fn i64(&mut self, number: i64) {
        self.0.extend(number.to_le_bytes());
    }

    pub fn f64(&mut self, number: f64) {
        self.0.extend(number.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A list: its length, then each.
    pub fn list<T>(&mut self, list: &[T], mut each: impl FnMut(&mut Writer, &T)) {
        self.u32(list.len() as u32);
        for item in list {
            each(self, item);
        }
    }
}

/// Reads what a [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Garbage> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Garbage("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let mut own = [0; N];
        own.copy_from_slice(self.take(N)?);
        Ok(own)
    }

    pub fn u8(&mut self) -> Result<u8, Garbage> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Garbage> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Garbage> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Garbage> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Garbage> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Result<f64, Garbage> {
        self.array().map(f64::from_le_bytes)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Garbage> {
        let n = usize::try_from(self.u64()?).map_err(|_| Garbage("a text without end"))?;
        self.take(n)
    }

    pub fn text(&mut self) -> Result<String, Garbage> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    /// A list whose items have at least `least` bytes each.
    pub fn list<T>(
        &mut self,
        least: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, Garbage>,
    ) -> Result<Vec<T>, Garbage> {
        let n = self.u32()? as usize;
        if n.checked_mul(least.max(1))
            .is_none_or(|bytes| bytes > self.0.len())
        {
            return Err(Garbage("a list that is longer than what it stands in"));
        }
        (0..n).map(|_| each(self)).collect()
    }

    /// That nothing is left.
    pub fn end(&self) -> Result<(), Garbage> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Garbage("something follows its end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_written_is_read() {
        let mut out = Writer::default();
        out.u8(3);
        out.i32(-7);
        out.f64(0.1);
        out.text("größer");
        out.list(&[1u64, 2], |out, &n| out.u64(n));
        let mut back = Reader(&out.0);
        assert_eq!(
            (
                back.u8(),
                back.i32(),
                back.f64(),
                back.text(),
                back.list(8, Reader::u64)
            ),
            (Ok(3), Ok(-7), Ok(0.1), Ok("größer".into()), Ok(vec![1, 2]))
        );
        assert_eq!(back.end(), Ok(()));
    }

    proptest! {
        #[test]
        fn a_list_never_takes_more_memory_than_it_came_in(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let read = Reader(&bytes).list(8, Reader::u64);
            prop_assert!(read.is_err() || read.is_ok_and(|list| list.len() * 8 <= bytes.len()));
        }
    }
}
