//! A log as a row of tables `logs`, `heads` and `log_seals`.

/// Number, id, group, size, peaks, day and seal.
pub(crate) type LogTuple = (i64, Vec<u8>, String, i64, Vec<u8>, i64, Option<Vec<u8>>);

/// A query for logs. A log without a head gets its id as peaks, which are invalid, so that it is reported as damaged and not as missing.
macro_rules! logs {
    ($rest:literal) => {
        concat!(
            "SELECT l.number, l.log_id, l.group_id, COALESCE(h.size, 1), COALESCE(h.peaks, l.log_id), COALESCE(h.day, 0), s.seal
             FROM logs l LEFT JOIN heads h ON h.log = l.number
             LEFT JOIN log_seals s ON s.log = l.number ",
            $rest
        )
    };
}
pub(crate) use logs;
