//! weir-learn
