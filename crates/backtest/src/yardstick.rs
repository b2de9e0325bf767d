//! The words of the yardstick's files, and what they are in the product: the one place where both are known.

use faultline_detect::{Class, Dimension, Signal, Slice};

/// How attempts end: the tag in `counts.csv.gz`, and the class.
pub(crate) const TAGS: [(&str, Class); 10] = [
    ("approved", Class::Approved),
    ("funds", Class::Funds),
    ("cardholder", Class::Cardholder),
    ("issuer_refusal", Class::IssuerRefusal),
    ("issuer_down", Class::IssuerDown),
    ("issuer_timeout", Class::IssuerTimeout),
    ("host_unreachable", Class::HostUnreachable),
    ("device_read", Class::DeviceRead),
    ("local_network", Class::LocalNetwork),
    ("security", Class::Security),
];

/// The cause of an incident whose approvals are missing.
const VOLUME: &str = "volume";

/// What attempts are told apart by: the column in `leaves.csv`, and the dimension. Firmware is one word with its model there.
pub(crate) const ATTRIBUTES: [(&str, Dimension); 9] = [
    ("acquirer", Dimension::Acquirer),
    ("carrier", Dimension::Carrier),
    ("entry", Dimension::EntryMode),
    ("firmware", Dimension::Firmware),
    ("host", Dimension::Host),
    ("issuer", Dimension::Issuer),
    ("merchant_group", Dimension::MerchantGroup),
    ("model_firmware", Dimension::Model),
    ("region", Dimension::Region),
];

/// The slice of a text: `fleet`, or `attribute=value` joined by `&`. Nothing where it is none.
#[must_use]
pub fn slice_named(text: &str) -> Option<Slice> {
    if text == "fleet" || text.is_empty() {
        return Some(Slice::fleet());
    }
    let values = text.split('&').map(|part| {
        let (name, value) = part.split_once('=')?;
        let (_, dimension) = ATTRIBUTES.iter().find(|(attribute, _)| *attribute == name)?;
        Some((*dimension, value))
    });
    Some(Slice::new(values.collect::<Option<Vec<_>>>()?))
}

/// A slice as a text, attributes in alphabetical order.
#[must_use]
pub fn slice_text(slice: &Slice) -> String {
    let name = |dimension| ATTRIBUTES.iter().find(|(_, own)| *own == dimension).map_or("", |(attribute, _)| attribute);
    let mut parts: Vec<String> = slice.values().map(|(dimension, value)| format!("{}={value}", name(dimension))).collect();
    if parts.is_empty() {
        return "fleet".into();
    }
    parts.sort_unstable();
    parts.join("&")
}

/// The cause of an incident, by its signals: the tag that fails, or `volume` where only approvals are missing.
#[must_use]
pub fn cause_of(signals: impl Iterator<Item = Signal>) -> &'static str {
    let mut causes = signals.filter_map(|signal| match signal {
        Signal::Failures(class) => Some(TAGS.iter().find(|(_, own)| *own == class).map_or(class.name(), |(tag, _)| tag)),
        Signal::MissingApprovals => None,
    });
    causes.next().unwrap_or(VOLUME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_read_as_it_is_written() {
        for text in ["fleet", "issuer=b01", "carrier=c1&region=r02", "entry=chip&issuer=b07", "model_firmware=m1-fw2"] {
            assert_eq!(slice_text(&slice_named(text).unwrap()), text);
        }
        assert_eq!(slice_named(""), Some(Slice::fleet()));
        assert_eq!((slice_named("weather=rain"), slice_named("issuer")), (None, None));
    }

    #[test]
    fn failures_say_more_than_silence() {
        let silent = [Signal::MissingApprovals, Signal::Failures(Class::IssuerTimeout)];
        assert_eq!(cause_of(silent.into_iter()), "issuer_timeout");
        assert_eq!(cause_of([Signal::MissingApprovals].into_iter()), "volume");
        assert_eq!(cause_of([Signal::Failures(Class::NoAnswer)].into_iter()), "no_answer");
    }
}
