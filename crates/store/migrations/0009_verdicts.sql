-- What was said of each outcome when it came, and what stands now: `outcomes` has every revision between.
CREATE VIEW IF NOT EXISTS verdicts AS
SELECT
    tenant, terminal, spool, sequence, completed_at,
    argMinIf(cause, revision, sign = 1) AS first_cause,
    argMinIf(reason, revision, sign = 1) AS first_reason,
    argMinIf(confidence, revision, sign = 1) AS first_confidence,
    argMaxIf(cause, revision, sign = 1) AS settled_cause,
    argMaxIf(reason, revision, sign = 1) AS settled_reason,
    argMaxIf(confidence, revision, sign = 1) AS settled_confidence,
    argMaxIf(money_outcome, revision, sign = 1) AS settled_money_outcome,
    max(revision) AS corrections
FROM outcomes
GROUP BY tenant, terminal, spool, sequence, completed_at;
