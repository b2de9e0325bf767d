//! Says whose fault an attempt is that a host answered, and what to do; no network is needed:
//!
//! ```sh
//! cargo run -p faultline-sdk --example judge -- 51 unionpay-pos
//! ```

use std::error::Error;
use std::io::Write;

use faultline_sdk::TerminalRules;
use faultline_sdk::outcome::{Outcome, Stage};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let response_code = arguments.next().ok_or("what is needed is a response code, and perhaps the specification that it is of")?;
    let outcome = Outcome {
        stage: Stage::HostDecision.into(),
        response_code,
        response_spec: arguments.next().unwrap_or_default(),
        ..Outcome::default()
    };
    let verdict = TerminalRules::built_in()?.verdict(&outcome);
    let mut output = std::io::stdout().lock();
    writeln!(output, "{} ({} %): {}", verdict.cause.as_str_name(), verdict.confidence, verdict.reason)?;
    writeln!(output, "{}\n{}", verdict.cashier.zh_cn, verdict.cashier.en)?;
    Ok(())
}
