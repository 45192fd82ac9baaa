//! Eigenvectors of a symmetric 3x3 matrix.
//!
//! By Jacobi's rotations: slower than the closed form and, unlike it, exact to rounding also where two eigenvalues are nearly
//! equal or one is nearly nothing, which is what the covariance of a tile with one dye looks like.

use crate::vector::mix;

/// Eigenvalues from the greatest to the smallest, and their eigenvectors of length 1 as rows.
pub fn symmetric(mut a: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // Convergence is quadratic: seven sweeps are more than doubles can use.
    for _ in 0..12 {
        let off = a[0][1].abs() + a[0][2].abs() + a[1][2].abs();
        if off <= f64::MIN_POSITIVE {
            break;
        }
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q] != 0.0 {
                rotate(&mut a, &mut v, p, q);
            }
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|i, j| a[*j][*j].total_cmp(&a[*i][*i]));
    (order.map(|i| a[i][i]), order.map(|i| v[i]))
}

fn rotate(a: &mut [[f64; 3]; 3], v: &mut [[f64; 3]; 3], p: usize, q: usize) {
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    let r = 3 - p - q;
    let (app, aqq, apq) = (a[p][p], a[q][q], a[p][q]);
    a[p][p] = app - t * apq;
    a[q][q] = aqq + t * apq;
    a[p][q] = 0.0;
    a[q][p] = 0.0;
    let (arp, arq) = (a[r][p], a[r][q]);
    a[r][p] = c * arp - s * arq;
    a[p][r] = a[r][p];
    a[r][q] = s * arp + c * arq;
    a[q][r] = a[r][q];
    (v[p], v[q]) = (mix(v[p], c, v[q], -s), mix(v[p], s, v[q], c));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::dot;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vectors_are_orthonormal_and_make_the_matrix_again(e in proptest::array::uniform6(-2.0f64..2.0), scale in -9i32..6) {
            let s = 10f64.powi(scale);
            let [a, b, c, d, f, g] = e.map(|x| x * s);
            let m = [[a, b, c], [b, d, f], [c, f, g]];
            let (values, vectors) = symmetric(m);
            prop_assert!(values[0] >= values[1] && values[1] >= values[2]);
            for i in 0..3 {
                for j in 0..3 {
                    let unit = if i == j { 1.0 } else { 0.0 };
                    prop_assert!((dot(vectors[i], vectors[j]) - unit).abs() < 1e-13);
                    let again: f64 = (0..3).map(|k| values[k] * vectors[k][i] * vectors[k][j]).sum();
                    prop_assert!((again - m[i][j]).abs() < 1e-13 * s * 4.0);
                }
            }
        }
    }

    #[test]
    fn matrices_of_lower_rank_have_their_vectors_too() {
        let (values, vectors) = symmetric([[0.0; 3]; 3]);
        assert_eq!(values, [0.0; 3]);
        assert!((dot(vectors[0], vectors[0]) - 1.0).abs() < 1e-15);
        let u = [0.6, 0.0, 0.8];
        let (values, vectors) = symmetric(std::array::from_fn(|i| {
            std::array::from_fn(|j| u[i] * u[j])
        }));
        assert!((values[0] - 1.0).abs() < 1e-15 && values[1].abs() < 1e-15);
        assert!((dot(vectors[0], u).abs() - 1.0).abs() < 1e-15);
    }
}
