//! Where a fault may be that makes many outcomes fail.

/// A way to cut a fleet: what fails together has the same value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Everything there is.
    Fleet,
    /// The acquirer.
    Acquirer,
    /// A host of an acquirer.
    Host,
    /// A route to an acquirer.
    Route,
    /// The bank that issued the card.
    Issuer,
    /// The card's leading digits.
    Bin,
    /// The carrier.
    Carrier,
    /// The region.
    Region,
    /// A carrier in a region.
    CarrierRegion,
    /// The terminal's model and firmware.
    ModelFirmware,
    /// The payment application and its version.
    Application,
    /// The shop.
    Shop,
    /// The terminal.
    Terminal,
    /// The card.
    Card,
    /// The sale itself: nothing else fails with it.
    Sale,
}

impl Family {
    /// All of them, the larger before the smaller.
    pub const ALL: [Family; 15] = [
        Family::Fleet,
        Family::Acquirer,
        Family::Host,
        Family::Route,
        Family::Issuer,
        Family::Bin,
        Family::Carrier,
        Family::Region,
        Family::CarrierRegion,
        Family::ModelFirmware,
        Family::Application,
        Family::Shop,
        Family::Terminal,
        Family::Card,
        Family::Sale,
    ];

    /// As rule sets write it: `carrier_region`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::Fleet => "fleet",
            Family::Acquirer => "acquirer",
            Family::Host => "host",
            Family::Route => "route",
            Family::Issuer => "issuer",
            Family::Bin => "bin",
            Family::Carrier => "carrier",
            Family::Region => "region",
            Family::CarrierRegion => "carrier_region",
            Family::ModelFirmware => "model_firmware",
            Family::Application => "application",
            Family::Shop => "shop",
            Family::Terminal => "terminal",
            Family::Card => "card",
            Family::Sale => "sale",
        }
    }
}
