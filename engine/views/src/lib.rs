//! weir-views
