//! Compares what was acknowledged with what is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use faultline_store::families;

use crate::chaos::parts::{Back, Front};
use crate::chaos::whereabouts::whereabouts;
use crate::chaos::writers::{REVERSED, code, name, reversed};
use crate::chaos::{until, wait};
use crate::store::{are_kept, drilldown};

/// How long it may take until everything is counted and settled on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until everything is done, and asserts that what was acknowledged is there once: of each terminal, the events from the first to this last.
pub(crate) async fn audit(last: &[u64], front: &Front<'_>, back: &Back<'_>) {
    let events = last.iter().sum::<u64>();
    let counted = wait(PATIENCE, async || match back.counted().await {
        counted if counted >= events => Ok(()),
        counted => Err(format!("{counted} of {events} events are counted, and the classifiers: {:?}", back.are_done().await)),
    });
    if let Err(instead) = counted.await {
        panic!("not within {PATIENCE:?}: {instead}{}", whereabouts(last, front, back).await);
    }
    // What was repeated is among what is dropped.
    until(PATIENCE, "the classifiers are done", async || back.are_done().await).await;
    let reversed = last.iter().map(|last| reversed(*last)).sum::<u64>();
    let settled = format!(
        "SELECT count() FROM (SELECT argMax(money_outcome, revision) AS money FROM outcomes WHERE sign = 1 AND sequence % {REVERSED} = 1 \
         GROUP BY terminal, spool, sequence) WHERE money = 2"
    );
    until(PATIENCE, "what was reversed is settled", async || match back.query(&settled).await {
        of_these if of_these == reversed.to_string() => Ok(()),
        of_these => Err(format!("{of_these} of {reversed} are")),
    })
    .await;

    // Every identity once, and no other.
    let wrong = "SELECT countIf(times < 1), countIf(times > 1) FROM (SELECT sum(sign) AS times FROM outcomes GROUP BY tenant, terminal, spool, sequence)";
    assert_eq!(back.query(wrong).await, "0\t0", "identities that are gone, and that are there twice");
    let identities = "SELECT terminal, sum(sign), uniqExact(spool), uniqExact(sequence), min(sequence), max(sequence), sum(sign * amount_minor) \
                      FROM outcomes GROUP BY terminal ORDER BY terminal";
    let all =
        (0..).zip(last).map(|(terminal, last)| format!("{}\t{last}\t1\t{last}\t1\t{last}\t{}", name(terminal), last * (last + 1) / 2));
    assert_eq!(back.query(identities).await, all.collect::<Vec<_>>().join("\n"));

    // With what was reported; what is said of it first is said of its code alone.
    let mut by_code = BTreeMap::<&str, (u64, u64)>::new();
    for (terminal, last) in (0..).zip(last) {
        for sequence in 1..=*last {
            let (count, amount) = by_code.entry(code(terminal, sequence)).or_default();
            (*count, *amount) = (*count + 1, *amount + sequence);
        }
    }
    let by_code = by_code.iter().map(|(code, (count, amount))| format!("{code}\t{count}\t{amount}\t1"));
    let stored = "SELECT response_code, sum(sign), sum(sign * amount_minor), uniqExactIf(cause, tag, revision = 0) FROM outcomes GROUP BY response_code ORDER BY response_code";
    assert_eq!(back.query(stored).await, by_code.collect::<Vec<_>>().join("\n"));

    // Corrections are rows first, then rows for drill-downs, then counts.
    until(PATIENCE, "what is kept for drill-downs is what is stored", async || are_kept(back.clickhouse()).await.map(|_| ())).await;
    assert!(drilldown(back.clickhouse()).await > 0);
    // In every family by cause and by tag.
    let by_cause = "SELECT cause, tag, sum(sign) AS some, sum(sign * amount_minor) FROM outcomes GROUP BY cause, tag HAVING some != 0 ORDER BY cause, tag";
    let rows = back.query(by_cause).await;
    println!("{rows}");
    for family in families() {
        let sums = format!(
            "SELECT cause, tag, sum(count) AS some, sum(amount_minor) FROM rollup WHERE family = '{family}' AND NOT simulated \
             GROUP BY cause, tag HAVING some != 0 ORDER BY cause, tag"
        );
        until(PATIENCE, "what is stored is counted", async || match back.query(&sums).await {
            counted if counted == rows => Ok(()),
            counted => Err(format!("{family}:\n{counted}")),
        })
        .await;
    }
    assert_eq!(back.counted().await, events, "in the ledger");
}
