//! An incident in a sentence, for those who are on call.

use faultline_detect::{Cause, Class, Dimension, Incident, Signal, Slice, State};
use faultline_proto::verdict::v1::LocalizedText;

/// What is the matter; and where in the incident's slice nearly all of it is, if that is known.
pub(crate) fn summary(incident: &Incident, narrowed: Option<&Slice>) -> LocalizedText {
    let Some(watch) = incident.watches.first() else { return LocalizedText::default() };
    let (where_zh, where_en) = place(&incident.slice);
    let (cause_zh, cause_en) = cause(incident.cause());
    let (what_zh, what_en) = match watch.signal {
        Signal::Failures(class) => {
            let (class_zh, class_en) = failure(class);
            let now = percent(whole(watch.counted), whole(watch.attempts));
            let usual = percent(watch.expected, whole(watch.attempts));
            let (counted, attempts) = (watch.counted, watch.attempts);
            (
                format!("{attempts} 笔交易中 {counted} 笔失败（{now}，平时 {usual}）：{class_zh}"),
                format!("{class_en}: {counted} of {attempts} attempts ({now}; usually {usual})"),
            )
        }
        Signal::MissingApprovals => {
            let (approvals, expected) = (watch.counted, watch.expected.round());
            (
                format!("成功交易骤减：{approvals} 笔，应有约 {expected} 笔"),
                format!("approvals are missing: {approvals} where {expected} would be usual"),
            )
        }
    };
    let (in_zh, in_en) =
        narrowed.map(place).map_or_else(Default::default, |(zh, en)| (format!("，集中于{zh}"), format!(", concentrated in {en}")));
    let (state_zh, state_en) = match incident.state {
        State::Open => ("", ""),
        State::Unobserved => {
            ("；目前几乎无交易，无法判断是否恢复", "; hardly anything is attempted there now, so nobody can say whether it is over")
        }
        State::Closed => ("；现已恢复", "; over"),
        State::Abandoned => ("；一天内无交易，不再跟踪", "; nothing was seen of it for a day, so it is not followed any more"),
    };
    LocalizedText {
        zh_cn: format!("{where_zh}：{what_zh}{in_zh}。责任方：{cause_zh}{state_zh}。"),
        en: format!("{where_en}: {what_en}{in_en}. Cause: {cause_en}{state_en}."),
    }
}

/// What fails, in both languages.
fn place(slice: &Slice) -> (String, String) {
    let named = slice.values().map(|(dimension, value)| {
        let (zh, en) = match dimension {
            Dimension::Acquirer => ("收单机构", "acquirer"),
            Dimension::Carrier => ("运营商", "carrier"),
            Dimension::EntryMode => ("读卡方式", "entry mode"),
            Dimension::Firmware => ("固件", "firmware"),
            Dimension::Host => ("主机", "host"),
            Dimension::Issuer => ("发卡行", "issuer"),
            Dimension::MerchantGroup => ("商户组", "merchant group"),
            Dimension::Model => ("机型", "model"),
            Dimension::Region => ("地区", "region"),
        };
        let (none_zh, none_en) = if value.is_empty() { ("未知", "not stated") } else { (value, value) };
        (format!("{zh} {none_zh}"), format!("{en} {none_en}"))
    });
    let (zh, en): (Vec<String>, Vec<String>) = named.unzip();
    if en.is_empty() {
        return ("所有终端".into(), "the whole fleet".into());
    }
    (zh.join("，"), en.join(", "))
}

fn failure(class: Class) -> (&'static str, &'static str) {
    match class {
        Class::IssuerRefusal => ("发卡行拒绝", "the issuer refuses"),
        Class::IssuerDown => ("发卡行系统不可用", "the issuer is down"),
        Class::IssuerTimeout => ("发卡行无应答", "the issuer does not answer"),
        Class::NoAnswer => ("主机无应答", "no answer"),
        Class::HostUnreachable => ("无法连接主机", "the host cannot be reached"),
        Class::LocalNetwork => ("终端网络故障", "the terminal's network fails"),
        Class::DeviceRead => ("读卡失败", "cards cannot be read"),
        Class::DeviceFault => ("终端故障", "the terminal fails"),
        Class::Security => ("密钥或校验错误", "keys or checksums are wrong"),
        Class::Acquirer => ("收单系统故障", "the acquirer's system fails"),
        Class::Operator => ("操作或商户配置错误", "wrong operation or merchant configuration"),
        Class::Approved | Class::Funds | Class::Cardholder | Class::Unknown => ("未知失败", "failures of an unknown kind"),
    }
}

fn cause(cause: Cause) -> (&'static str, &'static str) {
    match cause {
        Cause::Network => ("网络", "network"),
        Cause::Device => ("终端设备", "device"),
        Cause::Bank => ("银行", "bank"),
        Cause::Account => ("账户", "account"),
        Cause::Other => ("其他（收单、转接或商户）", "other (acquirer, switch or merchant)"),
        Cause::Approved | Cause::Unknown | Cause::Unspecified => ("不明", "unknown"),
    }
}

fn percent(part: f64, whole: f64) -> String {
    let percent = 100.0 * part / whole.max(1.0);
    if percent >= 10.0 { format!("{percent:.0} %") } else { format!("{percent:.2} %") }
}

#[expect(clippy::cast_precision_loss, reason = "counts that are shown")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use faultline_detect::Watch;

    use super::*;

    fn seen(signal: Signal, (attempts, counted, expected): (u64, u64, f64)) -> Watch {
        let mut watch = Watch::of(signal);
        (watch.attempts, watch.counted, watch.expected) = (attempts, counted, expected);
        watch
    }

    #[test]
    fn what_is_the_matter_is_said_in_both_languages() {
        let watch = seen(Signal::Failures(Class::IssuerDown), (210, 201, 0.22));
        let slice = Slice::new([(Dimension::Issuer, "icbc"), (Dimension::EntryMode, "chip")]);
        let mut incident = Incident { slice, watches: vec![watch], ..Incident::default() };
        let text = summary(&incident, None);
        assert_eq!(text.en, "entry mode chip, issuer icbc: the issuer is down: 201 of 210 attempts (96 %; usually 0.10 %). Cause: bank.");
        assert_eq!(
            text.zh_cn,
            "读卡方式 chip，发卡行 icbc：210 笔交易中 201 笔失败（96 %，平时 0.10 %）：发卡行系统不可用。责任方：银行。"
        );
        let narrowed = Slice::new([(Dimension::Carrier, "46000"), (Dimension::Region, "440000")]);
        let text = summary(&incident, Some(&narrowed));
        assert!(text.en.ends_with("usually 0.10 %), concentrated in carrier 46000, region 440000. Cause: bank."), "{}", text.en);
        assert!(text.zh_cn.ends_with("：发卡行系统不可用，集中于运营商 46000，地区 440000。责任方：银行。"), "{}", text.zh_cn);
        incident.state = State::Closed;
        assert!(summary(&incident, None).en.ends_with("Cause: bank; over."));

        let watches = vec![seen(Signal::MissingApprovals, (3, 2, 61.8))];
        let silent = Incident { slice: Slice::fleet(), watches, ..Incident::default() };
        assert_eq!(summary(&silent, None).en, "the whole fleet: approvals are missing: 2 where 62 would be usual. Cause: unknown.");
    }
}
