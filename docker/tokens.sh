#!/bin/sh
# Makes a token for each node of compose.yaml, at each start: one that has joined needs none, and an unused one counts for an hour.
set -eu

umask 077
for edge in edge-a edge-b; do
    tollgate join-tokens create --gateway "$edge" --quiet >"/run/join/$edge"
done
for book in book-1 book-2; do
    tollgate join-tokens create --service bookstore --quiet >"/run/join/$book"
done
tollgate join-tokens create --service library --quiet >/run/join/library-1
