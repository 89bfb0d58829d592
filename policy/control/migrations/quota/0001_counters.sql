-- How the counters of limits stand: what is handed out counts as gone. `level` is decimal text, since it may be longer than a BIGINT.
-- `written` is the limit as it was counted last, for those who ask; grants go by the limits themselves.
CREATE TABLE counters (
    limit_id TEXT NOT NULL,
    api TEXT NOT NULL,
    operation TEXT NOT NULL,
    subject TEXT NOT NULL,
    written TEXT NOT NULL,
    kind TEXT NOT NULL,
    begin_at BIGINT NOT NULL,
    end_at BIGINT NOT NULL,
    total BIGINT NOT NULL,
    level TEXT NOT NULL,
    level_at BIGINT NOT NULL,
    PRIMARY KEY (limit_id, subject, api, operation)
);
CREATE INDEX counters_of_subject ON counters (subject);
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO meta (name, value) VALUES ('version', 0);
-- Lives of grantors.
INSERT INTO meta (name, value) VALUES ('term', 0);
