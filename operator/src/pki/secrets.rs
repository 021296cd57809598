//! Secrets of the operator in the system namespace. Each is created once; changes are conditional on what was read.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use tsujiban_api::names::{FIELD_MANAGER, LABEL_MANAGED_BY, MANAGED_BY};

use crate::apply::{ApplyError, failed};

pub type Data = BTreeMap<String, Vec<u8>>;

/// The Secrets of one namespace.
pub struct Secrets {
    pub api: Api<Secret>,
    pub namespace: String,
}

/// A Secret as it was read.
pub struct Read {
    secret: Secret,
    pub data: Data,
}

impl Read {
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.secret.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// What a Secret is created with besides its data.
#[derive(Debug, Default)]
pub struct Properties {
    pub immutable: bool,
    pub annotations: BTreeMap<String, String>,
}

impl Secrets {
    pub async fn get(&self, name: &str) -> Result<Option<Read>, ApplyError> {
        let secret = self.api.get_opt(name).await.map_err(failed::<Secret>("read", Some(&self.namespace), name))?;
        Ok(secret.map(|secret| {
            let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
            Read { secret, data }
        }))
    }

    /// Creates a Secret. Returns `false` if one of this name exists already, which stays unchanged.
    pub async fn create(&self, name: &str, data: Data, properties: Properties) -> Result<bool, ApplyError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned())].into()),
                annotations: (!properties.annotations.is_empty()).then_some(properties.annotations),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(encode(data)),
            immutable: properties.immutable.then_some(true),
            ..Secret::default()
        };
        match self.api.create(&parameters(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(failed::<Secret>("create", Some(&self.namespace), name)(error)),
        }
    }

    /// Makes a Secret hold `data`. Fails when it was changed after it was read; nothing is written when nothing differs.
    pub async fn put(&self, name: &str, read: Option<Read>, data: Data) -> Result<(), ApplyError> {
        match read {
            None => self.create(name, data, Properties::default()).await.map(|_| ()),
            Some(read) if read.data == data => Ok(()),
            Some(Read { mut secret, .. }) => {
                secret.data = Some(encode(data));
                let replaced = self.api.replace(name, &parameters(), &secret).await;
                replaced.map(|_| ()).map_err(failed::<Secret>("replace", Some(&self.namespace), name))
            }
        }
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn encode(data: Data) -> BTreeMap<String, ByteString> {
    data.into_iter().map(|(key, value)| (key, ByteString(value))).collect()
}
