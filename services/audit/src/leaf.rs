//! temporary, until crates/history is here
use jiff::Timestamp;
use tsujiban_sealing::DataKey;
use crate::hashing::{Hash, leaf_hash};

pub fn day_of(time: Timestamp) -> i64 {
    (time.as_second() + 9 * 3600).div_euclid(86_400)
}
pub fn subject(log_id: &[u8; 16], day: i64) -> String {
    format!("{} {day}", hex::encode(log_id))
}
pub fn record(log_id: &[u8; 16], sequence: u64) -> [u8; 24] {
    let mut record = [0; 24];
    record[..16].copy_from_slice(log_id);
    record[16..].copy_from_slice(&sequence.to_be_bytes());
    record
}
pub fn commitment(key: &DataKey, sequence: u64, body: &[u8]) -> Hash {
    let opening = key.mac("entry", &sequence.to_be_bytes());
    let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &opening), body);
    let mut c = [0; 32];
    c.copy_from_slice(mac.as_ref());
    c
}
pub fn entry(sequence: u64, key_id: &[u8; 16], commitment: &Hash) -> Vec<u8> {
    let mut leaf = Vec::with_capacity(58);
    leaf.extend([1, 1]);
    leaf.extend(sequence.to_be_bytes());
    leaf.extend(key_id);
    leaf.extend(commitment);
    leaf
}
pub fn hash(leaf: &[u8]) -> Hash {
    leaf_hash(leaf)
}
