//! The chart's policies refuse the same ranges as the code does.

use std::fs;

use tsujiban_core::address::Forbidden;

#[test]
fn the_chart_names_every_range_that_is_never_a_devices() {
    let helpers = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/tsujiban/templates/_helpers.tpl")).unwrap();
    for range in Forbidden::new([]).ranges() {
        assert!(helpers.contains(&format!("'{range}'")) || helpers.contains(&format!("\"{range}\"")), "{range} is not in the chart's list");
    }
}
