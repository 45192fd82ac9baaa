//! The baseline that every tile AUROC stands beside: a logistic regression on six numbers of a tile, the mean and deviation of
//! red, green and blue, trained with the labels of all tiles. What it reaches needs neither a network nor a bag.

/// Mean and standard deviation of each channel.
pub fn statistics(pixels: &[u8]) -> [f64; 6] {
    let n = (pixels.len() / 3).max(1) as f64;
    let mut out = [0.0; 6];
    for channel in 0..3 {
        let values = || {
            pixels
                .iter()
                .skip(channel)
                .step_by(3)
                .map(|b| f64::from(*b))
        };
        let mean = values().sum::<f64>() / n;
        let square = values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        out[channel] = mean;
        out[3 + channel] = square.sqrt();
    }
    out
}

/// A trained regression.
#[derive(Clone, Debug)]
pub struct Regression {
    mean: [f64; 6],
    deviation: [f64; 6],
    /// Six slopes and the intercept.
    weights: [f64; 7],
}

impl Regression {
    /// Newton's method on the log-likelihood with a ridge of 1 on the slopes, as scikit-learn's default has.
    pub fn train(rows: &[[f64; 6]], positive: &[bool]) -> Regression {
        let n = rows.len().max(1) as f64;
        let mean: [f64; 6] = std::array::from_fn(|k| rows.iter().map(|r| r[k]).sum::<f64>() / n);
        let deviation: [f64; 6] = std::array::from_fn(|k| {
            let square = rows.iter().map(|r| (r[k] - mean[k]).powi(2)).sum::<f64>() / n;
            square.sqrt().max(1e-12)
        });
        let mut model = Regression {
            mean,
            deviation,
            weights: [0.0; 7],
        };
        for _ in 0..25 {
            let (mut gradient, mut hessian) = ([0.0; 7], [[0.0; 7]; 7]);
            for (row, positive) in rows.iter().zip(positive) {
                let x = model.standard(row);
                let p = 1.0 / (1.0 + (-model.logit(row)).exp());
                for i in 0..7 {
                    gradient[i] += (f64::from(u8::from(*positive)) - p) * x[i];
                    for j in 0..7 {
                        hessian[i][j] += p * (1.0 - p) * x[i] * x[j];
                    }
                }
            }
            for i in 0..6 {
                gradient[i] -= model.weights[i];
                hessian[i][i] += 1.0;
            }
            hessian[6][6] += 1e-9;
            let step = solve(hessian, gradient);
            for (weight, step) in model.weights.iter_mut().zip(step) {
                *weight += step;
            }
            if step.iter().all(|s| s.abs() < 1e-9) {
                break;
            }
        }
        model
    }

    /// Of the probability that the tile is positive.
    pub fn logit(&self, row: &[f64; 6]) -> f64 {
        let x = self.standard(row);
        x.iter().zip(&self.weights).map(|(x, w)| x * w).sum()
    }

    fn standard(&self, row: &[f64; 6]) -> [f64; 7] {
        std::array::from_fn(|k| {
            if k < 6 {
                (row[k] - self.mean[k]) / self.deviation[k]
            } else {
                1.0
            }
        })
    }
}

/// a x = b by elimination with pivots.
fn solve(mut a: [[f64; 7]; 7], mut b: [f64; 7]) -> [f64; 7] {
    for column in 0..7 {
        let pivot = (column..7)
            .max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))
            .unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        let top = a[column];
        for row in column + 1..7 {
            let factor = a[row][column] / top[column];
            for (k, above) in top.iter().enumerate().skip(column) {
                a[row][k] -= factor * above;
            }
            b[row] -= factor * b[column];
        }
    }
    let mut x = [0.0; 7];
    for row in (0..7).rev() {
        let rest: f64 = (row + 1..7).map(|k| a[row][k] * x[k]).sum();
        x[row] = (b[row] - rest) / a[row][row];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_two_pixels() {
        let s = statistics(&[10, 0, 255, 20, 0, 255]);
        assert_eq!(s, [15.0, 0.0, 255.0, 5.0, 0.0, 0.0]);
    }

    #[test]
    fn the_regression_balances_its_gradient() {
        // At the optimum sum((y - p) x) equals the slopes, and sum(y - p) is 0: Newton's own condition, on noisy data.
        let rows: Vec<[f64; 6]> = (0..200)
            .map(|i: u32| std::array::from_fn(|k| f64::from((i * (7 + k as u32 * 5)) % 31)))
            .collect();
        let truth: Vec<bool> = rows
            .iter()
            .map(|r| r[0] + 3.0 * ((r[3] * 7.0) % 5.0) > 20.0)
            .collect();
        let model = Regression::train(&rows, &truth);
        let mut gradient = [0.0; 7];
        for (row, y) in rows.iter().zip(&truth) {
            let p = 1.0 / (1.0 + (-model.logit(row)).exp());
            for (g, x) in gradient.iter_mut().zip(model.standard(row)) {
                *g += (f64::from(u8::from(*y)) - p) * x;
            }
        }
        for (k, (slope, weight)) in gradient.iter().zip(&model.weights).take(6).enumerate() {
            assert!((slope - weight).abs() < 1e-6, "{k}");
        }
        assert!(gradient[6].abs() < 1e-6);
        assert!(model.weights[0] > 0.5);
    }
}
