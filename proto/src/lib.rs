//! Faultline's wire contract, generated from the `.proto` files beside this crate. Their comments are the documentation: units, limits, and
//! what an absent field means.
//!
//! Without feature `grpc` this is plain messages; with it, the client and the server of every service as well. Feature `json` reads and writes messages as JSON.

/// The module of one area of the contract, package `faultline.<area>.v1`.
macro_rules! area {
    ($(#[$documentation:meta])* $area:ident) => {
        $(#[$documentation])*
        pub mod $area {
            /// Version 1.
            #[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated")]
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/faultline.", stringify!($area), ".v1.rs"));
            }
        }
    };
}

area! {
    /// A later truth about outcomes that are stored.
    correction
}
area! {
    /// A fault of a part of the fleet.
    incident
}
area! {
    /// The service between terminals and Faultline: batches of events, and their acknowledgement.
    ingest
}
area! {
    /// How one transaction attempt ended.
    outcome
}
area! {
    /// Terminals themselves: what they are, how they are, how they are to report, what they should warn of.
    terminal
}
area! {
    /// Whose fault a failure is.
    verdict
}

/// Messages as JSON.
#[cfg(feature = "json")]
pub mod json;

/// The whole contract as an encoded `google.protobuf.FileDescriptorSet`, comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::Message;
    use prost_types::{FieldDescriptorProto, FileDescriptorSet};

    use super::ingest::v1::{Event, OutcomeBatch};
    use super::outcome::v1::{Outcome, Stage, TransactionType};

    fn contract() -> FileDescriptorSet {
        FileDescriptorSet::decode(super::DESCRIPTORS).unwrap()
    }

    #[test]
    fn messages_are_the_same_after_a_round_trip() {
        let outcome = Outcome {
            merchant_id: "898440351980012".into(),
            r#type: TransactionType::Sale.into(),
            stage: Stage::Wait.into(),
            amount_minor: 1234,
            currency_code: "CNY".into(),
            ..Outcome::default()
        };
        let batch = OutcomeBatch {
            spool_id: 7,
            events: vec![Event { sequence: 1, age_ms: Some(0), outcome: Some(outcome) }],
            ..OutcomeBatch::default()
        };
        assert_eq!(OutcomeBatch::decode(batch.encode_to_vec().as_slice()), Ok(batch));
    }

    /// Every field of the contract, as message and field, with its comment.
    fn fields() -> Vec<(String, FieldDescriptorProto, String)> {
        let mut fields = Vec::new();
        for file in contract().file.iter().filter(|file| file.package().starts_with("faultline.")) {
            let comments = file.source_code_info.iter().flat_map(|info| &info.location);
            let comments: HashMap<&[i32], &str> = comments.map(|place| (place.path.as_slice(), place.leading_comments())).collect();
            for (message_index, message) in (0..).zip(&file.message_type) {
                assert!(message.nested_type.is_empty(), "{} has messages inside, which this does not visit", message.name());
                for (field_index, field) in (0..).zip(&message.field) {
                    // The numbers of `message_type` and `field` in descriptor.proto.
                    let comment = comments.get([4, message_index, 2, field_index].as_slice()).copied().unwrap_or_default();
                    fields.push((format!("{}.{}", message.name(), field.name()), field.clone(), comment.to_owned()));
                }
            }
        }
        assert!(fields.len() > 100, "only {} fields were found", fields.len());
        fields
    }

    /// A card number, a track or a PIN cannot be reported by mistake where there is no field for it.
    #[test]
    fn no_field_is_made_for_cardholder_data() {
        for (name, field, _) in fields() {
            let words: Vec<&str> = field.name().split('_').collect();
            let pairs: Vec<String> = words.windows(2).map(|pair| pair.join("_")).collect();
            for forbidden in
                ["pan", "track", "track1", "track2", "pin", "cvv", "cvc", "cvv2", "cardholder", "expiry", "card_number", "account_number"]
            {
                let harmless = ["pin_entry_ms", "pin_pad"].contains(&field.name());
                assert!(harmless || !(words.contains(&forbidden) || pairs.iter().any(|pair| pair == forbidden)), "{name}");
            }
        }
    }

    #[test]
    fn every_field_without_a_bound_of_its_own_states_its_limit() {
        use prost_types::field_descriptor_proto::{Label, Type};
        for (name, field, comment) in fields() {
            let bounded = matches!(field.r#type(), Type::Bool | Type::Enum | Type::Message) && field.label() != Label::Repeated;
            // The stages share one limit, stated once for all.
            let stated = comment.contains("Limit: ") || name.starts_with("StageLatencies.");
            assert!(bounded || stated, "{name} has no limit: {comment}");
        }
    }
}
