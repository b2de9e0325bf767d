//! A verdict in words: what is said of one outcome, in Chinese and English, as the contract's message. It is made when somebody asks for it; whoever
//! only counts verdicts has no part of its cost.

mod facts;

use faultline_proto::outcome::v1::{Outcome, Stage, TerminalCondition, TerminalResult};
use faultline_proto::verdict::v1;

use crate::{Fact, LocalizedText, Retry, Rules, Verdict};

/// A card number has at least so many digits (ISO/IEC 7812-1): what has as many is not said again.
const CARD_NUMBER_DIGITS: usize = 12;
/// Most bytes of an identifier that is said again: what `Outcome.response_spec` may have.
const MOST_SAID: usize = 32;

impl Rules {
    /// Everything that is said of an outcome: its verdict, what the outcome shows, and what is to be done.
    #[must_use]
    pub fn in_words(&self, verdict: &Verdict<'_>, outcome: &Outcome) -> v1::Verdict {
        let reason = verdict.reason;
        let (retry, retry_minutes) = match reason.retry {
            Retry::Now => (v1::Retry::Now, 0),
            Retry::Later(minutes) => (v1::Retry::Later, minutes),
            Retry::OtherCard => (v1::Retry::OtherCard, 0),
            Retry::OtherMethod => (v1::Retry::OtherMethod, 0),
            Retry::Never => (v1::Retry::Never, 0),
            Retry::QueryFirst => (v1::Retry::QueryFirst, 0),
        };
        v1::Verdict {
            tag: verdict.tag.into(),
            cause: reason.cause.into(),
            reason: reason.id.clone(),
            meaning: Some(reason.meaning.clone()),
            confidence: f64::from(verdict.confidence) / 100.0,
            evidence: self.evidence(verdict, outcome),
            merchant_cause: reason.merchant_cause.id().into(),
            merchant_text: Some(reason.merchant_cause.text()),
            retry: retry.into(),
            retry_minutes,
            cashier: Some(reason.cashier.clone()),
            service_desk: Some(reason.service_desk.clone()),
            prevention: Some(self.prevention(verdict.rule_set, reason).cloned().unwrap_or_default()),
            rule_set: verdict.rule_set.into(),
        }
    }

    /// What an outcome shows, in the order in which it is weighed, and its facts: those of something that is wrong, and of what is in order those that matter.
    fn evidence(&self, verdict: &Verdict<'_>, outcome: &Outcome) -> Vec<v1::Evidence> {
        let said = [answer(outcome), condition(outcome.terminal_condition()), result(outcome.result()), stage(outcome.stage())];
        let mut shown: Vec<v1::Evidence> = said.into_iter().flatten().collect();
        // An answer that cannot be believed is not the host's word.
        if matches!(outcome.terminal_condition(), TerminalCondition::MacMismatch | TerminalCondition::ResponseInvalid) {
            shown.sort_by_key(|evidence| evidence.fact != CONDITION);
        }
        let facts = verdict.facts.iter().filter(|fact| !fact.is_in_order() || self.weighs(verdict, *fact));
        shown.extend(facts.map(|fact| v1::Evidence { fact: fact.id().into(), text: Some(facts::sentence(fact, outcome)) }));
        shown
    }

    /// Whether a set weighs a fact for the reason of a verdict, or for one that many failures make that reason of.
    fn weighs(&self, verdict: &Verdict<'_>, fact: Fact) -> bool {
        let set = self.of_version(verdict.rule_set);
        let is_it = |place: usize| self.reason_at(place).id == verdict.reason.id;
        let makes_it = |symptom: &str| set.attributions.iter().any(|((of, _), whole)| of == symptom && is_it(whole.reason));
        set.refinements.iter().any(|(of, refined)| {
            let is_named = refined.all_of.has(fact) || refined.none_of.has(fact);
            is_named && (is_it(of) || is_it(refined.row.reason) || makes_it(&self.reason_at(of).symptom))
        })
    }
}

const CODE: &str = "response_code";
const CONDITION: &str = "terminal_condition";
const RESULT: &str = "result";
const STAGE: &str = "stage";

fn shows(fact: &str, zh_cn: String, en: String) -> Option<v1::Evidence> {
    Some(v1::Evidence { fact: fact.into(), text: Some(LocalizedText { zh_cn, en }) })
}

fn answer(outcome: &Outcome) -> Option<v1::Evidence> {
    if outcome.response_code.is_empty() {
        return None;
    }
    let (zh, en) = match outcome.stage() {
        Stage::OfflineDecision => ("终端脱机决定", "The terminal decided offline"),
        _ => ("主机已应答", "The host answered"),
    };
    let Some(code) = repeatable(&outcome.response_code) else {
        return shows(
            CODE,
            format!("{zh}，应答码不是标识符，此处不显示。"),
            format!("{en}, with a code that is no identifier and not shown here."),
        );
    };
    let spec = repeatable(&outcome.response_spec)
        .map_or_else(Default::default, |spec| (format!("（规范 {spec}）"), format!(" (specification {spec})")));
    shows(CODE, format!("{zh}，应答码 {code}{}。", spec.0), format!("{en} with code {code}{}.", spec.1))
}

/// An identifier, where it can be no card number and is no text of its own.
fn repeatable(text: &str) -> Option<&str> {
    let is_identifier = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/+-".contains(&byte));
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    (is_identifier && digits < CARD_NUMBER_DIGITS && (1..=MOST_SAID).contains(&text.len())).then_some(text)
}

fn condition(condition: TerminalCondition) -> Option<v1::Evidence> {
    let (zh, en) = match condition {
        TerminalCondition::Unspecified => return None,
        TerminalCondition::ChipRead => ("芯片读取失败", "the chip could not be read"),
        TerminalCondition::ContactlessRead => ("非接读取失败", "the contactless read failed"),
        TerminalCondition::MagneticRead => ("磁条读取失败", "the magnetic stripe could not be read"),
        TerminalCondition::QrRead => ("二维码读取失败", "the QR code could not be read"),
        TerminalCondition::CardRemoved => ("卡片过早拔出", "the card was taken out too early"),
        TerminalCondition::PinPad => ("密码键盘缺失或故障", "the PIN pad is absent or broken"),
        TerminalCondition::Printer => ("打印机故障", "the printer is broken"),
        TerminalCondition::PaperOut => ("打印机缺纸", "the printer has no paper"),
        TerminalCondition::BatteryLow => ("电量过低", "the battery is too low"),
        TerminalCondition::MacMismatch => ("应答的 MAC 校验失败", "the message authentication code of the answer is wrong"),
        TerminalCondition::KeyMissing => ("密钥缺失或不可用", "a key is missing or unusable"),
        TerminalCondition::NameResolution => ("主机域名解析失败", "the host's name was not resolved"),
        TerminalCondition::ConnectTimeout => ("连接主机超时", "no connection within the time allowed"),
        TerminalCondition::ConnectRefused => ("主机拒绝连接", "the host refused the connection"),
        TerminalCondition::NoNetwork => ("没有任何网络", "there is no network at all"),
        TerminalCondition::TlsCertificate => ("主机证书当前无效", "the host's certificate is not valid now"),
        TerminalCondition::TlsHandshake => ("TLS 握手失败", "the TLS handshake failed"),
        TerminalCondition::ConnectionLost => ("连接中断", "the connection broke"),
        TerminalCondition::ResponseTimeout => ("规定时间内无应答", "no answer within the time allowed"),
        TerminalCondition::ResponseInvalid => ("应答无法解析", "the answer could not be understood"),
        TerminalCondition::CancelledByCustomer => ("顾客取消", "the customer cancelled"),
        TerminalCondition::CancelledByCashier => ("收银员取消", "the cashier cancelled"),
        TerminalCondition::Application => ("收款应用出错", "the payment application failed"),
    };
    shows(CONDITION, format!("终端遇到：{zh}。"), format!("The terminal met: {en}."))
}

fn result(result: TerminalResult) -> Option<v1::Evidence> {
    let (zh, en) = match result {
        TerminalResult::Unspecified => return None,
        TerminalResult::Approved => ("成功", "approved"),
        TerminalResult::Declined => ("被拒绝", "declined"),
        TerminalResult::Failed => ("失败", "failed"),
        TerminalResult::Cancelled => ("已取消", "cancelled"),
    };
    shows(RESULT, format!("终端给门店的提示：{zh}。"), format!("The terminal told the shop: {en}."))
}

fn stage(stage: Stage) -> Option<v1::Evidence> {
    let (zh, en) = match stage {
        Stage::Unspecified => return None,
        Stage::CardRead => ("读卡或扫码", "reading the card or code"),
        Stage::PinEntry => ("输入密码", "entering the PIN"),
        Stage::Dns => ("解析主机域名", "resolving the host's name"),
        Stage::Connect => ("建立连接", "setting up the connection"),
        Stage::Tls => ("TLS 握手", "the TLS handshake"),
        Stage::Send => ("发送请求", "sending the request"),
        Stage::Wait => ("等待应答（请求已完整发出）", "waiting for the answer, with the request sent whole"),
        Stage::HostDecision => ("主机作出决定", "the host's decision"),
        Stage::Print => ("打印签购单", "printing the receipt"),
        Stage::Reversal => ("冲正", "reversing"),
        Stage::OfflineDecision => ("终端脱机决定", "a decision of the terminal without the host"),
    };
    shows(STAGE, format!("结束于：{zh}。"), format!("It ended at: {en}."))
}

#[cfg(test)]
mod tests {
    use faultline_proto::outcome::v1::CardNetwork;

    use super::*;
    use crate::Cause;

    /// What is shown of an outcome: each fact, with its English sentence.
    fn shown(outcome: &Outcome) -> Vec<(String, String)> {
        let rules = Rules::built_in().unwrap();
        let words = rules.in_words(&rules.verdict(outcome), outcome);
        words.evidence.into_iter().map(|evidence| (evidence.fact, evidence.text.unwrap().en)).collect()
    }

    #[test]
    fn a_verdict_is_told_in_both_languages_with_what_it_rests_on() {
        let rules = Rules::built_in().unwrap();
        let outcome = Outcome {
            stage: Stage::HostDecision.into(),
            response_code: "91".into(),
            response_spec: "unionpay-pos".into(),
            result: TerminalResult::Declined.into(),
            ..Outcome::default()
        };
        let verdict = rules.verdict(&outcome);
        let words = rules.in_words(&verdict, &outcome);
        assert_eq!((words.cause(), words.reason.as_str(), words.merchant_cause.as_str()), (Cause::Bank, "issuer_down", "bank_system"));
        assert_eq!((words.retry(), words.retry_minutes, words.confidence), (v1::Retry::Later, 10, 0.88));
        assert_eq!((words.tag.as_str(), words.rule_set.as_str()), ("issuer_down/host_decision", verdict.rule_set));
        let texts: Vec<LocalizedText> = words.evidence.into_iter().filter_map(|evidence| evidence.text).collect();
        assert_eq!(texts[0].zh_cn, "主机已应答，应答码 91（规范 unionpay-pos）。");
        assert_eq!(texts[0].en, "The host answered with code 91 (specification unionpay-pos).");
        assert_eq!(texts[2].en, "It ended at: the host's decision.");
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn what_decides_is_said_first() {
        let forged =
            Outcome { response_code: "00".into(), terminal_condition: TerminalCondition::MacMismatch.into(), ..Outcome::default() };
        let facts: Vec<String> = shown(&forged).into_iter().map(|(fact, _)| fact).collect();
        assert_eq!(facts, [CONDITION, CODE]);
        assert_eq!(shown(&Outcome::default()), []);
        // Of a newer contract nothing can be said.
        assert_eq!(shown(&Outcome { stage: 99, terminal_condition: 99, result: 99, ..Outcome::default() }), []);
    }

    #[test]
    fn no_text_of_a_terminal_is_said_again() {
        let of = |code: &str, spec: &str| {
            let outcome = Outcome {
                response_code: code.into(),
                response_spec: spec.into(),
                diagnostic: "6225880123456786".into(),
                network: CardNetwork::Unionpay.into(),
                ..Outcome::default()
            };
            shown(&outcome).remove(0).1
        };
        assert_eq!(of("ACQ.SYSTEM_ERROR", "alipay"), "The host answered with code ACQ.SYSTEM_ERROR (specification alipay).");
        for code in ["6225880123456786", "51 Zhang San", "\u{202e}15"] {
            assert_eq!(of(code, "unionpay-pos"), "The host answered, with a code that is no identifier and not shown here.");
        }
        assert_eq!(of("51", "6225880123456786"), "The host answered with code 51.");
    }

    #[test]
    fn what_is_in_order_is_said_where_it_matters() {
        let facts = |verdict: &Verdict<'_>, outcome: &Outcome| -> Vec<String> {
            let words = Rules::built_in().unwrap().in_words(verdict, outcome);
            words
                .evidence
                .into_iter()
                .map(|evidence| evidence.fact)
                .filter(|fact| ![CODE, CONDITION, RESULT, STAGE].contains(&fact.as_str()))
                .collect()
        };
        let rules = Rules::built_in().unwrap();
        let silent = Outcome { stage: Stage::Wait.into(), signal_dbm: Some(-61), attempt: 2, ..Outcome::default() };
        let verdict = rules.verdict(&silent);
        assert_eq!(facts(&verdict, &silent), ["good_signal", "sent_whole", "repeated_attempt"]);
        // The bank is silent, and it was not the signal.
        let reason = rules.reason(verdict.rule_set, "issuer_silent").unwrap();
        assert_eq!(facts(&Verdict { reason, ..verdict }, &silent), ["good_signal", "sent_whole", "repeated_attempt"]);
        let funds = Outcome { response_code: "51".into(), ..silent };
        assert_eq!(facts(&rules.verdict(&funds), &funds), ["repeated_attempt"]);
    }

    #[test]
    fn every_value_of_the_contract_has_a_sentence() {
        for number in 1.. {
            let known = [
                TerminalCondition::try_from(number).ok().map(condition),
                Stage::try_from(number).ok().map(stage),
                TerminalResult::try_from(number).ok().map(result),
            ];
            if known.iter().all(Option::is_none) {
                assert!(number > 20);
                break;
            }
            for text in known.into_iter().flatten().map(|evidence| evidence.unwrap().text.unwrap()) {
                assert!(text.en.is_ascii() && text.en.ends_with('.') && !text.zh_cn.is_ascii() && text.zh_cn.ends_with('。'), "{text:?}");
            }
        }
    }
}
