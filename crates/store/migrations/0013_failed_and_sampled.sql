-- What failed is one row in eight, and a sample says as much of the others; but rows are in order of terminals, so either is spread over all that is read. Each part has the two once more, of the
-- columns that are asked for: what failed by class, and every eighth attempt. A question that says the condition word for word is answered from there; parts that are there already are read as before.
ALTER TABLE outcomes
    ADD PROJECTION IF NOT EXISTS failed (
        SELECT tenant, completed_at, tag, cause, sign,
            acquirer, carrier, entry_mode, firmware, host, issuer, merchant_group, model, region,
            merchant, store, terminal, spool, sequence, first_attempt_sequence, currency, amount_minor
        WHERE cause != 'approved'
        ORDER BY tenant, toStartOfFiveMinutes(completed_at), tag
    );

ALTER TABLE outcomes
    ADD PROJECTION IF NOT EXISTS sampled (
        SELECT tenant, completed_at, sequence, tag, sign,
            acquirer, carrier, entry_mode, firmware, host, issuer, merchant_group, model, region
        WHERE cityHash64(completed_at, sequence) % 8 = 0
        ORDER BY tenant, toStartOfFiveMinutes(completed_at)
    );
