//! Sizes as settings write them.

/// A number of bytes, at least 1: `4096`, `64KiB`, `160MiB`, `2GiB`, `1TiB`.
///
/// # Errors
/// What is wrong, and how it is written.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
        .unwrap_or((text, 0));
    let number: u64 = digits.replace('_', "").parse().map_err(|_error| {
        format!("`{text}` is no number of bytes: write for example 1048576, 64KiB, 160MiB or 2GiB")
    })?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| format!("`{text}` is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_and_without_a_unit() {
        assert_eq!(bytes("160MiB"), Ok(160 << 20));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("1 GiB"), Ok(1 << 30));
        assert_eq!(bytes("2TiB"), Ok(2 << 40));
        for wrong in ["", "MB", "1.5MiB", "99999999999GiB", "0", "-1"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
