//! Optical density: how much light a pixel's dyes took, which adds up where grey levels multiply (Beer and Lambert).

/// Grey levels as densities, for one brightness of the light.
///
/// `density(v) = ln(light / (v + 1))`, as Macenko's authors' code has it; its exact inverse is `v = light * exp(-density) - 1`.
/// A pixel brighter than the light has a negative density: noise of the scanner, no dye.
#[derive(Clone, Debug)]
pub struct Light {
    level: f64,
    beta: f64,
    densities: [f64; 256],
    /// The least grey level whose density is below beta.
    cut: u16,
}

impl Light {
    /// Light of `level` grey levels plus one (1 to 256), and the density `beta` below which a channel shows no dye.
    pub fn new(level: f64, beta: f64) -> Light {
        let densities = std::array::from_fn(|v| (level / (v as f64 + 1.0)).ln());
        let cut = densities
            .iter()
            .position(|density| *density < beta)
            .unwrap_or(256) as u16;
        Light {
            level,
            beta,
            densities,
            cut,
        }
    }

    /// The light, in grey levels plus one.
    pub fn level(&self) -> f64 {
        self.level
    }

    /// The density below which a channel shows no dye.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// The density of each grey level.
    pub fn densities(&self) -> &[f64; 256] {
        &self.densities
    }

    /// Whether every channel's density is at least beta: what Macenko takes stain vectors from.
    pub fn is_stained(&self, pixel: [u8; 3]) -> bool {
        let [r, g, b] = pixel;
        u16::from(r.max(g).max(b)) < self.cut
    }

    /// Whether no channel's density reaches beta: bare glass.
    pub fn is_glass(&self, pixel: [u8; 3]) -> bool {
        let [r, g, b] = pixel;
        u16::from(r.min(g).min(b)) >= self.cut
    }

    /// How much of a pixel is changed, by its darkest channel: 1 from density beta on, 0 without any, between them in
    /// proportion. So white stays white and no edge shows where the glass begins. Without `keep_glass` it is 1 throughout.
    pub fn shares(&self, keep_glass: bool) -> [f32; 256] {
        std::array::from_fn(|v| {
            let density = self.densities[v];
            if !keep_glass || density >= self.beta {
                1.0
            } else if density <= 0.0 {
                0.0
            } else {
                (density / self.beta) as f32
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_and_its_inverse_give_every_grey_level_back() {
        let light = Light::new(240.0, 0.15);
        for (v, density) in light.densities().iter().enumerate() {
            assert!((light.level() * (-density).exp() - 1.0 - v as f64).abs() < 1e-12 * 256.0);
        }
    }

    #[test]
    fn glass_and_stain_are_cut_where_the_density_is_beta() {
        let light = Light::new(240.0, 0.15);
        // ln(240 / 206) = 0.153, ln(240 / 207) = 0.148
        assert!(light.is_stained([205, 10, 205]) && !light.is_stained([206, 10, 10]));
        assert!(light.is_glass([206, 255, 206]) && !light.is_glass([205, 255, 255]));
    }

    #[test]
    fn the_share_rises_from_nothing_to_all_between_light_and_beta() {
        let shares = Light::new(240.0, 0.15).shares(true);
        assert!(shares[..206].iter().all(|share| *share == 1.0));
        assert!(shares[239..].iter().all(|share| *share == 0.0));
        assert!(shares.windows(2).all(|pair| pair[0] >= pair[1]));
        assert!(
            Light::new(240.0, 0.15)
                .shares(false)
                .iter()
                .all(|share| *share == 1.0)
        );
    }
}
