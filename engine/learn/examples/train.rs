//! scratch
use std::io::Write;
struct P(std::time::Instant);
impl weir_learn::Progress for P {
    fn at(&mut self, at: &weir_learn::At) {
        if self.0.elapsed().as_secs() > 20 {
            self.0 = std::time::Instant::now();
            println!(
                "  {} {}/{} {:.0} % loss {:.4} left {:?}",
                at.phase,
                at.epoch,
                at.epochs,
                at.part * 100.0,
                at.loss,
                at.left
            );
            std::io::stdout().flush().ok();
        }
    }
    fn note(&mut self, line: &str) {
        println!("{line}");
        std::io::stdout().flush().ok();
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let o = weir_learn::Options {
        recipe: a[1].clone().into(),
        data: a[2].clone().into(),
        out: a[3].clone().into(),
        resume: a.get(4).is_some(),
        choice: Default::default(),
    };
    match weir_learn::train(&o, &mut P(std::time::Instant::now())) {
        Ok(weir_learn::Ended::Whole(t)) => println!("{}", t.record),
        Ok(_) => println!("early"),
        Err(e) => {
            println!("error: {e}");
            std::process::exit(1)
        }
    }
}
