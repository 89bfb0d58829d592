-- When a revoked token ends by itself, where that is known: a day later it need not be told to anybody any more.
ALTER TABLE revocations ADD COLUMN expires_at BIGINT;
