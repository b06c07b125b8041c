//! What `quail devices` makes of a list, without a server.
#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

use super::*;

const NOW_MS: u64 = 1_767_225_600_000;

fn device(id: u128, name: &str, seconds_ago: u64) -> Listed {
    Listed {
        device: DeviceId((id << 96 | 0xbeef).to_be_bytes()),
        name: name.to_owned(),
        platform: "linux".to_owned(),
        created_ms: NOW_MS - 100 * 86_400_000,
        last_seen_ms: NOW_MS - 1_000 * seconds_ago,
        current: false,
    }
}

fn devices() -> Vec<Listed> {
    let laptop = Listed { current: true, ..device(0x0f8f_ad5b, "laptop", 0) };
    vec![laptop, device(0x0f8f_0000, "phone", 7_200), device(0xa1b2_c3d4, "phone", 60 * 86_400)]
}

fn found(meant: &str) -> Result<DeviceId, String> {
    find(&devices(), meant).map(|device| device.device).map_err(|error| error.to_string())
}

#[test]
fn a_device_is_meant_by_its_id_the_beginning_of_it_or_its_name() {
    let ids: Vec<_> = devices().iter().map(|device| device.device).collect();
    assert_eq!(found(&ids[1].to_string()), Ok(ids[1]));
    assert_eq!(found("0f8fad5b"), Ok(ids[0]));
    assert_eq!(found("A1B2"), Ok(ids[2]), "digits of either case");
    assert_eq!(found("a1b2c3d4-0000-0000-"), Ok(ids[2]));
    assert_eq!(found("laptop"), Ok(ids[0]));
    // What is the beginning of an id of one and the name of another is not guessed.
    let both = [device(0xa000_0000, "b", 0), device(0xb000_0000, "x", 0)];
    assert!(find(&both, "b").is_err());
    assert_eq!(find(&both, "b0").unwrap().device, both[1].device);
}

#[test]
fn what_means_several_devices_or_none_is_told_and_not_guessed() {
    for several in ["phone", "0f8f", "0"] {
        let error = found(several).unwrap_err();
        let ids = devices().iter().filter(|device| error.contains(&device.device.to_string())).count();
        assert_eq!(ids, 2, "{error}");
    }
    for nobody in ["tablet", "Phone", "lap", "ffff", " ", &DeviceId([9; 16]).to_string()] {
        assert_eq!(found(nobody), Err(format!("you have no device \"{nobody}\"")));
    }
    let error = found("\u{1b}[2J").unwrap_err();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn the_table_lines_up_and_marks_the_device_that_is_used() {
    let expected = [
        "  NAME    PLATFORM  LAST SEEN    ID",
        "* laptop  linux     now          0f8fad5b",
        "  phone   linux     2 h ago      0f8f0000",
        "  phone   linux     60 days ago  a1b2c3d4",
    ];
    assert_eq!(table(&devices()).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_name_that_would_move_the_cursor_is_shown_instead() {
    let hostile = device(1, "a\u{1b}[2J\nb\u{202e}", 0);
    let shown = table(&[Listed { platform: "\u{9b}2J".to_owned(), ..hostile.clone() }]);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{shown:?}");
    assert!(!super::shown(&hostile).contains('\u{1b}'));
    assert_eq!(super::shown(&device(2, "", 0)), device(2, "", 0).device.to_string());
}

#[test]
fn ids_that_begin_alike_are_shown_whole() {
    let twins = [device(7, "a", 0), Listed { device: DeviceId([0; 16]), ..device(7, "b", 0) }];
    assert_eq!(id_chars(&twins), ID_CHARS);
    let twins = [device(7, "a", 0), device(7, "b", 0)];
    assert!(table(&twins).lines().skip(1).all(|line| line.ends_with("beef")));
}

#[test]
fn programs_get_one_object_per_device() {
    let line = serde_json::to_string(&device(0xa1b2_c3d4, "phone", 1)).unwrap();
    let id = "a1b2c3d4-0000-0000-0000-00000000beef";
    let expected = format!(
        r#"{{"device":"{id}","name":"phone","platform":"linux","created_ms":1758585600000,"last_seen_ms":1767225599000,"current":false}}"#
    );
    assert_eq!(line, expected);
}

#[test]
fn times_are_told_as_exactly_as_people_want_them() {
    for (seconds, text) in [
        (0, "now"),
        (89, "now"),
        (90, "1 min ago"),
        (5_399, "89 min ago"),
        (5_400, "1 h ago"),
        (172_799, "47 h ago"),
        (172_800, "2 days ago"),
        (59 * 86_400, "59 days ago"),
    ] {
        assert_eq!(ago(Duration::from_secs(seconds)), text);
    }
    assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_millis(7)), 7);
    assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_millis(7)), 0, "a time before 1970 is none");
}
