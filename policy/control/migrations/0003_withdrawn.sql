-- Logins and certificates of consumers that were deleted. A token or certificate may count without a consumer; these do not, until
-- another consumer has them.
CREATE TABLE withdrawn_logins (
    issuer TEXT NOT NULL,
    client TEXT NOT NULL,
    consumer TEXT NOT NULL,
    PRIMARY KEY (issuer, client)
);
CREATE TABLE withdrawn_certificates (
    name TEXT NOT NULL PRIMARY KEY,
    consumer TEXT NOT NULL
);
