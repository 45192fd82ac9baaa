//! weir-stages
