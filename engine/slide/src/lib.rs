//! weir-slide
