//! How well a terminal, a shop's network and a merchant's staff do over a time, by what was counted of them. Pure: whoever asks brings the counts.
//!
//! Everything is judged by what is sure: not by the rate that was seen, but by the least that it is, given how often it was looked (a one-sided bound of 95 %, after the
//! usual rate was counted in as if it had been seen for a while). So three sales prove nothing, and the same rate over more sales proves more.
//! `docs/health.md` has the formulae in words.

use crate::LocalizedText;

/// Quantile of the standard normal distribution for a one-sided bound of 95 %.
const Z: f64 = 1.645;
/// For how many tries the usual is counted in; for how many hours, and days.
const PRIOR_TRIES: f64 = 30.0;
const PRIOR_HOURS: f64 = 10.0;
const PRIOR_DAYS: f64 = 2.0;
/// How much of the loss of the parts beside the worst counts.
const BESIDE_THE_WORST: f64 = 0.25;
/// With fewer attempts nothing is said of a shop or a merchant, nor of a shop by its neighbours.
pub const LEAST_ATTEMPTS: f64 = 30.0;
/// How many times what is usual something has to be.
const CONSPICUOUS: f64 = 2.0;
/// What is too rare to matter, whatever is usual.
const NEGLIGIBLE: f64 = 0.01;

/// How often something happened, of how many times it could have; or in how many hours or days.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// How often it happened.
    pub times: f64,
    /// Of how many.
    pub of: f64,
}

/// What was counted of a terminal; nothing of what it does not measure. Each field has its measure in [`Measure`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    /// By its reader's own counters: sales in which a read failed, of reads.
    pub failed_reads: Counted,
    /// Sales that ended at their first attempt because the card was not read, of those with a card.
    pub unread_sales: Counted,
    /// Times that the stripe was taken because the chip was not read, of reads.
    pub fallbacks: Counted,
    /// Hours in which the PIN pad was found opened or attacked, of hours in which it was looked at.
    pub tampered: Counted,
    /// Hours in which the PIN pad was found away or faulty.
    pub pin_pad_hours: Counted,
    /// Attempts that ended because of the PIN pad, of those with a PIN.
    pub pin_pad_failures: Counted,
    /// Hours in which the printer was found faulty or too hot.
    pub printer_hours: Counted,
    /// Attempts whose receipt a broken printer did not print, of all.
    pub unprinted: Counted,
    /// Percent of a full charge that went, of hours without a charger.
    pub drained: Counted,
    /// Attempts that ended because the battery was too low, of all.
    pub battery_low: Counted,
    /// How the loss of charge an hour changes.
    pub drain_trend: Trend,
    /// Times that it started, of days.
    pub starts: Counted,
    /// Hours in which the signal was weak, of hours in which it was measured.
    pub weak_signal: Counted,
    /// Connections that were set up again after a loss, of hours.
    pub reconnects: Counted,
}

/// Sums over points of a trend: x in days, y in percent an hour. Sums of two sets of points are those of both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trend {
    /// Points.
    pub number: f64,
    /// Sum of x.
    pub x: f64,
    /// Sum of y.
    pub y: f64,
    /// Sum of the squares of x.
    pub xx: f64,
    /// Sum of x times y.
    pub xy: f64,
    /// Sum of the squares of y.
    pub yy: f64,
}

/// A part of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The card reader.
    Reader,
    /// The PIN pad.
    PinPad,
    /// The printer.
    Printer,
    /// The battery.
    Battery,
    /// What it runs on: power, firmware.
    Power,
    /// Antenna and place.
    Signal,
    /// The connection.
    Connection,
}

/// What shows that a part is worn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is a field of `Device`")]
pub enum Measure {
    FailedReads,
    UnreadSales,
    Fallbacks,
    Tampered,
    PinPadHours,
    PinPadFailures,
    PrinterHours,
    Unprinted,
    Drained,
    BatteryLow,
    DrainTrend,
    Starts,
    WeakSignal,
    Reconnects,
}

impl Part {
    /// Its stable identifier: `pin_pad`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Part::Reader => "reader",
            Part::PinPad => "pin_pad",
            Part::Printer => "printer",
            Part::Battery => "battery",
            Part::Power => "power",
            Part::Signal => "signal",
            Part::Connection => "connection",
        }
    }
}

impl Measure {
    /// Its stable identifier: `failed_reads`.
    #[must_use]
    pub fn id(self) -> &'static str {
        self.words().0
    }

    /// What it says.
    #[must_use]
    pub fn meaning(self) -> LocalizedText {
        let (_, [zh_cn, en], _) = self.words();
        LocalizedText { zh_cn: zh_cn.into(), en: en.into() }
    }

    /// What maintenance is to be done.
    #[must_use]
    pub fn advice(self) -> LocalizedText {
        let (_, _, [zh_cn, en]) = self.words();
        LocalizedText { zh_cn: zh_cn.into(), en: en.into() }
    }

    /// Identifier, meaning and advice.
    fn words(self) -> (&'static str, [&'static str; 2], [&'static str; 2]) {
        let clean = [
            "清洁读卡器（芯片槽、感应区、磁头）并重新安装；无改善则送修。",
            "Clean the reader (chip slot, contactless window, magnetic head) and re-seat it. If that does not help, send the terminal in.",
        ];
        let keypad = [
            "重新插好密码键盘并检查连线与供电；无改善则送修。",
            "Re-seat the PIN pad, check its cable and power. If that does not help, send it in.",
        ];
        let printer = [
            "检查打印纸与仓盖，清洁打印头；无改善则更换打印机或送修。",
            "Check paper and lid, clean the print head. If that does not help, change the printer or send the terminal in.",
        ];
        let battery = ["检查充电器与底座，更换电池。", "Check charger and cradle, and change the battery."];
        match self {
            Measure::FailedReads => ("failed_reads", ["读卡失败的交易", "Sales in which a card was not read at once"], clean),
            Measure::UnreadSales => {
                ("unread_sales", ["首次尝试未能读卡的交易", "Sales whose card was not read at the first attempt"], clean)
            }
            Measure::Fallbacks => ("fallbacks", ["芯片读取失败后改刷磁条", "The stripe was taken because the chip was not read"], clean),
            Measure::Tampered => (
                "tampered",
                ["密码键盘防拆触发", "The PIN pad was opened or attacked"],
                [
                    "立即停用该终端并送修，请勿再输入密码。",
                    "Take the terminal out of use at once and send it in. Nobody should enter a PIN on it.",
                ],
            ),
            Measure::PinPadHours => ("pin_pad_hours", ["密码键盘断开或故障", "The PIN pad was away or faulty"], keypad),
            Measure::PinPadFailures => ("pin_pad_failures", ["因密码键盘失败的交易", "Attempts that ended because of the PIN pad"], keypad),
            Measure::PrinterHours => ("printer_hours", ["打印机故障或过热", "The printer was faulty or too hot"], printer),
            Measure::Unprinted => ("unprinted", ["因打印机故障未出签购单", "Receipts that a broken printer did not print"], printer),
            Measure::Drained => ("drained", ["未充电时电量下降过快", "The charge goes fast without a charger"], battery),
            Measure::BatteryLow => {
                ("battery_low", ["因电量过低失败的交易", "Attempts that ended because the battery was too low"], battery)
            }
            Measure::DrainTrend => ("drain_trend", ["电量下降越来越快", "The charge goes faster from day to day"], battery),
            Measure::Starts => (
                "starts",
                ["频繁重启", "It starts again often"],
                [
                    "检查电源、底座触点与固件版本；无改善则送修。",
                    "Check power supply, cradle contacts and firmware. If that does not help, send it in.",
                ],
            ),
            Measure::WeakSignal => (
                "weak_signal",
                ["信号弱", "The signal is weak"],
                [
                    "检查天线与 SIM 卡，将终端移到信号好的位置，或改用 Wi-Fi/移动数据；仍弱请联系运营商。",
                    "Check antenna and SIM, move the terminal to a better place, or change between Wi-Fi and mobile data. If it stays weak, call the carrier.",
                ],
            ),
            Measure::Reconnects => (
                "reconnects",
                ["频繁断线重连", "The connection is lost often"],
                [
                    "检查信号与路由器，必要时重启路由器，或在 Wi-Fi 与移动数据间切换；同店多台请查线路。",
                    "Check signal and router, restart the router, or change between Wi-Fi and mobile data. Several terminals of a shop: its line.",
                ],
            ),
        }
    }
}

/// How a terminal stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// From 0 to 100; 100 where nothing is known against it.
    pub score: f64,
    /// Parts that something is known against, the worst first.
    pub parts: Vec<PartScore>,
}

/// What is known against a part.
#[derive(Clone, Debug, PartialEq)]
pub struct PartScore {
    /// Which.
    pub part: Part,
    /// What it would take from the score by itself, from 0 to 1.
    pub loss: f64,
    /// Its share of what is missing from 100, from 0 to 1.
    pub share: f64,
    /// What shows it, the worst first.
    pub reasons: Vec<Shown>,
}

/// What shows that a part is worn, in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// What.
    pub measure: Measure,
    /// What was counted.
    pub counted: Counted,
    /// The least that its rate is.
    pub at_least: f64,
    /// The usual rate of terminals of this model.
    pub usual: f64,
    /// What it would take from the score by itself, from 0 to 1.
    pub loss: f64,
}

/// How a measure is judged.
struct Scale {
    measure: Measure,
    part: Part,
    counted: fn(&Device) -> Counted,
    /// Whether it happens so often of so many times; otherwise, so often in a time.
    is_share: bool,
    /// For how long, or how many times, the usual is counted in.
    prior: f64,
    /// What is usual where nothing is known of others.
    usual: f64,
    /// The rate at which the part is of no use any more.
    useless: f64,
    /// What it takes from the score then.
    most: f64,
}

/// Something that happens so often of so many times.
const fn share(measure: Measure, part: Part, counted: fn(&Device) -> Counted, (usual, useless): (f64, f64)) -> Scale {
    Scale { measure, part, counted, is_share: true, prior: PRIOR_TRIES, usual, useless, most: 1.0 }
}

/// Something that happens so often an hour.
const fn rate(measure: Measure, part: Part, counted: fn(&Device) -> Counted, (usual, useless): (f64, f64)) -> Scale {
    Scale { is_share: false, prior: PRIOR_HOURS, ..share(measure, part, counted, (usual, useless)) }
}

/// Every measure but the trend. What is usual without others, and what is useless, are estimates.
static SCALES: [Scale; 13] = [
    share(Measure::FailedReads, Part::Reader, |device| device.failed_reads, (0.02, 0.3)),
    share(Measure::UnreadSales, Part::Reader, |device| device.unread_sales, (0.015, 0.25)),
    Scale { most: 0.7, ..share(Measure::Fallbacks, Part::Reader, |device| device.fallbacks, (0.005, 0.15)) },
    share(Measure::Tampered, Part::PinPad, |device| device.tampered, (0.0, 0.000_1)),
    share(Measure::PinPadHours, Part::PinPad, |device| device.pin_pad_hours, (0.002, 0.3)),
    share(Measure::PinPadFailures, Part::PinPad, |device| device.pin_pad_failures, (0.001, 0.1)),
    Scale { most: 0.8, ..share(Measure::PrinterHours, Part::Printer, |device| device.printer_hours, (0.005, 0.4)) },
    Scale { most: 0.8, ..share(Measure::Unprinted, Part::Printer, |device| device.unprinted, (0.001, 0.1)) },
    Scale { most: 0.8, ..rate(Measure::Drained, Part::Battery, |device| device.drained, (8.0, 40.0)) },
    Scale { most: 0.8, ..share(Measure::BatteryLow, Part::Battery, |device| device.battery_low, (0.001, 0.05)) },
    Scale { prior: PRIOR_DAYS, ..rate(Measure::Starts, Part::Power, |device| device.starts, (0.3, 12.0)) },
    Scale { most: 0.6, ..share(Measure::WeakSignal, Part::Signal, |device| device.weak_signal, (0.05, 0.9)) },
    Scale { most: 0.7, ..rate(Measure::Reconnects, Part::Connection, |device| device.reconnects, (0.5, 12.0)) },
];

/// Of a trend: points, and correlation, that it needs; percent an hour more each day from which it matters, and at which it takes most; and what it takes then.
const TREND_POINTS: f64 = 24.0;
const TREND_CORRELATION: f64 = 0.5;
const TREND: (f64, f64) = (0.2, 3.0);
const TREND_MOST: f64 = 0.5;

/// What was counted of the terminals of a model together.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    sums: Vec<Counted>,
}

impl Fleet {
    /// Takes a terminal in.
    pub fn add(&mut self, device: &Device) {
        self.sums.resize(SCALES.len(), Counted::default());
        for (sum, scale) in self.sums.iter_mut().zip(&SCALES) {
            *sum = sum.plus((scale.counted)(device));
        }
    }

    /// The score of one of them, by what is usual of the others.
    #[must_use]
    pub fn score(&self, device: &Device) -> Score {
        let mut parts: Vec<PartScore> = Vec::new();
        for (place, scale) in SCALES.iter().enumerate() {
            let own = (scale.counted)(device);
            let others = self.sums.get(place).map_or(Counted::default(), |sum| sum.minus(own));
            note(&mut parts, scale.part, scale.judge(own, others));
        }
        note(&mut parts, Part::Battery, device.drain_trend.judge());
        parts.sort_by(|one, other| other.loss.total_cmp(&one.loss));
        let loss = loss_of(&parts);
        let whole: f64 = parts.iter().map(|part| part.loss).sum();
        for part in &mut parts {
            part.share = part.loss / whole;
            part.reasons.sort_by(|one, other| other.loss.total_cmp(&one.loss));
        }
        Score { score: 100.0 * (1.0 - loss), parts }
    }
}

/// Adds what shows something against a part to what is known of it.
fn note(parts: &mut Vec<PartScore>, part: Part, shown: Option<Shown>) {
    let Some(shown) = shown else { return };
    match parts.iter_mut().find(|known| known.part == part) {
        Some(known) => {
            known.loss = known.loss.max(shown.loss);
            known.reasons.push(shown);
        }
        None => parts.push(PartScore { part, loss: shown.loss, share: 0.0, reasons: vec![shown] }),
    }
}

/// What parts take together, the worst of them first: the worst all of what it takes, the others a part of what is left.
fn loss_of(parts: &[PartScore]) -> f64 {
    let Some((worst, others)) = parts.split_first() else { return 0.0 };
    let others = 1.0 - others.iter().map(|part| 1.0 - part.loss).product::<f64>();
    worst.loss + (1.0 - worst.loss) * BESIDE_THE_WORST * others
}

impl Scale {
    fn judge(&self, own: Counted, others: Counted) -> Option<Shown> {
        if own.of <= 0.0 || own.times <= 0.0 {
            return None;
        }
        // A model of which all are worn is not usual for it.
        let usual = Counted { times: others.times + self.prior * self.usual, of: others.of + self.prior }.rate().min(self.useless / 2.0);
        let at_least = if self.is_share { own.share_at_least(usual) } else { own.rate_at_least(usual, self.prior) };
        let loss = ((at_least - usual) / (self.useless - usual)).clamp(0.0, 1.0) * self.most;
        (loss > 0.0).then_some(Shown { measure: self.measure, counted: own, at_least, usual, loss })
    }
}

impl Counted {
    /// So often of so many.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    pub fn new(times: u64, of: u64) -> Counted {
        Counted { times: times as f64, of: of as f64 }
    }

    /// The rate that was seen; 0 of nothing.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.of > 0.0 { self.times / self.of } else { 0.0 }
    }

    fn plus(self, other: Counted) -> Counted {
        Counted { times: self.times + other.times, of: self.of + other.of }
    }

    fn minus(self, other: Counted) -> Counted {
        Counted { times: (self.times - other.times).max(0.0), of: (self.of - other.of).max(0.0) }
    }

    /// The least share that it is, where `usual` is usual: the lower end of Wilson's interval (1927), with the usual counted in.
    #[must_use]
    pub fn share_at_least(self, usual: f64) -> f64 {
        let of = self.of + PRIOR_TRIES;
        let share = ((self.times + PRIOR_TRIES * usual) / of).min(1.0);
        let middle = share + Z * Z / (2.0 * of);
        let spread = Z * (share * (1.0 - share) / of + Z * Z / (4.0 * of * of)).sqrt();
        ((middle - spread) / (1.0 + Z * Z / of)).max(0.0)
    }

    /// The least rate that it is in a time: the lower end of the interval of a Poisson count by Wilson's and Hilferty's approximation (1931), with the usual counted in.
    fn rate_at_least(self, usual: f64, prior: f64) -> f64 {
        let times = self.times + prior * usual;
        if times <= 0.0 {
            return 0.0;
        }
        let root = (1.0 - 1.0 / (9.0 * times) - Z / (3.0 * times.sqrt())).max(0.0);
        times * root.powi(3) / (self.of + prior)
    }
}

impl Trend {
    /// One point.
    #[must_use]
    pub fn point(x: f64, y: f64) -> Trend {
        Trend { number: 1.0, x, y, xx: x * x, xy: x * y, yy: y * y }
    }

    /// How steep it is, and how close to a line its points are (Pearson's correlation); nothing of points that make no line.
    fn slope(self) -> Option<(f64, f64)> {
        let across = self.number * self.xx - self.x * self.x;
        let up = self.number * self.yy - self.y * self.y;
        let both = self.number * self.xy - self.x * self.y;
        (across > 1e-9 && up > 1e-9).then(|| (both / across, both / (across * up).sqrt()))
    }

    fn judge(self) -> Option<Shown> {
        let (slope, correlation) = self.slope().filter(|_| self.number >= TREND_POINTS)?;
        let (from, worst) = TREND;
        let loss = ((slope - from) / (worst - from)).clamp(0.0, 1.0) * TREND_MOST;
        let counted = Counted { times: slope, of: self.number };
        (loss > 0.0 && correlation >= TREND_CORRELATION).then_some(Shown {
            measure: Measure::DrainTrend,
            counted,
            at_least: slope,
            usual: 0.0,
            loss,
        })
    }
}

/// What was counted of a shop's way to the acquirer, and in the same hours of others. Expected are failures that there would have been at the rate of others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShopNetwork {
    /// Attempts that failed because of the network, of those that needed it.
    pub failed: Counted,
    /// The same of other shops of its carrier in its region, and what is expected by them here.
    pub nearby: Counted,
    /// Failures expected here by those.
    pub expected_nearby: f64,
    /// Failures expected here by all others of the fleet.
    pub expected_elsewhere: f64,
    /// How long connecting took: the mean of logarithms of milliseconds, of how many; here, nearby, and of all others.
    pub connects: [Counted; 3],
}

/// How a shop's network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkQuality {
    /// Worse than its surroundings: it is the shop's own.
    Shop,
    /// Worse than the fleet, as its surroundings are: it is the carrier's, there.
    Carrier,
    /// Worse than the fleet, and there are too few nearby to tell whose it is.
    Unsettled,
    /// As others'.
    Fine,
    /// There were too few attempts to say.
    TooFew,
}

impl NetworkQuality {
    /// Its stable identifier: `too_few`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            NetworkQuality::Shop => "shop",
            NetworkQuality::Carrier => "carrier",
            NetworkQuality::Unsettled => "unsettled",
            NetworkQuality::Fine => "fine",
            NetworkQuality::TooFew => "too_few",
        }
    }

    /// What is to be done; nothing where there is nothing.
    #[must_use]
    pub fn advice(self) -> Option<LocalizedText> {
        let (zh_cn, en) = match self {
            NetworkQuality::Shop => (
                "门店网络差于周边：检查信号、路由器与线路，必要时更换为 Wi-Fi/移动数据或备用运营商。",
                "The shop's network is worse than its surroundings: check signal, router and line; change between Wi-Fi and mobile data, or take another carrier.",
            ),
            NetworkQuality::Carrier => (
                "同一运营商在该地区普遍异常：联系运营商；门店可临时切换网络。",
                "The carrier fails in this region: call the carrier. Shops may change to another network meanwhile.",
            ),
            NetworkQuality::Unsettled => (
                "网络差于整体，周边样本不足：先检查门店路由器与线路，再联系运营商。",
                "Worse than the fleet, with too few shops nearby to compare: look at the shop's router and line first, then call the carrier.",
            ),
            NetworkQuality::Fine | NetworkQuality::TooFew => return None,
        };
        Some(LocalizedText { zh_cn: zh_cn.into(), en: en.into() })
    }
}

impl ShopNetwork {
    /// Whose fault it is that it fails, or is slow, more than others.
    #[must_use]
    pub fn quality(&self) -> NetworkQuality {
        if self.failed.of < LEAST_ATTEMPTS {
            return NetworkQuality::TooFew;
        }
        let by = |expected: f64| (expected / self.failed.of).clamp(0.0, 1.0);
        let (elsewhere, nearby) = (by(self.expected_elsewhere), by(self.expected_nearby));
        let is_worse_than = |usual: f64| self.failed.share_at_least(usual) > (CONSPICUOUS * usual).max(NEGLIGIBLE);
        if is_worse_than(elsewhere) {
            return match (self.nearby.of < LEAST_ATTEMPTS, is_worse_than(nearby)) {
                (true, _) => NetworkQuality::Unsettled,
                (false, true) => NetworkQuality::Shop,
                (false, false) => NetworkQuality::Carrier,
            };
        }
        let [here, nearby, elsewhere] = self.connects;
        let is_slower_than = |others: Counted| here.rate() > others.rate() + CONSPICUOUS.ln();
        if here.of < LEAST_ATTEMPTS || elsewhere.of < LEAST_ATTEMPTS || !is_slower_than(elsewhere) {
            NetworkQuality::Fine
        } else if nearby.of < LEAST_ATTEMPTS {
            NetworkQuality::Unsettled
        } else if is_slower_than(nearby) {
            NetworkQuality::Shop
        } else {
            NetworkQuality::Carrier
        }
    }

    /// The least share of attempts that fails here.
    #[must_use]
    pub fn at_least(&self) -> f64 {
        let usual = if self.failed.of > 0.0 { (self.expected_elsewhere / self.failed.of).clamp(0.0, 1.0) } else { 0.0 };
        self.failed.share_at_least(usual)
    }
}

/// What helps a merchant whose staff make conspicuously many errors.
#[must_use]
pub fn training_advice() -> LocalizedText {
    LocalizedText {
        zh_cn: "操作失误率明显高于同业：安排收银培训（刷卡方式、金额核对、不提前拔卡、撤销流程）。".into(),
        en: "Errors of operation are conspicuously more frequent than elsewhere: train the staff (how to present cards, check amounts, leave the card in, void).".into(),
    }
}

/// Whether a merchant's staff make conspicuously more errors than others: `errors` of their attempts, against those of the rest of the fleet. Nothing where there were too
/// few attempts to say.
#[must_use]
pub fn needs_training(errors: Counted, others: Counted) -> Option<bool> {
    if errors.of < LEAST_ATTEMPTS {
        return None;
    }
    let usual = others.rate();
    Some(errors.share_at_least(usual) > (CONSPICUOUS * usual).max(NEGLIGIBLE))
}
