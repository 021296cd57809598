use super::*;
use crate::SigningKey;
use crate::leaf::{Commitment, Opening};
use crate::{DayKeyId, Operation};

fn leaf() -> Leaf {
    Leaf::entry(12, DayKeyId::from_bytes([1; 16]), Commitment::from_bytes([2; 32]))
}

fn header() -> Header {
    let origin: Origin = "audit.tsujiban.dev/test/00112233445566778899aabbccddeeff".parse().unwrap();
    let key = SigningKey::from_seed(&[3; 32]).unwrap().verifier(origin.to_string().parse().unwrap());
    Header::new(&origin, &key, 20, 12..13, vec![Hash::EMPTY, Hash::EMPTY])
}

#[test]
fn lines_are_json_that_people_and_programs_read() {
    let mut lines = header().line();
    let opened = Opened { opening: Opening::from_bytes([4; 32]), body: br#"{"id":"1"}"# };
    entry_line(&mut lines, 12, &leaf().encode(), Some(opened));
    entry_line(&mut lines, 13, &leaf().encode(), None);
    lines.extend(Outside::new(&leaf(), vec![Hash::EMPTY]).line());
    lines.extend(Growth { from: 5, proof: vec![Hash::EMPTY] }.line());
    lines.extend(Footer { right: vec![], checkpoint: "a\nb\n".to_owned() }.line());
    let text = String::from_utf8(lines).unwrap();
    let values: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((values[0]["size"].as_u64(), values[0]["log"].as_str()), (Some(20), Some("00112233445566778899aabbccddeeff")));
    assert_eq!((values[1]["sequence"].as_u64(), values[1]["body"]["id"].as_str()), (Some(12), Some("1")));
    assert!(values[2].get("body").is_none());
    assert_eq!(values[5]["checkpoint"].as_str(), Some("a\nb\n"));
    for (line, value) in text.lines().zip(&values) {
        assert_eq!(value["check"].as_str().unwrap().len(), 16, "{line}");
    }
    assert_eq!(Header::parse(text.lines().next().unwrap().as_bytes()), Some(header()));
    let kinds: Vec<bool> = text.lines().skip(1).map(|line| Line::parse(line.as_bytes()).is_some()).collect();
    assert_eq!(kinds, [true; 5]);
}

#[test]
fn an_entry_line_is_read_as_it_was_written() {
    let opened = Opened { opening: Opening::from_bytes([4; 32]), body: b"{\"x\":\"\\\"}\"}" };
    let long = Leaf::parse(&leaf().encode()).unwrap();
    for (leaf, opened) in [(long.encode(), Some(opened)), (long.encode(), None), (vec![7; 3000], None), (vec![], None)] {
        let mut line = Vec::new();
        entry_line(&mut line, 12, &leaf, opened);
        let read = EntryLine::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((read.sequence, read.leaf(), read.opened, read.is_sound), (12, leaf.as_slice(), opened, true));
        assert!(EntryLine::parse(&line).is_none());
    }
}

#[test]
fn a_line_that_is_written_otherwise_is_refused() {
    let line = String::from_utf8(header().line()).unwrap();
    let line = line.trim_end();
    for other in [
        line.replacen(':', ": ", 1),
        line.replace("\"size\":20", "\"size\":21"),
        line.replace("\"size\":20", "\"size\":2e1"),
        line.replace("export\":1", "export\":2"),
        format!(" {line}"),
        format!("{line} "),
        line.replace(",\"check\"", ",\"x\":1,\"check\""),
    ] {
        assert_eq!(Header::parse(other.as_bytes()), None, "{other}");
    }
    let longest = "x".repeat(crate::operation::MAX_BODY);
    let mut line = Vec::new();
    entry_line(&mut line, u64::MAX, &leaf().encode(), Some(Opened { opening: Opening::from_bytes([4; 32]), body: longest.as_bytes() }));
    assert!(line.len() < MAX_LINE);
}

#[test]
fn a_row_has_every_field_and_one_line() {
    let body = concat!(
        r#"{"id":"11111111111111111111111111111111","phase":"OUTCOME","time":"2026-11-26T09:30:00.000001+09:00","#,
        r#""actor":{"kind":"staff","id":"staff-taro"},"from":"10.0.0.7","service":"s","method":"GetSnapshot","#,
        r#""function":"snapshots","operation":"VIEW","target":"=cmd|' /C calc'!A0","result":"DENIED","#,
        r#""code":"PERMISSION_DENIED","reason":"東京\n,\"本社\"\u202e","duration_us":1200,"request_id":"r","trace_id":"t","#,
        r#""detail":{"a":"1","b":"2"}}"#
    );
    let mut rows = CSV_HEADER.to_owned();
    csv_row(&mut rows, 7, &Operation::parse(body.as_bytes()).unwrap());
    assert_eq!(
        rows,
        concat!(
            "\u{feff}sequence,time,phase,result,code,actor_kind,actor,from,service,method,function,operation,target,reason,",
            "duration_us,request_id,trace_id,detail,id\r\n",
            "7,2026-11-26T09:30:00.000001+09:00,OUTCOME,DENIED,PERMISSION_DENIED,staff,staff-taro,10.0.0.7,s,GetSnapshot,",
            "snapshots,VIEW,\"'=cmd|' /C calc'!A0\",\"東京\\n,\"\"本社\"\"\\u{202e}\",1200,r,t,\"a=1; b=2\",",
            "11111111111111111111111111111111\r\n"
        )
    );
}
