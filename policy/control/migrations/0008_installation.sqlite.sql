-- Which store this is. A store that begins anew is another: nodes tell by it that they may know more.
CREATE TABLE installation (
    id TEXT NOT NULL
);
INSERT INTO installation (id) VALUES (lower(hex(randomblob(16))));
