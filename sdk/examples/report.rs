//! Reports one sale that the bank's system failed, says what the cashier should do, and what became of the report:
//!
//! ```sh
//! cargo run -p faultline-sdk --example report -- http://127.0.0.1:15051 ~/.local/share/faultline/gateway/token
//! ```

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use faultline_sdk::outcome::{EntryMode, MoneyOutcome, Outcome, Stage, TerminalResult, TransactionType};
use faultline_sdk::{AccessNetwork, Connection, Terminal, TerminalProfile};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(gateway), Some(token_file)) = (arguments.next(), arguments.next()) else {
        return Err("what is needed is the gateway's address and a file with a token".into());
    };
    let token = std::fs::read_to_string(&token_file).map_err(|error| format!("{token_file}: {error}"))?;

    // Once, when the application starts.
    let connection = Connection::builder(gateway, token.trim()).build()?;
    let profile = TerminalProfile {
        model: "PAX A920".into(),
        firmware: "7.1.2".into(),
        application: "example 1.0".into(),
        region: "440300".into(),
        access_network: AccessNetwork::Cellular4g.into(),
        carrier: "china-mobile".into(),
        ..TerminalProfile::default()
    };
    let terminal = Terminal::builder(&connection, "EXAMPLE-1").profile(profile).start()?;

    // Whenever an attempt has ended, however it ended.
    let reported = terminal.report(Outcome {
        merchant_id: "898440355400001".into(),
        r#type: TransactionType::Sale.into(),
        entry_mode: EntryMode::Contactless.into(),
        amount_minor: 1234,
        currency_code: "CNY".into(),
        bin: "622202".into(),
        stage: Stage::HostDecision.into(),
        response_code: "91".into(),
        response_spec: "unionpay-pos".into(),
        result: TerminalResult::Declined.into(),
        money_outcome: MoneyOutcome::NotMoved.into(),
        ..Outcome::default()
    })?;

    // It is there at once, whether there is a network or not.
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}\n{}", reported.verdict.cashier.zh_cn, reported.verdict.cashier.en)?;

    // Once, before it ends.
    let status = terminal.close(Duration::from_secs(10)).await;
    match status.last_refusal {
        Some(refusal) => writeln!(output, "event {} was refused: {} {}", reported.sequence, refusal.field, refusal.description)?,
        None if status.waiting == 0 => writeln!(output, "event {} was acknowledged", reported.sequence)?,
        None => writeln!(output, "event {} is still waiting: {}", reported.sequence, status.problem)?,
    }
    Ok(())
}
