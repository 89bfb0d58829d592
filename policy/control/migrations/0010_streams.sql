-- Streams count by the time they were open and by their messages. What was stored before had none that were counted.
ALTER TABLE usage_totals ADD COLUMN stream_seconds BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_totals ADD COLUMN request_messages BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_totals ADD COLUMN response_messages BIGINT NOT NULL DEFAULT 0;
