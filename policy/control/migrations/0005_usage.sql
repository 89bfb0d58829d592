-- Usage: what was served, added up. Standard SQL, as the first migration. Times are milliseconds since 1970.

-- Who sends, and the number expected next of each: written in the transaction that adds up.
CREATE TABLE usage_senders (
    node TEXT NOT NULL,
    run TEXT NOT NULL,
    shard BIGINT NOT NULL,
    next_number BIGINT NOT NULL,
    -- Added up of this sender; with what is missing, it makes next_number.
    records BIGINT NOT NULL,
    complete BOOLEAN NOT NULL,
    -- Whether it was said that it may be incomplete.
    reported BOOLEAN NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    PRIMARY KEY (node, run, shard)
);
CREATE INDEX usage_senders_by_time ON usage_senders (last_seen);
-- Senders whose node was heard of later in another run: one that began later, or one that goes on. A run that was replayed to its end
-- after a crash does not make the one idle that replayed it.
CREATE VIEW usage_superseded AS
    SELECT s.node, s.run, s.shard FROM usage_senders s WHERE EXISTS (
        SELECT 1 FROM usage_senders o WHERE o.node = s.node AND o.run <> s.run AND o.last_seen > s.last_seen
            AND (o.first_seen > s.first_seen OR o.complete = FALSE));

-- Numbers that were skipped, both ends included. Ranges of a sender never overlap.
CREATE TABLE usage_gaps (
    seq BIGINT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    run TEXT NOT NULL,
    shard BIGINT NOT NULL,
    first_missing BIGINT NOT NULL,
    last_missing BIGINT NOT NULL,
    found_at BIGINT NOT NULL,
    closed_at BIGINT
);
CREATE INDEX usage_gaps_of_sender ON usage_gaps (node, run, shard, first_missing);

-- What totals are of. A narrow number stands for eight columns in each of the millions of totals.
CREATE TABLE usage_keys (
    id BIGINT NOT NULL PRIMARY KEY,
    organisation TEXT NOT NULL,
    project TEXT NOT NULL,
    consumer TEXT NOT NULL,
    api TEXT NOT NULL,
    operation TEXT NOT NULL,
    plan TEXT NOT NULL,
    price_version BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    UNIQUE (consumer, api, operation, plan, price_version, outcome, project, organisation)
);

-- The step is in seconds: 60, 3600, 86400. All three are written together. Sums stop at the largest number.
CREATE TABLE usage_totals (
    step BIGINT NOT NULL,
    bucket BIGINT NOT NULL,
    key_id BIGINT NOT NULL REFERENCES usage_keys (id),
    records BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    units BIGINT NOT NULL,
    money BIGINT NOT NULL,
    request_bytes BIGINT NOT NULL,
    response_bytes BIGINT NOT NULL,
    cpu_nanos BIGINT NOT NULL,
    micros BIGINT NOT NULL,
    PRIMARY KEY (step, bucket, key_id)
);
