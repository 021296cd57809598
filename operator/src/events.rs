//! Events about objects, for people.

use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tsujiban_api::names::FIELD_MANAGER;

/// How many events a recorder publishes before it is replaced. To count repetitions, a recorder keeps every event, and drops old ones only
/// when it publishes another one minutes later; those of a thousand groups that became ready together would stay in memory.
const HELD: u32 = 200;

/// Publishes events.
pub struct Events {
    client: Client,
    recorder: Mutex<(Recorder, u32)>,
}

impl Events {
    pub fn new(client: Client) -> Self {
        Self { recorder: Mutex::new((recorder(&client), 0)), client }
    }

    /// Tells people about something that happened to an object. Best effort: nothing depends on it.
    pub async fn tell(&self, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let note = Some(shortened(note));
        let event = Event { type_, reason: reason.to_owned(), note, action: "Reconcile".to_owned(), secondary: None };
        if let Err(error) = self.recorder().publish(&event, about).await {
            tracing::debug!(error = %error, reason, "an event could not be published");
        }
    }

    fn recorder(&self) -> Recorder {
        let mut held = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, count) = &mut *held;
        *count += 1;
        if *count > HELD {
            (*known, *count) = (recorder(&self.client), 1);
        }
        known.clone()
    }
}

fn recorder(client: &Client) -> Recorder {
    Recorder::new(client.clone(), Reporter::from(FIELD_MANAGER))
}

/// As much of a note as an Event may have: 1 kB.
fn shortened(mut note: String) -> String {
    const MOST: usize = 1000;
    if note.len() > MOST {
        let end = (0..=MOST).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
        note.truncate(end);
        note.push_str(" ...");
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_fits_into_an_event() {
        assert_eq!(shortened("short".to_owned()), "short");
        for long in ["a".repeat(5000), "東".repeat(2000)] {
            let note = shortened(long);
            assert!((1000..1024).contains(&note.len()) && note.ends_with(" ..."), "{}", note.len());
        }
    }
}
