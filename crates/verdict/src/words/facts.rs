//! Each fact in a sentence, with the numbers that it rests on.

use faultline_proto::outcome::v1::{EmvEvidence, Outcome};

use crate::fact::{GOOD_DBM, LONG_WAIT_MS, QUICK_MS, SLOW_MS, SLOW_TLS_MS, WEAK_DBM, last_status_word, signal_dbm};
use crate::{Fact, LocalizedText};

/// What an outcome that has the fact shows.
pub(super) fn sentence(fact: Fact, outcome: &Outcome) -> LocalizedText {
    let (zh_cn, en) = match fact {
        Fact::WeakSignal | Fact::GoodSignal => signal(fact, outcome),
        Fact::SlowNameResolution | Fact::QuickConnect | Fact::SlowConnect | Fact::SlowTls | Fact::SentWhole | Fact::LongWait => {
            way(fact, outcome)
        }
        Fact::RepeatedAttempt => {
            let attempt = outcome.attempt;
            (format!("这是同一笔交易的第 {attempt} 次尝试。"), format!("It was attempt {attempt} at the same sale."))
        }
        Fact::ReaderFailsOften | Fact::ReaderFailsInARow | Fact::ReaderReadsWell | Fact::ReaderReadSince => reader(fact, outcome),
        _ => chip(fact, outcome.emv.as_ref()),
    };
    LocalizedText { zh_cn, en }
}

fn signal(fact: Fact, outcome: &Outcome) -> (String, String) {
    let dbm = signal_dbm(outcome).unwrap_or_default();
    match fact {
        Fact::WeakSignal => (
            format!("信号 {dbm} dBm，偏弱（{WEAK_DBM} dBm 及以下）。"),
            format!("The signal was {dbm} dBm, which is weak ({WEAK_DBM} dBm or less)."),
        ),
        _ => (
            format!("信号 {dbm} dBm，良好（{GOOD_DBM} dBm 及以上）。"),
            format!("The signal was {dbm} dBm, which is good ({GOOD_DBM} dBm or more)."),
        ),
    }
}

fn way(fact: Fact, outcome: &Outcome) -> (String, String) {
    let latencies = outcome.latencies.unwrap_or_default();
    let ms = match fact {
        Fact::SlowNameResolution => latencies.dns_ms,
        Fact::QuickConnect | Fact::SlowConnect => latencies.connect_ms,
        Fact::SlowTls => latencies.tls_ms,
        _ => latencies.wait_ms,
    };
    let ms = ms.unwrap_or_default();
    match fact {
        Fact::SlowNameResolution => (
            format!("解析主机域名用了 {ms} 毫秒，偏慢（{SLOW_MS} 毫秒及以上）。"),
            format!("The host's name took {ms} ms to resolve, which is slow ({SLOW_MS} ms or more)."),
        ),
        Fact::QuickConnect => (
            format!("建立连接用了 {ms} 毫秒，较快（{QUICK_MS} 毫秒及以内）：途中没有丢包。"),
            format!("The connection took {ms} ms, which is quick ({QUICK_MS} ms or less): nothing was lost on the way."),
        ),
        Fact::SlowConnect => (
            format!("建立连接用了 {ms} 毫秒，偏慢（{SLOW_MS} 毫秒及以上）：可能有丢包。"),
            format!("The connection took {ms} ms, which is slow ({SLOW_MS} ms or more): packets may have been lost."),
        ),
        Fact::SlowTls => (
            format!("TLS 握手用了 {ms} 毫秒，偏慢（{SLOW_TLS_MS} 毫秒及以上）。"),
            format!("The TLS handshake took {ms} ms, which is slow ({SLOW_TLS_MS} ms or more)."),
        ),
        Fact::LongWait => (
            format!("等待应答 {ms} 毫秒，很久（{LONG_WAIT_MS} 毫秒及以上）。"),
            format!("It waited {ms} ms for the answer, which is long ({LONG_WAIT_MS} ms or more)."),
        ),
        _ => ("请求已完整发出，没有应答：可能已扣款。".into(), "The request was sent whole and not answered: money may have moved.".into()),
    }
}

/// What the chip said is that of the terminal verification results, or its last status word.
fn chip(fact: Fact, emv: Option<&EmvEvidence>) -> (String, String) {
    let (zh, en) = match fact {
        Fact::ChipDataMissing => ("缺少芯片数据", "data of the chip is missing"),
        Fact::CardAuthenticationFailed => ("脱机数据认证（SDA/DDA/CDA）失败", "the card's authentication (SDA, DDA or CDA) failed"),
        Fact::CardExpired => ("应用已过有效期", "the card is past its date"),
        Fact::CardNotYetValid => ("应用尚未生效（也可能是终端日期偏早）", "the card is not valid yet, or the terminal's date is too early"),
        Fact::ServiceNotAllowed => ("该卡不允许此类服务", "the card does not allow this kind of payment"),
        Fact::VerificationFailed => ("持卡人验证未成功", "the cardholder was not verified"),
        Fact::PinTriesExceeded => ("密码次数超限", "no PIN tries are left"),
        Fact::PinPadAbsent => ("需要密码，但密码键盘缺失或故障", "a PIN is needed, and the PIN pad is absent or broken"),
        Fact::PinNotEntered => ("需要密码，但未输入", "a PIN is needed, and was not entered"),
        Fact::IssuerAuthenticationFailed => ("发卡行认证失败", "the issuer's answer was not authentic to the chip"),
        Fact::ScriptFailed => ("发卡行脚本执行失败", "the issuer's commands to the chip failed"),
        Fact::PinBlocked => ("芯片密码已锁定", "the chip's PIN is blocked"),
        Fact::PinWrong => ("芯片校验密码不符", "the chip refused the PIN"),
        Fact::ChipBlocked => ("卡片或其应用已锁定", "the card or its application is blocked"),
        Fact::ApplicationNotFound => ("没有终端所要的应用", "it has no application that the terminal asked for"),
        Fact::ConditionsNotMet => ("使用条件不满足", "its conditions of use are not met"),
        Fact::ChipError => ("芯片内部出错", "it failed by itself"),
        Fact::CommandRefused => ("不认识终端的命令", "it does not understand the terminal's command"),
        Fact::ChipAnswered => {
            return ("芯片有应答，触点接通。".into(), "The chip answered, so it had contact.".into());
        }
        _ => {
            return (
                "芯片读不出，改刷了磁条（降级交易）。".into(),
                "The chip could not be read, and the magnetic stripe was taken (fallback).".into(),
            );
        }
    };
    let is_by_word = matches!(
        fact,
        Fact::PinBlocked
            | Fact::PinWrong
            | Fact::ChipBlocked
            | Fact::ApplicationNotFound
            | Fact::ConditionsNotMet
            | Fact::ChipError
            | Fact::CommandRefused
    );
    if is_by_word {
        let word = emv.and_then(last_status_word).unwrap_or_default();
        return (format!("芯片最后应答 {word:04X}：{zh}。"), format!("The chip's last answer was {word:04X}: {en}."));
    }
    let results = emv.map_or(&[][..], |emv| &emv.terminal_verification_results);
    let results: String = results.iter().map(|byte| format!("{byte:02X}")).collect();
    (format!("终端验证结果（TVR）{results}：{zh}。"), format!("The terminal verification results (TVR) are {results}: {en}."))
}

fn reader(fact: Fact, outcome: &Outcome) -> (String, String) {
    let history = outcome.reader_history.unwrap_or_default();
    let (reads, failures, sales) = (history.reads, history.failures, history.failed_sales);
    match fact {
        Fact::ReaderFailsOften => (
            format!("近 24 小时读卡 {reads} 次，失败 {failures} 次，涉及 {sales} 笔交易：经常失败。"),
            format!("In 24 hours the reader failed {failures} of {reads} reads, in {sales} sales: often."),
        ),
        Fact::ReaderFailsInARow => {
            let in_a_row = history.consecutive_failures;
            (
                format!("读卡器已连续失败 {in_a_row} 次，近 24 小时涉及 {sales} 笔交易。"),
                format!("The reader has failed {in_a_row} times in a row, and in {sales} sales of 24 hours."),
            )
        }
        Fact::ReaderReadsWell => (
            format!("近 24 小时读卡 {reads} 次，失败 {failures} 次：很少失败。"),
            format!("In 24 hours the reader failed {failures} of {reads} reads: seldom."),
        ),
        _ => {
            let seconds = history.next_good_read_ms.unwrap_or_default().div_ceil(1000);
            (
                format!("前一次读卡失败后 {seconds} 秒内，读卡器成功读了卡。"),
                format!("After the failure before this one, the reader read well within {seconds} s."),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use faultline_proto::outcome::v1::ReaderHistory;

    use super::*;

    #[test]
    fn every_fact_has_a_sentence_in_both_languages() {
        for fact in Fact::ALL {
            let text = sentence(fact, &Outcome::default());
            assert!(text.en.is_ascii() && text.en.ends_with('.') && text.zh_cn.ends_with('。') && text.zh_cn.len() < 300, "{text:?}");
        }
    }

    #[test]
    fn sentences_have_the_numbers() {
        let history = ReaderHistory { reads: 30, failures: 5, failed_sales: 4, consecutive_failures: 3, next_good_read_ms: None };
        let emv = EmvEvidence {
            terminal_verification_results: vec![0, 0, 0x10, 0x80, 0].into(),
            status_words: vec![0x9000, 0x6985],
            ..EmvEvidence::default()
        };
        let outcome = Outcome { signal_dbm: Some(-113), attempt: 3, emv: Some(emv), reader_history: Some(history), ..Outcome::default() };
        for (fact, zh_cn, en) in [
            (Fact::WeakSignal, "信号 -113 dBm，偏弱（-108 dBm 及以下）。", "The signal was -113 dBm, which is weak (-108 dBm or less)."),
            (Fact::RepeatedAttempt, "这是同一笔交易的第 3 次尝试。", "It was attempt 3 at the same sale."),
            (
                Fact::PinPadAbsent,
                "终端验证结果（TVR）0000108000：需要密码，但密码键盘缺失或故障。",
                "The terminal verification results (TVR) are 0000108000: a PIN is needed, and the PIN pad is absent or broken.",
            ),
            (
                Fact::ConditionsNotMet,
                "芯片最后应答 6985：使用条件不满足。",
                "The chip's last answer was 6985: its conditions of use are not met.",
            ),
            (
                Fact::ReaderFailsInARow,
                "读卡器已连续失败 3 次，近 24 小时涉及 4 笔交易。",
                "The reader has failed 3 times in a row, and in 4 sales of 24 hours.",
            ),
        ] {
            let text = sentence(fact, &outcome);
            assert_eq!((text.zh_cn.as_str(), text.en.as_str()), (zh_cn, en));
        }
    }
}
