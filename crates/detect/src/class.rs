//! Classes of how attempts end, what of them is watched, and whose fault it is when it goes wrong in a slice.

use faultline_proto::verdict::v1::Cause;

use crate::slice::{Dimension, Kind};

/// How an attempt ended, as far as detection is concerned: the first half of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the rules of `crates/verdict` say what is in each class")]
pub enum Class {
    Approved,
    Funds,
    Cardholder,
    IssuerRefusal,
    IssuerDown,
    IssuerTimeout,
    NoAnswer,
    HostUnreachable,
    LocalNetwork,
    DeviceRead,
    DeviceFault,
    Security,
    Acquirer,
    Operator,
    Unknown,
}

/// What is known of a class.
struct About {
    class: Class,
    name: &'static str,
    /// Its share of attempts where nothing is known: a guess that is worth twelve failures (see `baseline`).
    usual: f64,
    /// By which dimensions a fault of this class can plausibly be cut. None: the class is not watched.
    cut_by: Option<&'static [Dimension]>,
}

use Dimension as D;

const ABOUT: [About; 15] = [
    About { class: Class::Approved, name: "approved", usual: 0.93, cut_by: None },
    // Accounts are empty before paydays, and that is nobody's fault.
    About { class: Class::Funds, name: "funds", usual: 0.02, cut_by: None },
    About { class: Class::Cardholder, name: "cardholder", usual: 0.01, cut_by: None },
    About { class: Class::IssuerRefusal, name: "issuer_refusal", usual: 0.01, cut_by: Some(&[D::Issuer]) },
    About { class: Class::IssuerDown, name: "issuer_down", usual: 0.001, cut_by: Some(&[D::Issuer]) },
    About { class: Class::IssuerTimeout, name: "issuer_timeout", usual: 0.002, cut_by: Some(&[D::Issuer, D::Host]) },
    About { class: Class::NoAnswer, name: "no_answer", usual: 0.002, cut_by: Some(&[D::Issuer, D::Host, D::Carrier, D::Region]) },
    About {
        class: Class::HostUnreachable,
        name: "host_unreachable",
        usual: 0.003,
        cut_by: Some(&[D::Host, D::Carrier, D::Region, D::Model]),
    },
    About {
        class: Class::LocalNetwork,
        name: "local_network",
        usual: 0.003,
        cut_by: Some(&[D::Carrier, D::Region, D::Model, D::MerchantGroup]),
    },
    About { class: Class::DeviceRead, name: "device_read", usual: 0.005, cut_by: Some(&[D::Model]) },
    About { class: Class::DeviceFault, name: "device_fault", usual: 0.001, cut_by: Some(&[D::Model]) },
    About { class: Class::Security, name: "security", usual: 0.0005, cut_by: Some(&[D::Model, D::Host]) },
    About { class: Class::Acquirer, name: "acquirer", usual: 0.001, cut_by: Some(&[D::Host]) },
    About { class: Class::Operator, name: "operator", usual: 0.002, cut_by: Some(&[D::MerchantGroup]) },
    About { class: Class::Unknown, name: "unknown", usual: 0.001, cut_by: Some(&[]) },
];

impl Class {
    /// The class of a tag: `issuer_down/host_decision`. One that is not known, of newer rules, is [`Class::Unknown`].
    #[must_use]
    pub fn of_tag(tag: &str) -> Class {
        let name = tag.split_once('/').map_or(tag, |(class, _)| class);
        Class::named(name).unwrap_or(Class::Unknown)
    }

    /// The class of this name.
    pub(crate) fn named(name: &str) -> Option<Class> {
        ABOUT.iter().find(|about| about.name == name).map(|about| about.class)
    }

    /// Its name: `issuer_down`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.about().map_or("unknown", |about| about.name)
    }

    /// All of them, by their number.
    pub const ALL: [Class; ABOUT.len()] = [
        Class::Approved,
        Class::Funds,
        Class::Cardholder,
        Class::IssuerRefusal,
        Class::IssuerDown,
        Class::IssuerTimeout,
        Class::NoAnswer,
        Class::HostUnreachable,
        Class::LocalNetwork,
        Class::DeviceRead,
        Class::DeviceFault,
        Class::Security,
        Class::Acquirer,
        Class::Operator,
        Class::Unknown,
    ];

    /// How many there are.
    pub(crate) const NUMBER: usize = ABOUT.len();

    /// Its number, below [`Class::NUMBER`].
    pub(crate) fn number(self) -> usize {
        self as usize
    }

    /// Those whose rates are watched.
    pub(crate) fn watched() -> impl Iterator<Item = Class> {
        ABOUT.iter().filter(|about| about.cut_by.is_some()).map(|about| about.class)
    }

    /// Whether its rate is watched. Paydays raise `funds`, and cardholders mistype; no fault does.
    pub(crate) fn is_watched(self) -> bool {
        self.about().is_some_and(|about| about.cut_by.is_some())
    }

    /// Its share of attempts where nothing is known.
    pub(crate) fn usual(self) -> f64 {
        self.about().map_or(0.001, |about| about.usual)
    }

    /// Whether an attempt that ends so got no answer, so that its approval is missing.
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Class::IssuerTimeout | Class::NoAnswer | Class::HostUnreachable | Class::LocalNetwork)
    }

    /// Whether a fault of this class can plausibly be one of a slice of this kind. Where not, more evidence is asked for.
    pub(crate) fn is_plausible_in(self, kind: &Kind) -> bool {
        let cut_by = self.about().and_then(|about| about.cut_by).unwrap_or_default();
        cut_by.iter().any(|dimension| kind.has(*dimension)) || (self == Class::Acquirer && kind.is_fleet())
    }

    fn about(self) -> Option<&'static About> {
        ABOUT.get(self.number())
    }
}

/// What is watched of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// The share of attempts that fail so.
    Failures(Class),
    /// Approvals that should be there.
    MissingApprovals,
}

impl Signal {
    /// Its name: that of the class, or `missing_approvals`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Signal::Failures(class) => class.name(),
            Signal::MissingApprovals => "missing_approvals",
        }
    }

    /// The signal of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Signal> {
        if name == Signal::MissingApprovals.name() {
            return Some(Signal::MissingApprovals);
        }
        Class::named(name).map(Signal::Failures)
    }

    /// The class whose failures it is.
    pub(crate) fn class(self) -> Option<Class> {
        match self {
            Signal::Failures(class) => Some(class),
            Signal::MissingApprovals => None,
        }
    }
}

/// Whose fault it is when a slice of this kind gives these signals: what each outcome says, corrected by what the slice says.
pub(crate) fn cause(signals: impl Iterator<Item = Signal>, kind: &Kind) -> Cause {
    // What failed says more than what is missing.
    let by_slice = || {
        [
            (Dimension::Issuer, Cause::Bank),
            (Dimension::Host, Cause::Other),
            (Dimension::Carrier, Cause::Network),
            (Dimension::Region, Cause::Network),
            (Dimension::Model, Cause::Device),
        ]
        .into_iter()
        .find(|(dimension, _)| kind.has(*dimension))
        .map_or(Cause::Unknown, |(_, cause)| cause)
    };
    let of_class = |class| match class {
        Class::IssuerRefusal | Class::IssuerDown if kind.has(Dimension::Issuer) => Cause::Bank,
        // The same answer for several banks is the switch's.
        Class::IssuerRefusal | Class::IssuerDown | Class::Acquirer | Class::Operator => Cause::Other,
        Class::IssuerTimeout | Class::NoAnswer | Class::HostUnreachable if kind.is_fleet() => Cause::Other,
        Class::IssuerTimeout | Class::NoAnswer | Class::HostUnreachable => by_slice(),
        Class::LocalNetwork if kind.has(Dimension::Model) => Cause::Device,
        Class::LocalNetwork => Cause::Network,
        Class::DeviceRead | Class::DeviceFault => Cause::Device,
        Class::Security if kind.has(Dimension::Host) => Cause::Other,
        Class::Security => Cause::Device,
        Class::Approved | Class::Funds | Class::Cardholder | Class::Unknown => Cause::Unknown,
    };
    let mut causes = signals.filter_map(Signal::class).map(of_class);
    causes.next().unwrap_or_else(by_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Slice;

    #[test]
    fn a_tag_has_a_class() {
        assert_eq!(Class::of_tag("issuer_down/host_decision"), Class::IssuerDown);
        assert_eq!(Class::of_tag("approved/print"), Class::Approved);
        assert_eq!(Class::of_tag("weather/none"), Class::Unknown);
        assert_eq!(ABOUT.map(|about| about.class), Class::ALL);
        for about in &ABOUT {
            assert_eq!(ABOUT[about.class.number()].class, about.class);
            assert_eq!((Class::named(about.name), about.class.name()), (Some(about.class), about.name));
            assert_eq!(Signal::named(about.name), Some(Signal::Failures(about.class)));
        }
        assert_eq!(Signal::named(Signal::MissingApprovals.name()), Some(Signal::MissingApprovals));
        assert!(!Class::Funds.is_watched() && Class::Unknown.is_watched());
    }

    #[test]
    fn the_slice_says_whose_fault_silence_is() {
        let kind = |dimension| Slice::new([(dimension, "x")]).kind();
        let of = |signal, dimension| cause([signal].into_iter(), &kind(dimension));
        let timeout = Signal::Failures(Class::IssuerTimeout);
        assert_eq!(of(timeout, D::Issuer), Cause::Bank);
        assert_eq!(of(timeout, D::Carrier), Cause::Network);
        assert_eq!(of(timeout, D::Host), Cause::Other);
        assert_eq!(of(Signal::Failures(Class::HostUnreachable), D::Host), Cause::Other);
        assert_eq!(of(Signal::Failures(Class::IssuerDown), D::Issuer), Cause::Bank);
        assert_eq!(of(Signal::Failures(Class::IssuerDown), D::Host), Cause::Other);
        assert_eq!(of(Signal::MissingApprovals, D::Issuer), Cause::Bank);
        let both = [Signal::MissingApprovals, Signal::Failures(Class::DeviceRead)];
        assert_eq!(cause(both.into_iter(), &kind(D::Model)), Cause::Device);
        assert_eq!(cause([Signal::MissingApprovals].into_iter(), &Slice::fleet().kind()), Cause::Unknown);
    }
}
