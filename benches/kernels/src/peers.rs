//! Beside other libraries: what benches/peers/pool.py wrote, joined by the case's name.

use crate::record::Measured;
use crate::table::{Table, amount, seconds};

/// One table: a row a case, a column a peer, each with the peer's time over weir's. A case that either side measured several
/// times counts with its least median: what a neighbour takes away is no property of a library.
pub fn table(ours: &[Measured], peers: &[Measured]) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for peer in peers {
        if !names.contains(&peer.by.as_str()) {
            names.push(&peer.by);
        }
    }
    let mut head = vec!["case", "threads", "weir"];
    head.extend(&names);
    head.push("best peer / weir");
    let mut table = Table::new(&head);
    let mut done: Vec<(&str, usize)> = Vec::new();
    for found in ours.iter().filter(|found| found.median > 0.0) {
        if done.contains(&(&found.case, found.threads)) {
            continue;
        }
        done.push((&found.case, found.threads));
        let least = |all: &[Measured], by: &str| -> Option<f64> {
            all.iter()
                .filter(|one| {
                    (&one.case, one.threads, one.by.as_str(), &one.device)
                        == (&found.case, found.threads, by, &found.device)
                })
                .map(|one| one.median)
                .filter(|median| *median > 0.0)
                .reduce(f64::min)
        };
        let Some(weir) = least(ours, "weir") else {
            continue;
        };
        let times: Vec<Option<f64>> = names.iter().map(|name| least(peers, name)).collect();
        let Some(best) = times.iter().flatten().copied().reduce(f64::min) else {
            continue;
        };
        let memory = |all: &[Measured], by: &str| -> Option<f64> {
            let of = |one: &&Measured| one.by == by && one.case == found.case;
            all.iter().find(of).and_then(|one| one.memory)
        };
        let own = memory(ours, "weir").map_or(String::new(), |m| format!(" ({})", amount(m)));
        let mut row = vec![
            found.case.clone(),
            found.threads.to_string(),
            format!("{}{own}", seconds(weir)),
        ];
        let took = times.iter().zip(&names).map(|(time, name)| {
            time.map_or(String::new(), |time| {
                let more =
                    memory(peers, name).map_or(String::new(), |m| format!(", {}", amount(m)));
                format!("{} ({:.2} x{more})", seconds(time), time / weir)
            })
        });
        row.extend(took);
        row.push(format!("{:.2}", best / weir));
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_stands_beside_the_case_of_its_name_and_threads() {
        let one = |by: &str, threads, median| Measured {
            case: "pool".into(),
            by: by.into(),
            device: "cpu".into(),
            threads,
            median,
            ..Measured::default()
        };
        let ours = [
            one("weir", 1, 2e-3),
            one("weir", 1, 1e-3),
            one("weir", 2, 1e-3),
        ];
        let peers = [one("torch", 1, 4e-3), one("numpy", 1, 3e-3)];
        let mut out = Vec::new();
        assert!(table(&ours, &peers).print(&mut out).is_ok());
        let text = String::from_utf8(out).unwrap_or_default();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains("4.00 ms (4.00 x)") && text.contains("| 3.00 |")
                || text.contains(" 3.00 |"),
            "{text}"
        );
    }
}
