//! Compiled code on disk: one file an image, named by the hash of all that made it.
//!
//! A file begins with the hash of what follows, so that a damaged one is seen and made anew. It is written under another
//! name and then renamed, so that two programs at once, or one that is killed, leave a whole file or none.

use super::sources::hex;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a file begins with.
const MARK: &[u8] = b"weir compiled kernel 1\n";

/// The folder of compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The folder that WEIR_CACHE names (an empty value means none), else `weir` in XDG_CACHE_HOME or `~/.cache`; with
    /// `kernels` in it.
    pub fn find() -> Option<Cache> {
        Cache::of(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn of(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Cache> {
        let folder = match variable("WEIR_CACHE") {
            Some(folder) => folder,
            // A relative XDG_CACHE_HOME is to be ignored, by its specification.
            None => variable("XDG_CACHE_HOME")
                .filter(|folder| folder.is_absolute())
                .or_else(|| Some(variable("HOME")?.join(".cache")))?
                .join("weir"),
        };
        let named = !folder.as_os_str().is_empty();
        named.then(|| Cache::at(folder.join("kernels")))
    }

    /// That folder; it is made when something is written.
    pub fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache {
            folder: folder.into(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of what is made of all these.
    pub fn key(parts: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hex(&hash.finalize())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.cubin"))
    }

    /// The image of that key, or why there is none; a damaged file counts as none.
    pub fn read(&self, key: &str) -> Result<Vec<u8>, String> {
        let path = self.path(key);
        let file = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("not in {}", self.folder.display()),
            _ => format!("{}: {error}", path.display()),
        })?;
        let damaged = || format!("{} is damaged", path.display());
        let rest = file.strip_prefix(MARK).ok_or_else(damaged)?;
        let (hash, image) = rest.split_at_checked(32).ok_or_else(damaged)?;
        if Sha256::digest(image).as_slice() != hash {
            return Err(damaged());
        }
        Ok(image.to_vec())
    }

    /// Puts an image under that key.
    pub fn write(&self, key: &str, image: &[u8]) -> std::io::Result<()> {
        // Two threads of one program may write at once.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(&self.folder)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let unfinished = self
            .folder
            .join(format!(".{key}.{}.{number}", std::process::id()));
        let written = (|| {
            let mut file = std::fs::File::create_new(&unfinished)?;
            file.write_all(MARK)?;
            file.write_all(Sha256::digest(image).as_slice())?;
            file.write_all(image)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, self.path(key))
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_image_comes_back_as_it_was_put_and_a_damaged_one_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("a/b"));
        let key = Cache::key(&["pool", "sm_90a"]);
        assert!(cache.read(&key).unwrap_err().starts_with("not in "));
        let image: Vec<u8> = (0..1000u32).map(|byte| byte as u8).collect();
        cache.write(&key, &image).unwrap();
        assert_eq!(cache.read(&key).unwrap(), image);

        let path = cache.path(&key);
        let whole = std::fs::read(&path).unwrap();
        for damage in [0, MARK.len(), MARK.len() + 31, whole.len() - 1] {
            let mut file = whole.clone();
            file[damage] ^= 1;
            std::fs::write(&path, file).unwrap();
            assert!(cache.read(&key).unwrap_err().ends_with("is damaged"));
        }
        for length in [0, MARK.len() - 1, MARK.len() + 10, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(cache.read(&key).unwrap_err().ends_with("is damaged"));
        }
        cache.write(&key, &image).unwrap();
        assert_eq!(cache.read(&key).unwrap(), image);
        // Nothing unfinished is left.
        assert_eq!(std::fs::read_dir(cache.folder()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_to_the_writer_and_no_image_to_the_reader() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let cache = Cache::at(file.join("kernels"));
        assert!(cache.write("key", b"image").is_err());
        assert!(cache.read("key").is_err());
    }

    #[test]
    fn keys_differ_where_any_part_differs_and_where_parts_are_cut_elsewhere() {
        let keys = [
            Cache::key(&["ab", "c"]),
            Cache::key(&["a", "bc"]),
            Cache::key(&["abc"]),
            Cache::key(&["ab", "d"]),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key));
        }
    }

    #[test]
    fn the_folder_is_the_named_one_else_the_users_and_none_where_neither_is() {
        let find = |set: &[(&str, &str)]| {
            let set: Vec<(String, PathBuf)> = set
                .iter()
                .map(|(name, value)| (name.to_string(), PathBuf::from(value)))
                .collect();
            Cache::of(move |name| {
                set.iter()
                    .find(|(one, _)| one == name)
                    .map(|(_, value)| value.clone())
            })
            .map(|cache| cache.folder().to_path_buf())
        };
        let home = ("HOME", "/home/a");
        assert_eq!(find(&[home]), Some("/home/a/.cache/weir/kernels".into()));
        let xdg = ("XDG_CACHE_HOME", "/cache");
        assert_eq!(find(&[home, xdg]), Some("/cache/weir/kernels".into()));
        let relative = ("XDG_CACHE_HOME", "cache");
        assert_eq!(
            find(&[home, relative]),
            Some("/home/a/.cache/weir/kernels".into())
        );
        let named = ("WEIR_CACHE", "/w");
        assert_eq!(find(&[home, xdg, named]), Some("/w/kernels".into()));
        assert_eq!(find(&[home, ("WEIR_CACHE", "")]), None);
        assert_eq!(find(&[]), None);
    }
}
