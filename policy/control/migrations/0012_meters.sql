-- What totals come to by name: cost units that have a name of their own, and money by currency. Standard SQL, as the first migration.
-- What of a total's `units` stands under no name is of the name `units`, and what of its `money` stands under no currency is of one
-- that nobody said: so it is with all that was stored before, and totals without such names take no room here.

-- A narrow number stands for kind and name in each of the millions of amounts.
CREATE TABLE usage_meters (
    id BIGINT NOT NULL PRIMARY KEY,
    -- `units` or `money`.
    kind TEXT NOT NULL,
    -- Of cost units their name, of money its currency.
    name TEXT NOT NULL,
    UNIQUE (kind, name)
);

-- Written and dropped together with the total they are part of. Sums stop at the largest number.
CREATE TABLE usage_amounts (
    step BIGINT NOT NULL,
    bucket BIGINT NOT NULL,
    key_id BIGINT NOT NULL REFERENCES usage_keys (id),
    meter_id BIGINT NOT NULL REFERENCES usage_meters (id),
    amount BIGINT NOT NULL,
    PRIMARY KEY (step, bucket, key_id, meter_id)
);
