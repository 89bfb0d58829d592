-- The directory. Standard SQL: the same text serves SQLite and PostgreSQL, there with collation C. Digests are lower-case
-- hexadecimal, times are milliseconds since 1970, lists are JSON arrays. Names may also be defined in files, so references
-- between objects that files can define are checked by the program, not by foreign keys.
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL);

CREATE TABLE organisations (
    name TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE projects (
    name TEXT NOT NULL PRIMARY KEY,
    organisation TEXT NOT NULL,
    title TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE plans (
    name TEXT NOT NULL PRIMARY KEY,
    roles TEXT NOT NULL,
    terms TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE plan_apis (
    plan TEXT NOT NULL REFERENCES plans (name) ON DELETE CASCADE,
    api TEXT NOT NULL,
    operations TEXT,
    PRIMARY KEY (plan, api)
);
CREATE TABLE consumers (
    name TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    roles TEXT NOT NULL,
    explains BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE subscriptions (
    consumer TEXT NOT NULL REFERENCES consumers (name) ON DELETE CASCADE,
    api TEXT NOT NULL,
    plan TEXT NOT NULL,
    PRIMARY KEY (consumer, api)
);
CREATE TABLE logins (
    issuer TEXT NOT NULL,
    client TEXT NOT NULL,
    consumer TEXT NOT NULL REFERENCES consumers (name) ON DELETE CASCADE,
    PRIMARY KEY (issuer, client)
);
CREATE INDEX logins_of_consumer ON logins (consumer);
CREATE TABLE certificates (
    name TEXT NOT NULL PRIMARY KEY,
    consumer TEXT NOT NULL REFERENCES consumers (name) ON DELETE CASCADE
);
CREATE INDEX certificates_of_consumer ON certificates (consumer);
CREATE TABLE users (
    name TEXT NOT NULL PRIMARY KEY,
    password TEXT NOT NULL,
    consumer TEXT NOT NULL REFERENCES consumers (name) ON DELETE CASCADE
);
CREATE INDEX users_of_consumer ON users (consumer);
-- Keys of consumers from files are kept here too: no foreign key.
CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    consumer TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    not_before BIGINT,
    expires_at BIGINT,
    operations TEXT,
    networks TEXT NOT NULL,
    referrers TEXT NOT NULL,
    UNIQUE (consumer, name)
);
-- A consumer suspended here is refused whatever a file says.
CREATE TABLE suspensions (consumer TEXT NOT NULL PRIMARY KEY, at BIGINT NOT NULL);

CREATE TABLE terms (
    name TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    apis TEXT NOT NULL,
    shadow BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE terms_versions (
    terms TEXT NOT NULL REFERENCES terms (name) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    effective BIGINT NOT NULL,
    grace BIGINT NOT NULL,
    text_hash TEXT NOT NULL,
    text TEXT NOT NULL,
    purpose_required BOOLEAN NOT NULL,
    PRIMARY KEY (terms, version)
);

CREATE TABLE acceptances (
    seq BIGINT NOT NULL PRIMARY KEY,
    consumer TEXT NOT NULL,
    credential TEXT NOT NULL,
    terms TEXT NOT NULL,
    version BIGINT NOT NULL,
    text_hash TEXT NOT NULL,
    purpose TEXT NOT NULL,
    accepted_at BIGINT NOT NULL,
    address TEXT NOT NULL
);
CREATE INDEX acceptances_of_terms ON acceptances (terms, seq);
CREATE TABLE revocations (
    seq BIGINT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    before_at BIGINT,
    reason TEXT NOT NULL,
    revoked_at BIGINT NOT NULL
);
CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    address TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);
