use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::*;

#[test]
fn every_method_says_who_may_call_it() {
    let rules = Rules::load().unwrap();
    let erase = rules.of("/tsujiban.lifecycle.v1.LifecycleService/Erase").unwrap();
    assert_eq!((erase.function.as_str(), erase.staff_verb(), erase.operation()), ("groups", Some("erase"), Operation::Delete));
    let put = rules.of("/tsujiban.backup.v1.BackupService/PutSnapshot").unwrap();
    assert_eq!((put.staff_verb(), put.workloads().collect::<Vec<_>>()), (None, vec![access::v1::Workload::Collector]));
    assert!(rules.of("/tsujiban.backup.v1.BackupService/Nothing").is_none());
}

/// C5: erasing never happens unless the history holds the intent; taking a backup goes on in an outage; the history does not feed
/// itself.
#[test]
fn every_method_says_how_its_calls_come_into_the_history() {
    let rules = Rules::load().unwrap();
    let of = |path: &str| rules.of(path).unwrap().history();
    assert_eq!(of("/tsujiban.lifecycle.v1.LifecycleService/Erase"), History::Strict);
    assert_eq!(of("/tsujiban.backup.v1.BackupService/PutSnapshot"), History::Spooled);
    assert_eq!(of("/tsujiban.backup.v1.BackupService/GetSnapshot"), History::Read);
    let unrecorded: Vec<_> = rules.iter().filter(|(_, rule)| rule.history() == History::None).map(|(path, _)| path).collect();
    assert_eq!(unrecorded, ["/tsujiban.audit.v1.AuditService/Append", "/tsujiban.audit.v1.AuditService/Covered"]);
}

/// A method that only looks is a read and a method that writes is not, or somebody mixed them up.
#[test]
fn reads_are_reads() {
    for (path, rule) in Rules::load().unwrap().iter().filter(|(_, rule)| rule.history() != History::None) {
        assert_eq!(rule.history() == History::Read, rule.operation() == Operation::View, "{path}");
    }
}

#[test]
fn an_incomplete_rule_is_refused() {
    let good = || Rule {
        function: "snapshots".into(),
        operation: Operation::View.into(),
        workloads: vec![access::v1::Workload::Backup.into()],
        staff_verb: "get".into(),
        history: History::Read.into(),
    };
    assert_eq!(fault(&good()), None);
    for bad in [
        Rule { function: String::new(), ..good() },
        Rule { function: "Snap-shots".into(), ..good() },
        Rule { operation: 0, ..good() },
        Rule { operation: 77, ..good() },
        Rule { workloads: vec![0], ..good() },
        Rule { workloads: vec![77], ..good() },
        Rule { staff_verb: "destroy".into(), ..good() },
        Rule { history: 0, ..good() },
    ] {
        assert!(fault(&bad).is_some(), "{bad:?}");
    }
}

/// Kinds of fields, as `google/protobuf/descriptor.proto` numbers them.
const INT32: u64 = 5;
const BOOL: u64 = 8;
const STRING: u64 = 9;
const MESSAGE: u64 = 11;
const BYTES: u64 = 12;
const UINT32: u64 = 13;

/// The options of fields.
const GROUP: (u32, u64) = (50651, 1);
const TARGET: (u32, u64) = (50651, 2);
const REVEALS: (u32, u64) = (50652, 1);

fn number(tag: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(tag, WireType::Varint, &mut bytes);
    encode_varint(value, &mut bytes);
    bytes
}

fn bytes(tag: u32, of: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(tag, WireType::LengthDelimited, &mut bytes);
    encode_varint(u64::try_from(of.len()).unwrap(), &mut bytes);
    [bytes, of.to_vec()].concat()
}

/// A field of a contract, with its options.
struct Declared {
    kind: u64,
    type_name: &'static str,
    is_list: bool,
    options: Vec<(u32, u64)>,
}

fn field(kind: u64, options: &[(u32, u64)]) -> Declared {
    Declared { kind, type_name: "", is_list: false, options: options.to_vec() }
}

fn within(type_name: &'static str) -> Declared {
    Declared { type_name, ..field(MESSAGE, &[]) }
}

fn message(name: &str, fields: Vec<Declared>) -> Vec<u8> {
    let fields = fields.into_iter().zip(1..).flat_map(|(Declared { kind, type_name, is_list, options }, place)| {
        let options: Vec<u8> = options.into_iter().flat_map(|(tag, value)| number(tag, value)).collect();
        let type_name = if type_name.is_empty() { Vec::new() } else { bytes(6, type_name.as_bytes()) };
        let label = if is_list { 3 } else { 1 };
        let name = bytes(1, format!("f{place}").as_bytes());
        bytes(2, &[name, number(3, place), number(4, label), number(5, kind), type_name, bytes(8, &options)].concat())
    });
    bytes(4, &[bytes(1, name.as_bytes()), fields.collect()].concat())
}

fn read_rule() -> Rule {
    Rule {
        function: "snapshots".into(),
        operation: Operation::View.into(),
        workloads: vec![],
        staff_verb: "get".into(),
        history: History::Read.into(),
    }
}

/// What is said of contracts that hold, besides ours, one more method and its messages.
fn fault_of(rule: &Rule, takes_many: bool, messages: &[Vec<u8>]) -> Option<String> {
    let options = bytes(50650, &rule.encode_to_vec());
    let types = [bytes(2, b".t.In"), bytes(3, b".t.Out"), bytes(4, &options), number(5, u64::from(takes_many))].concat();
    let method = bytes(2, &[bytes(1, b"Get"), types].concat());
    let service = bytes(6, &[bytes(1, b"Service"), method].concat());
    let head = [bytes(1, b"t.proto"), bytes(2, b"t"), bytes(3, b"tsujiban/access/v1/access.proto")].concat();
    let file = [head, messages.concat(), message("Out", vec![]), service, bytes(12, b"proto3")].concat();
    let pool = DescriptorPool::decode([DESCRIPTORS, &bytes(1, &file)].concat().as_slice()).unwrap();
    Rules::read(&pool).err().map(|error| error.to_string())
}

/// C5, C22: a contract that reveals in a way that the access layer does not see, or cannot record, is not served.
#[test]
fn a_contract_that_could_reveal_without_a_record_is_refused() {
    let whole = || vec![field(STRING, &[GROUP]), field(STRING, &[TARGET]), field(BOOL, &[REVEALS])];
    let fault = |fields: Vec<Declared>| fault_of(&read_rule(), false, &[message("In", fields)]);
    let refused = |fault: Option<String>, why: &str| assert!(fault.as_ref().is_some_and(|fault| fault.contains(why)), "{why}: {fault:?}");
    assert_eq!(fault(whole()), None);
    assert_eq!(fault(vec![]), None);
    assert_eq!(fault(vec![field(BOOL, &[(50652, 0)])]), None, "it says that it does not");

    let spooled = Rule { history: History::Spooled.into(), operation: Operation::Create.into(), ..read_rule() };
    assert_eq!(fault_of(&spooled, false, &[message("In", whole())]), None);
    let unrecorded = Rule { history: History::None.into(), ..read_rule() };
    refused(fault_of(&unrecorded, false, &[message("In", whole())]), "give it a history");
    refused(fault_of(&read_rule(), true, &[message("In", whole())]), "takes a stream");
    refused(fault(vec![field(STRING, &[GROUP]), field(BOOL, &[REVEALS])]), "mark its group and its target");
    refused(fault(vec![field(STRING, &[TARGET]), field(BOOL, &[REVEALS])]), "mark its group and its target");

    for kind in [STRING, BYTES, INT32, UINT32] {
        refused(fault(vec![field(kind, &[REVEALS])]), "is no single bool");
    }
    refused(fault(vec![Declared { is_list: true, ..field(BOOL, &[REVEALS]) }]), "is no single bool");
    refused(fault(vec![field(STRING, &[GROUP, REVEALS])]), "does one of them");
    refused(fault(vec![field(BOOL, &[GROUP])]), "is no text");
    refused(fault(vec![field(BYTES, &[TARGET])]), "is no text");
    refused(fault(vec![field(STRING, &[(50651, 77)])]), "not known");
}

/// A field that reveals lies where the access layer looks, or nowhere.
#[test]
fn a_field_that_reveals_is_within_reach() {
    let top = |inner| vec![field(STRING, &[GROUP]), field(STRING, &[TARGET]), within(inner)];
    let revealing = || message("Deep", vec![field(BOOL, &[REVEALS])]);
    let near = vec![message("In", top(".t.Deep")), revealing()];
    assert_eq!(fault_of(&read_rule(), false, &near), None);
    let chain = [(".t.B", "A"), (".t.C", "B"), (".t.D", "C"), (".t.Deep", "D")].map(|(inner, name)| message(name, vec![within(inner)]));
    let far = [vec![message("In", top(".t.A"))], chain.to_vec(), vec![revealing()]].concat();
    assert!(fault_of(&read_rule(), false, &far).unwrap().contains("deeper"));
    let endless = vec![message("In", top(".t.Deep")), message("Deep", vec![field(BOOL, &[REVEALS]), within(".t.Deep")])];
    assert!(fault_of(&read_rule(), false, &endless).unwrap().contains("deeper"), "a message within itself has no deepest place");
    let nowhere = vec![message("In", vec![]), revealing()];
    assert_eq!(
        fault_of(&read_rule(), false, &nowhere).unwrap(),
        "t.Deep.f1 reveals and is in no request; correct its options in the contract"
    );
}

/// Whatever a contract can name is one of our programs; services are named one by one only where they differ.
#[test]
fn contracts_name_programs_that_there_are() {
    let named: Vec<_> = (1..).map_while(|number| access::v1::Workload::try_from(number).ok()).collect();
    assert!(named.iter().all(|named| !workloads(*named).is_empty()));
    assert_eq!(workloads(access::v1::Workload::Audit), [Workload::Service(Service::Audit)]);
    assert_eq!(workloads(access::v1::Workload::Unspecified), []);
}

/// C5: every service that has operations to record may add them, and the history's own service needs no call for that.
#[test]
fn every_service_may_add_to_the_history() {
    let rules = Rules::load().unwrap();
    let append = rules.of("/tsujiban.audit.v1.AuditService/Append").unwrap();
    for service in Service::ALL.iter().copied() {
        assert_eq!(append.lets(Workload::Service(service)), service.has_spool(), "{service}");
    }
}
