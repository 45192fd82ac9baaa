//! Three numbers at a time.

/// Red, green, blue; or L, a, b.
pub type Vector = [f64; 3];
/// Rows.
pub type Matrix = [Vector; 3];

/// The inner product.
pub fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The outer product in the sense of space: perpendicular to both.
pub fn cross(a: Vector, b: Vector) -> Vector {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// `a * s + b * t`.
pub fn mix(a: Vector, s: f64, b: Vector, t: f64) -> Vector {
    std::array::from_fn(|i| a[i] * s + b[i] * t)
}

/// The same direction with length 1; `None` of a vector without length or with a number that is none.
pub fn unit(a: Vector) -> Option<Vector> {
    let length = dot(a, a).sqrt();
    (length.is_finite() && length > 1e-12).then(|| a.map(|x| x / length))
}
