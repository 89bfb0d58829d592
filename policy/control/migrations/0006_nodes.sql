-- Nodes: what lets one join. Standard SQL, as the first migration. Times are milliseconds since 1970.

-- Tokens are known by their keyed hash alone. Each is used once, by the node in used_by.
CREATE TABLE join_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by TEXT
);
CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);
