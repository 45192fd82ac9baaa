//! weir-record
