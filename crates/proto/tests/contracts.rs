//! What is on the wire keeps its names and numbers.

use prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor};
use tsujiban_proto::DESCRIPTORS;

/// Every method, field and enum value. A line that changes or goes breaks clients of before; a new one is accepted with `cargo insta accept`.
#[test]
fn contracts_keep_their_names_and_numbers() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let ours = |package: &str| package.starts_with("tsujiban.");
    let methods = pool.services().filter(|service| ours(service.package_name())).flat_map(|service| service.methods().collect::<Vec<_>>());
    let methods = methods.map(|method| {
        let stream = |is_one: bool| if is_one { "stream " } else { "" };
        let (takes, gives) = (stream(method.is_client_streaming()), stream(method.is_server_streaming()));
        format!("{}: {takes}{} -> {gives}{}", method.full_name(), method.input().full_name(), method.output().full_name())
    });
    let fields = pool.all_messages().filter(|message| ours(message.package_name())).flat_map(|message| fields(&message));
    let values = pool.all_enums().filter(|kind| ours(kind.package_name())).flat_map(|kind| values(&kind));
    let mut lines: Vec<String> = methods.chain(fields).chain(values).collect();
    lines.sort();
    insta::assert_snapshot!("contracts", lines.join("\n"));
}

fn fields(message: &MessageDescriptor) -> Vec<String> {
    let many = |is_list: bool| if is_list { "repeated " } else { "" };
    message
        .fields()
        .map(|field| format!("{} = {}: {}{:?}", field.full_name(), field.number(), many(field.is_list()), field.kind()))
        .collect()
}

fn values(kind: &EnumDescriptor) -> Vec<String> {
    kind.values().map(|value| format!("{}.{} = {}", kind.full_name(), value.name(), value.number())).collect()
}
