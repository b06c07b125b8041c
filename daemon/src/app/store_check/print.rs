//! What a check found, for people and for programs.
//!
//! Invariant: the names in the JSON stay; new ones may come.

use serde_json::{Value, json};

use super::Report;
use crate::adapters::outbox::{Damage, Lost, OutboxReport};
use crate::app::admin::table::table;
use crate::app::origin::OriginReport;

/// Returns one JSON object on one line.
pub(super) fn json(report: &Report) -> String {
    let Report { data, format, origin, outbox, leftovers } = report;
    let ancestors = origin.ancestors.iter();
    let ancestors = ancestors.map(|of| json!({"origin": of.origin.0, "inherited": of.inherited.0}));
    let value = json!({
        "data": data.display().to_string(),
        "format": format,
        "clean": report.is_clean(),
        "migrates": outbox.is_none(),
        "origin": {
            "origin": origin.origin.map(|origin| origin.0),
            "copy": origin.is_copy,
            "ancestors": ancestors.collect::<Vec<_>>(),
            "faults": origin.faults,
        },
        "outbox": outbox.as_ref().map(outbox_json),
        "leftovers": leftovers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    });
    format!("{value}\n")
}

fn outbox_json(outbox: &OutboxReport) -> Value {
    let OutboxReport { mark, settled, journal, added, lost, .. } = outbox;
    let segments = journal.segments.iter().map(|segment| {
        json!({"name": segment.name, "bytes": segment.bytes, "sequence": segment.sequence, "batches": segment.batches})
    });
    let accounts = added.iter().map(|(id, events)| json!({"account": id.to_string(), "events": events}));
    let leftovers = outbox.leftovers.iter().map(|left| json!({"name": left.name, "bytes": left.bytes}));
    json!({
        "last_position": outbox.last_position.0,
        "mark": {
            "generation": mark.generation, "position": mark.last_position.0, "stamp": mark.last_stamp.0,
        },
        "settled": {
            "events": settled.events,
            "devices": settled.devices,
            "disk_bytes": settled.disk_bytes,
            "repaired": settled.repaired,
            "unreadable": settled.unreadable,
        },
        "journal": {
            "segments": segments.collect::<Vec<_>>(),
            "batches": journal.batches,
            "entries": journal.entries,
            "bytes": journal.bytes,
            "last_number": journal.last_number,
            "torn": journal.torn.map(|torn| json!({"batch": torn.number, "records": torn.records})),
            "events": outbox.events_added(),
            "accounts": accounts.collect::<Vec<_>>(),
            "devices": outbox.devices_changed,
            "others": journal.others,
        },
        "damage": journal.damage.iter().map(damage_json).collect::<Vec<_>>(),
        "lost": lost.iter().map(lost_json).collect::<Vec<_>>(),
        "ballast_bytes": outbox.ballast_bytes,
        "leftovers": leftovers.collect::<Vec<_>>(),
    })
}

fn damage_json(damage: &Damage) -> Value {
    let Damage { file, number, what, is_mended } = damage;
    json!({"file": file, "batch": number, "what": what, "mended": is_mended})
}

fn lost_json(lost: &Lost) -> Value {
    let account = lost.account.map(|account| account.to_string());
    json!({"account": account, "from": lost.from.0, "upto": lost.upto.0, "what": lost.what})
}

/// Returns a summary, and after it everything that is damaged and what that costs.
pub(super) fn human(report: &Report) -> String {
    let mut rows = vec![
        row(&["data directory", &report.data.display().to_string()]),
        row(&["format", &report.format.to_string()]),
        row(&["origin", &origin(&report.origin)]),
    ];
    match &report.outbox {
        Some(outbox) => rows.extend(outbox_rows(outbox)),
        None => {
            rows.push(row(&["outbox", "of an earlier release, and not checked: the next start migrates it"]));
        }
    }
    let leftovers = report.leftovers.iter().map(|path| path.display().to_string());
    rows.extend(leftovers.map(|left| row(&["left over", &format!("{left}: the next migration removes it")])));
    let mut text = table(&rows);
    for fault in &report.origin.faults {
        text.push_str(&format!("\n{fault}\n"));
    }
    if let Some(outbox) = &report.outbox {
        damage(outbox, &mut text);
    }
    if report.is_clean() {
        text.push_str("\nno damage\n");
    }
    text
}

fn origin(report: &OriginReport) -> String {
    let mut text = match report.origin {
        Some(origin) => origin.to_string(),
        None if report.faults.is_empty() => "none yet: the outbox is empty".to_owned(),
        None => "unknown".to_owned(),
    };
    if report.is_copy {
        text.push_str(
            "; the outbox is not the one that the last start left: the next one makes it a new origin",
        );
    }
    for ancestor in &report.ancestors {
        text.push_str(&format!("; before it {} up to position {}", ancestor.origin, ancestor.inherited));
    }
    text
}

fn outbox_rows(outbox: &OutboxReport) -> Vec<Vec<String>> {
    let OutboxReport { mark, settled, journal, added, .. } = outbox;
    let used = journal.segments.iter().filter(|segment| segment.batches > 0).count();
    let on_disk = journal.segments.iter().map(|segment| segment.bytes).sum();
    let mut rows = vec![
        row(&["last position", &outbox.last_position.to_string()]),
        row(&["mark", &format!("position {}, generation {}", mark.last_position, mark.generation)]),
        row(&["settled store", &size(settled.disk_bytes)]),
        row(&["  events waiting", &format!("{} at the mark", settled.events)]),
        row(&["  devices", &settled.devices.to_string()]),
        row(&["journal", &size(on_disk)]),
        row(&["  segments", &format!("{}, {used} of them with batches", journal.segments.len())]),
        row(&["  batches", &format!("{} above the mark, {}", journal.batches, size(journal.bytes))]),
        row(&["  entries", &journal.entries.to_string()]),
        row(&["  events waiting", &format!("{} more, for {} accounts", outbox.events_added(), added.len())]),
        row(&["  devices", &format!("{} with a newer record", outbox.devices_changed)]),
    ];
    if let Some(torn) = &journal.torn {
        let text = format!(
            "at batch {}: a write that was under way and not answered, as far as can be told",
            torn.number
        );
        rows.push(row(&["  torn end", &text]));
    }
    rows.push(row(&["ballast", &outbox.ballast_bytes.map_or_else(|| "none".to_owned(), size)]));
    rows.extend(settled.repaired.iter().map(|what| row(&["mended", &format!("settled store: {what}")])));
    rows.extend(journal.others.iter().map(|name| row(&["left over", &format!("journal/{name}")])));
    rows.extend(outbox.leftovers.iter().map(|left| {
        let why = match &*left.name {
            name if name.starts_with("settled.damaged-") => {
                ": set aside by an earlier start, and of no more use to quaild"
            }
            "store.migrated" => ": the store of an earlier release, migrated; the next start removes it",
            _ => "",
        };
        row(&["left over", &format!("{} ({}){why}", left.name, size(left.bytes))])
    }));
    rows
}

fn damage(outbox: &OutboxReport, text: &mut String) {
    if let Some(reason) = &outbox.settled.unreadable {
        text.push_str(&format!(
            "\nthe settled store cannot be read: {reason}\n\
             the next start sets it aside, goes on with what the journal has, and becomes a new origin\n"
        ));
    }
    if !outbox.journal.damage.is_empty() {
        let mut rows = vec![row(&["DAMAGED FILE", "BATCH", "MENDED", "WHAT"])];
        for Damage { file, number, what, is_mended } in &outbox.journal.damage {
            let number = number.map(|number| number.to_string()).unwrap_or_default();
            rows.push(row(&[file, &number, if *is_mended { "yes" } else { "no" }, what]));
        }
        text.push_str(&format!("\n{}", table(&rows)));
    }
    if !outbox.lost.is_empty() {
        let mut rows = vec![row(&["LOST FOR ACCOUNT", "FROM", "UP TO", "WHY"])];
        for Lost { account, from, upto, what } in &outbox.lost {
            let account = account.map_or_else(|| "everybody".to_owned(), |account| account.to_string());
            rows.push(row(&[&account, &from.to_string(), &upto.to_string(), what]));
        }
        text.push_str(&format!("\n{}", table(&rows)));
    }
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Returns bytes as people read them.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use quail_core::Ancestor;
    use quail_protocol::id::{AccountId, Origin, Position};

    use super::*;
    use crate::adapters::outbox::{Leftover, SettledPart};

    fn report() -> Report {
        let of = |account: u8, from, upto| Lost {
            account: Some(AccountId([account; 16])),
            from: Position(from),
            upto: Position(upto),
            what: "its checksum".to_owned(),
        };
        let mut outbox = OutboxReport {
            settled: SettledPart { events: 12, ..SettledPart::default() },
            lost: vec![of(1, 3, 4), Lost { account: None, ..of(1, 5, 6) }],
            leftovers: vec![Leftover { name: "settled.damaged-9".to_owned(), bytes: 1536 }],
            ..OutboxReport::default()
        };
        outbox.journal.damage = vec![Damage {
            file: "00000001.segment".to_owned(),
            number: Some(7),
            what: "a frame".to_owned(),
            is_mended: false,
        }];
        let ancestors = vec![Ancestor { origin: Origin(4), inherited: Position(2) }];
        let origin = OriginReport { origin: Some(Origin(5)), ancestors, ..OriginReport::default() };
        let data = PathBuf::from("/d");
        Report { data, format: 2, origin, outbox: Some(outbox), leftovers: Vec::new() }
    }

    #[test]
    fn people_are_told_what_is_there_and_what_is_lost() {
        let text = human(&report());
        for line in [
            "origin            5; before it 4 up to position 2",
            "  events waiting  12 at the mark",
            "left over         settled.damaged-9 (1.5 KiB): set aside by an earlier start, and of no more use to quaild",
            "00000001.segment  7      no      a frame",
            "01010101-0101-0101-0101-010101010101  3     4      its checksum",
            "everybody                             5     6      its checksum",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("no damage"));
    }

    #[test]
    fn programs_get_one_object_whose_names_stay() {
        let text = json(&report());
        assert_eq!(text.lines().count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["clean"], false);
        assert_eq!(value["origin"]["ancestors"][0], json!({"origin": 4, "inherited": 2}));
        assert_eq!(value["outbox"]["settled"]["events"], 12);
        let lost = json!({
            "account": "01010101-0101-0101-0101-010101010101", "from": 3, "upto": 4, "what": "its checksum",
        });
        assert_eq!(value["outbox"]["lost"][0], lost);
        assert_eq!(value["outbox"]["lost"][1]["account"], Value::Null);
        assert_eq!(value["outbox"]["damage"][0]["mended"], false);
        let whole = Report { outbox: None, ..report() };
        let value: Value = serde_json::from_str(&json(&whole)).unwrap();
        assert_eq!((&value["migrates"], &value["outbox"]), (&json!(true), &Value::Null));
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1023, 1536, 32 << 20, 5 << 30].map(size);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.5 KiB", "32.0 MiB", "5.0 GiB"]);
    }
}
