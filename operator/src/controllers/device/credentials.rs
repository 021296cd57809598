//! The Secret with the key pair of a device that brings no credentials of its own. Made once; as long as it exists, its key is
//! never replaced, since the public half is installed on the device.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tsujiban_api::names::{CREDENTIALS_TYPE, FIELD_MANAGER, LABEL_DEVICE, LABEL_MANAGED_BY, LABEL_TENANT, LABEL_TENANT_UID, MANAGED_BY};
use tsujiban_api::{Device, names};
use tsujiban_sealing::Random;

use super::dereference::{Found, secret_shape};
use super::identity::Identity;
use super::keypair::{self, KeyPair, KeyPairError};
use crate::apply::current::is_current;
use crate::apply::{ApplyError, failed};

/// Why a device has no generated credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the key pair could not be made")]
    KeyPair(#[from] KeyPairError),
    #[error(transparent)]
    Write(#[from] ApplyError),
    #[error("conflict: the device changed since it was read; retrying")]
    Outdated,
}

/// Makes sure that a device without credentials of its own has a key pair. Returns its public half.
pub async fn ensure(
    client: &Client,
    random: &dyn Random,
    device: &Device,
    id: &Identity,
    found: &mut Found,
) -> Result<Option<String>, CredentialsError> {
    if found.is_duplicate {
        return Ok(None);
    }
    if let Some(own) = &device.spec.connection.credentials_secret_ref {
        if own.name != names::generated_credentials(id.name.as_str()) {
            discard(client, device, id).await?;
        }
        return Ok(None);
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), &id.namespace);
    let wanted = &device.spec.connection.username;
    if !found.secret.exists {
        let pair = keypair::generate(random, &format!("tsujiban {}/{}", id.group, id.name))?;
        let made = build(id, found, &found.secret.name, wanted, &pair);
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        // a creation, never an apply: a key that exists already stays
        match api.create(&parameters, &made).await {
            Ok(_) => {
                tracing::info!(device = %id.name, namespace = id.namespace, "a key pair was generated for a device");
                return Ok(Some(pair.public));
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                found.secret = secret_shape(client, id, &found.secret.name).await?;
            }
            Err(error) => return Err(failed::<Secret>("create", Some(&id.namespace), &found.secret.name)(error).into()),
        }
    }
    let secret = &found.secret;
    if secret.public_key.is_some() && secret.username.as_ref() != Some(wanted) {
        let patch = Patch::Merge(json!({ "data": { "username": ByteString(wanted.clone().into_bytes()) } }));
        let parameters = PatchParams::apply(FIELD_MANAGER);
        api.patch_metadata(&secret.name, &parameters, &patch).await.map_err(failed::<Secret>(
            "update",
            Some(&id.namespace),
            &secret.name,
        ))?;
    }
    Ok(secret.public_key.clone())
}

fn build(id: &Identity, found: &Found, name: &str, username: &str, pair: &KeyPair) -> Secret {
    let labels = [
        (LABEL_MANAGED_BY, MANAGED_BY.to_owned()),
        (LABEL_TENANT, id.group.to_string()),
        (LABEL_TENANT_UID, found.tenant.uid().unwrap_or_default()),
        (LABEL_DEVICE, id.name.to_string()),
    ];
    let data = [
        ("username", username.as_bytes().to_vec()),
        ("ssh-privatekey", pair.private.as_bytes().to_vec()),
        ("ssh-publickey", pair.public.as_bytes().to_vec()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(id.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        type_: Some(CREDENTIALS_TYPE.to_owned()),
        data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value))).into()),
        ..Secret::default()
    }
}

/// Removes the key pair that was generated before the Device named credentials of its own. The cache may be stale, so the Device is
/// confirmed live first: without credentials of its own, the generated key is the only one that the device accepts.
async fn discard(client: &Client, device: &Device, id: &Identity) -> Result<(), CredentialsError> {
    if !is_generated(client, id).await? {
        return Ok(());
    }
    let devices: Api<Device> = Api::namespaced(client.clone(), &id.namespace);
    if !is_current(&devices, device).await? {
        return Err(CredentialsError::Outdated);
    }
    tracing::info!(device = %id.name, namespace = id.namespace, "the generated key pair goes: the device has credentials of its own");
    Ok(remove(client, id).await?)
}

async fn is_generated(client: &Client, id: &Identity) -> Result<bool, ApplyError> {
    let name = names::generated_credentials(id.name.as_str());
    let api: Api<Secret> = Api::namespaced(client.clone(), &id.namespace);
    Ok(api.get_metadata_opt(&name).await.map_err(failed::<Secret>("read", Some(&id.namespace), &name))?.is_some())
}

/// Removes the generated key pair of a device that needs it no more.
pub async fn remove(client: &Client, id: &Identity) -> Result<(), ApplyError> {
    let name = names::generated_credentials(id.name.as_str());
    let api: Api<Secret> = Api::namespaced(client.clone(), &id.namespace);
    let found = api.get_metadata_opt(&name).await.map_err(failed::<Secret>("read", Some(&id.namespace), &name))?;
    let is_ours = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(LABEL_MANAGED_BY).is_some_and(|by| by == MANAGED_BY)
            && labels.get(LABEL_DEVICE).is_some_and(|device| device == id.name.as_str())
    };
    match found.filter(|secret| is_ours(secret.labels())) {
        Some(secret) => {
            let preconditions = kube::api::Preconditions { uid: secret.metadata.uid, resource_version: None };
            match api.delete(&name, &kube::api::DeleteParams::background().preconditions(preconditions)).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                other => other.map(|_| ()).map_err(failed::<Secret>("delete", Some(&id.namespace), &name)),
            }
        }
        None => Ok(()),
    }
}
