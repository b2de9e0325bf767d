//! Faultline's wire contract, generated from the `.proto` files beside this crate. Their comments are the documentation: units, limits, and
//! what an absent field means.
//!
//! Without feature `grpc` this is plain messages; with it, the client and the server of every service as well.

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
    /// The service between terminals and Faultline.
    ingest
}
area! {
    /// What terminals report: batches of events, each the outcome of one transaction attempt.
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

/// The whole contract as an encoded `google.protobuf.FileDescriptorSet`, comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::outcome::v1::{Event, Outcome, OutcomeBatch, Stage, TransactionType};

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

    /// A card number, a track or a PIN cannot be reported by mistake where there is no field for it.
    #[test]
    fn no_field_is_made_for_cardholder_data() {
        fn visit(message: &DescriptorProto) {
            for field in &message.field {
                let name = field.name();
                let words: Vec<&str> = name.split('_').collect();
                for forbidden in ["pan", "track", "track1", "track2", "pin", "cvv", "cvc", "cvv2", "cardholder", "expiry"] {
                    let harmless = ["pin_entry_ms", "pin_pad"].contains(&name);
                    assert!(harmless || !words.contains(&forbidden), "{}.{name}", message.name());
                }
            }
            message.nested_type.iter().for_each(visit);
        }
        let contract = contract();
        let files: Vec<_> = contract.file.iter().filter(|file| file.package().starts_with("faultline.")).collect();
        assert!(files.len() >= 8, "{}", files.len());
        files.iter().flat_map(|file| &file.message_type).for_each(visit);
    }
}
