//! The file that says how a slide is stained: written by `stain.measure`, read as a target or as a source, or written by hand.

use crate::density::Light;
use crate::macenko::Stains;
use crate::reinhard::Colours;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file's name in a slide's folder.
pub const FILE: &str = "stain.json";

/// What stands in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Statistics {
    /// Version of this format: 1.
    pub weir_stain: u32,
    /// The slide's id, by which a source is found.
    pub slide: String,
    /// Tiles that pixels were taken of.
    #[serde(default)]
    pub tiles: u64,
    /// Pixels that were taken.
    #[serde(default)]
    pub pixels: u64,
    /// The light that densities are counted from, grey levels plus one.
    pub light: f64,
    /// The density that was taken for no dye.
    pub beta: f64,
    /// Percentile of the extreme angles.
    #[serde(default = "published_alpha")]
    pub alpha: f64,
    /// Whether glass is left out of `reinhard`.
    #[serde(default = "yes")]
    pub keep_glass: bool,
    /// Stains by Macenko's method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macenko: Option<Stains>,
    /// Colours by Reinhard's method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reinhard: Option<Colours>,
    /// Why one of them is not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

fn published_alpha() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

impl Statistics {
    /// The file's text.
    pub fn text(&self) -> Result<String, String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        text.push('\n');
        Ok(text)
    }

    /// From a file's text. The error says what is wrong, without the file's name.
    pub fn parse(text: &str) -> Result<Statistics, String> {
        let statistics: Statistics = serde_json::from_str(text)
            .map_err(|error| format!("it is no file of stain.measure: {error}"))?;
        if statistics.weir_stain != 1 {
            return Err(format!(
                "its format is {}, and this plugin reads 1",
                statistics.weir_stain
            ));
        }
        if let Some(stains) = &statistics.macenko {
            stains.check()?;
        }
        if let Some(colours) = &statistics.reinhard {
            colours.check()?;
        }
        Ok(statistics)
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Statistics, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
        Statistics::parse(&text)
    }

    /// Whether they were counted as a stage with these settings counts. The error names the difference.
    pub fn fits(&self, light: &Light, keep_glass: bool) -> Result<(), String> {
        if self.light != light.level() {
            return Err(format!(
                "it was measured with light = {} and this stage has {}",
                self.light,
                light.level()
            ));
        }
        if self.reinhard.is_some() && self.keep_glass != keep_glass {
            return Err(format!(
                "it was measured with keep-glass = {} and this stage has {keep_glass}",
                self.keep_glass
            ));
        }
        Ok(())
    }
}

impl Stains {
    /// Numbers that can be used: two different directions and something of each stain.
    pub fn check(&self) -> Result<(), String> {
        if crate::macenko::unmix(self.haematoxylin, self.eosin).is_none() {
            return Err(
                "haematoxylin and eosin have the same direction, or a number that is none".into(),
            );
        }
        if !self
            .concentrations
            .iter()
            .all(|most| most.is_finite() && *most > 0.0)
        {
            return Err("a concentration is not greater than 0".into());
        }
        Ok(())
    }
}

impl Colours {
    /// Numbers that can be used: finite, and deviations greater than 0.
    pub fn check(&self) -> Result<(), String> {
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err("a mean is no number".into());
        }
        if !self
            .deviation
            .iter()
            .all(|deviation| deviation.is_finite() && *deviation > 0.0)
        {
            return Err("a deviation is not greater than 0".into());
        }
        Ok(())
    }
}
