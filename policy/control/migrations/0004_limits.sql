-- What plans allow and how they are billed, and what single consumers are granted beside their plans. Limits are a JSON array in the
-- shape of plans.yaml; amounts are texts as written, because what they mean depends on what a limit counts.
ALTER TABLE plans ADD COLUMN limits TEXT NOT NULL DEFAULT '[]';
ALTER TABLE plans ADD COLUMN price_version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE plans ADD COLUMN currency TEXT NOT NULL DEFAULT 'EUR';

-- Consumers and plans from files are named here too: no foreign key. The limit is named as plan/<plan>/<limit>; `written` is the
-- override as JSON in the shape of consumers.yaml.
CREATE TABLE overrides (
    consumer TEXT NOT NULL,
    limit_id TEXT NOT NULL,
    written TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (consumer, limit_id)
);
