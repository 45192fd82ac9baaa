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

    /// A list: its length, then each as an [`item`](Writer::item).
    pub fn list<const ROOM: usize, T>(
        &mut self,
        list: &[T],
        mut each: impl FnMut(&mut Writer, &T),
    ) {
        self.u32(list.len() as u32);
        for item in list {
            self.item::<ROOM>(|out| each(out, item));
        }
    }

    /// An item of a list, with as much room as it takes in memory where it is read, however few bytes say it.
    pub fn item<const ROOM: usize>(&mut self, write: impl FnOnce(&mut Writer)) {
        let least = self.0.len() + ROOM;
        write(self);
        self.0.resize(self.0.len().max(least), 0);
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

    /// A list whose items had at least `ROOM` bytes each, which is what one takes in memory: so it takes no more than it came in.
    pub fn list<const ROOM: usize, T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Garbage>,
    ) -> Result<Vec<T>, Garbage> {
        const { assert!(ROOM > 0 && size_of::<T>() <= ROOM) };
        let n = self.u32()? as usize;
        if n.checked_mul(ROOM).is_none_or(|bytes| bytes > self.0.len()) {
            return Err(Garbage("a list that is longer than what it stands in"));
        }
        let mut all = Vec::with_capacity(n);
        for _ in 0..n {
            let before = self.0.len();
            all.push(each(self)?);
            let took = before - self.0.len();
            self.take(ROOM.saturating_sub(took))?;
        }
        Ok(all)
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
        out.list::<8, _>(&[1u64, 2], |out, &n| out.u64(n));
        out.list::<24, _>(&["a", "bc"], |out, text| out.text(text));
        let mut back = Reader(&out.0);
        assert_eq!(
            (
                back.u8(),
                back.i32(),
                back.f64(),
                back.text(),
                back.list::<8, _>(Reader::u64),
                back.list::<24, _>(Reader::text)
            ),
            (
                Ok(3),
                Ok(-7),
                Ok(0.1),
                Ok("größer".into()),
                Ok(vec![1, 2]),
                Ok(vec!["a".into(), "bc".into()])
            )
        );
        assert_eq!(back.end(), Ok(()));
    }

    /// Bytes of the vector that a list became.
    fn taken<T>(list: &Vec<T>) -> usize {
        list.capacity() * size_of::<T>()
    }

    proptest! {
        /// Of every type: what would take more than its room is not built.
        #[test]
        fn a_list_never_takes_more_memory_than_it_came_in(n in 0u32..6, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&n.to_le_bytes()[..], &bytes].concat();
            let all = [
                Reader(&bytes).list::<4, _>(Reader::u32).map(|list| taken(&list)),
                Reader(&bytes).list::<8, _>(Reader::u64).map(|list| taken(&list)),
                Reader(&bytes).list::<1, _>(Reader::u8).map(|list| taken(&list)),
                Reader(&bytes).list::<24, _>(Reader::text).map(|list| taken(&list)),
                Reader(&bytes).list::<48, _>(|from| Ok((from.text()?, from.text()?))).map(|list| taken(&list)),
                Reader(&bytes).list::<24, _>(|from| from.list::<16, _>(|from| Ok((from.u8()?, from.u64()?)))).map(|list| taken(&list)),
            ];
            for taken in all.into_iter().flatten() {
                prop_assert!(taken <= bytes.len(), "{taken} of {}", bytes.len());
            }
        }
    }
}
