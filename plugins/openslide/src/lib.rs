//! A slide reader for everything that OpenSlide reads, with the native reader's contract. It is a plugin: `[plugin.openslide]`
//! in a pipeline lets `tile-reader` ask it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`library`] | where OpenSlide's library is, and its functions; the one with unsafe code |
//! | [`slide`] | a slide: what was found, exact regions, pictures |
//! | [`between`] | the level's own pixels where OpenSlide interpolates |
//! | [`pixels`] | premultiplied ARGB to RGB over white; what a transparent pixel means |
//! | [`mod@sniff`] | whether a file is OpenSlide's affair |

pub mod between;
pub mod library;
pub mod pixels;
pub mod slide;
pub mod sniff;

weir_plugin::export! { name: "openslide", readers: [slide::Slide] }
