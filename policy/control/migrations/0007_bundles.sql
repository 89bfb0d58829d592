-- What nodes compile APIs from. Standard SQL, as the first migration. Times are milliseconds since 1970.

-- The two last generations of each API, whole: `files` as on the wire.
CREATE TABLE bundles (
    api TEXT NOT NULL,
    generation BIGINT NOT NULL,
    hash BLOB NOT NULL,
    service TEXT NOT NULL,
    files BLOB NOT NULL,
    published_at BIGINT NOT NULL,
    PRIMARY KEY (api, generation)
);

-- The highest generation each API ever had, and whether its owner removed it: a generation is never given out twice.
CREATE TABLE bundle_counts (
    api TEXT NOT NULL PRIMARY KEY,
    generation BIGINT NOT NULL,
    withdrawn BOOLEAN NOT NULL
);
