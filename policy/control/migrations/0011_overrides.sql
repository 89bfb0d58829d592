-- What projects and organisations are granted together; what single consumers are stays in `overrides`. Those of files are named here too:
-- no foreign key. `grantee` is project or organisation; `written` is the override as JSON in the shape of consumers.yaml.
CREATE TABLE shared_overrides (
    grantee TEXT NOT NULL,
    name TEXT NOT NULL,
    limit_id TEXT NOT NULL,
    written TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (grantee, name, limit_id)
);
