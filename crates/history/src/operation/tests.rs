use super::*;

fn operation() -> Operation {
    Operation {
        id: EntryId::from_bytes([0x11; 16]),
        phase: Phase::Outcome,
        time: "2026-11-26T09:30:00.000001+09:00".parse().unwrap(),
        actor: Actor { kind: ActorKind::Staff, id: "staff-taro".to_owned() },
        from: "10.0.0.7".to_owned(),
        service: "tsujiban.backup.v1.BackupService".to_owned(),
        method: "GetSnapshot".to_owned(),
        function: "snapshots".to_owned(),
        operation: Access::View,
        target: "東京本社".to_owned(),
        result: Outcome::Denied,
        code: "PERMISSION_DENIED".to_owned(),
        reason: String::new(),
        duration_us: 1200,
        request_id: "r".to_owned(),
        trace_id: "t".to_owned(),
        detail: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
    }
}

#[test]
fn the_order_of_the_fields_is_fixed() {
    let body = String::from_utf8(operation().encode().unwrap()).unwrap();
    assert_eq!(
        body,
        concat!(
            r#"{"id":"11111111111111111111111111111111","phase":"OUTCOME","time":"2026-11-26T09:30:00.000001+09:00","#,
            r#""actor":{"kind":"staff","id":"staff-taro"},"from":"10.0.0.7","service":"tsujiban.backup.v1.BackupService","#,
            r#""method":"GetSnapshot","function":"snapshots","operation":"VIEW","target":"東京本社","result":"DENIED","#,
            r#""code":"PERMISSION_DENIED","reason":"","duration_us":1200,"request_id":"r","trace_id":"t","detail":{"a":"1","b":"2"}}"#
        )
    );
    assert_eq!(Operation::parse(body.as_bytes()), Ok(operation()));
}

#[test]
fn only_what_is_written_is_read() {
    let body = String::from_utf8(operation().encode().unwrap()).unwrap();
    for other in [
        "",
        "{}",
        &body.replacen(':', ": ", 1),
        &body.replace("VIEW", "LOOK"),
        &body.replace("\"from\":\"10.0.0.7\",", ""),
        &body.replace("\"from\":", "\"x\":1,\"from\":"),
        &body.replace(r#""a":"1","b":"2""#, r#""b":"2","a":"1""#),
        &body.replace(r#""a":"1""#, r#""a":"0","a":"1""#),
        &body.replace("GetSnapshot", "\\u0047etSnapshot"),
        &body.replace("+09:00", "Z"),
        &body.replace("1111", "AAAA"),
        &format!("{body}\n"),
    ] {
        assert_eq!(Operation::parse(other.as_bytes()), Err(InvalidOperation::Malformed), "{other}");
    }
}

#[test]
fn line_breaks_escape_codes_and_bidi_marks_stay_in_one_line() {
    let mut operation = operation();
    operation.target = "a\r\nb\x1b[2J\u{202e}c\u{2028}\0\"\\".to_owned();
    let body = operation.encode().unwrap();
    let text = String::from_utf8(body.clone()).unwrap();
    assert_eq!(tsujiban_core::escape::escape_line(&text), text);
    assert!(text.contains(r#""target":"a\r\nb\u001b[2J\u202ec\u2028\u0000\"\\","#), "{text}");
    assert_eq!(Operation::parse(&body), Ok(operation));
    assert_eq!(Operation::parse(text.replace("\\u202e", "\u{202e}").as_bytes()), Err(InvalidOperation::Malformed));
}

#[test]
fn the_time_is_found_in_a_body() {
    for phase in Phase::ALL {
        let operation = Operation { phase: *phase, ..operation() };
        let body = operation.encode().unwrap();
        assert_eq!(Operation::time_in(&body).unwrap(), *b"2026-11-26T09:30:00.000001+09:00");
        for other in ["2026-11-26T09:30:00.000001+09:01", "9999999999999999999999999999+09:00", "+2026-11-26T09:30:00.00001+09:00"] {
            let body = String::from_utf8(body.clone()).unwrap().replace("2026-11-26T09:30:00.000001+09:00", other);
            assert_eq!(Operation::time_in(body.as_bytes()), None, "{other}");
        }
    }
    assert_eq!(Operation::time_in(b"{}"), None);
}

#[test]
fn sixty_four_kibibytes_are_kept_and_one_more_is_refused() {
    let mut operation = operation();
    let room = MAX_BODY - operation.encode().unwrap().len();
    operation.reason = "x".repeat(room);
    let body = operation.encode().unwrap();
    assert_eq!(body.len(), 65_536);
    assert_eq!(Operation::parse(&body).as_ref(), Ok(&operation));
    operation.reason.push('x');
    let refused = operation.encode().unwrap_err();
    assert_eq!(refused, InvalidOperation::TooLong(65_537));
    assert!(refused.to_string().contains("at most 65,536"));
    assert_eq!(Operation::parse(&[body, vec![b' ']].concat()), Err(InvalidOperation::TooLong(65_537)));
}

#[test]
fn the_words_are_those_of_the_json() {
    fn check<T: Serialize + Copy + std::fmt::Display + std::str::FromStr + PartialEq + std::fmt::Debug>(all: &[T]) {
        for word in all {
            assert_eq!(serde_json::to_string(word).unwrap(), format!("\"{word}\""));
            assert_eq!(word.to_string().parse().ok(), Some(*word));
        }
    }
    check(Phase::ALL);
    check(ActorKind::ALL);
    check(Access::ALL);
    check(Outcome::ALL);
    assert!("LOOK".parse::<Access>().is_err());
}
