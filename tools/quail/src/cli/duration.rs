//! Durations as people write them: `500ms`, `30s`, `2m`; a number alone counts seconds.

use std::time::Duration;

/// Longest duration that is taken: timers further away are mistakes.
const SECONDS_MAX: u64 = 365 * 24 * 3600;

/// Reads a duration; for the parser of the command line.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("a duration is a number with ms, s, m or h, as in 30s, not {text:?}");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => return Err(wrong()),
    };
    duration.filter(|duration| duration.as_secs() <= SECONDS_MAX).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        for (text, milliseconds) in
            [("500ms", 500), ("30", 30_000), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for text in ["", "s", "1 s", "-1s", "1.5s", "1d"] {
            assert!(parse(text).unwrap_err().contains("as in 30s"), "{text}");
        }
        for text in ["99999999999h", "18446744073709551615m", "9000h"] {
            assert_eq!(parse(text), Err("that is too long".to_owned()), "{text}");
        }
    }
}
