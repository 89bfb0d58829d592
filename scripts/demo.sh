#!/bin/sh
# Starts the demo service and a gateway in front of it, says what to try, and stops both on Ctrl-C.
#
#   TOLLGATE           the binary            target/release/tollgate
#   DEMO_PORT          traffic               8080
#   DEMO_ADMIN_PORT    metrics and status    9900
#   DEMO_CONTROL_PORT  control API           9911
#   DEMO_SERVICE_PORT  the service behind    9000
#   DEMO_STATE         store, keys, logs     .demo (made anew)
#   DEMO_SECONDS       stop after so long    (never)
set -eu

cd "$(dirname "$0")/.."
tollgate=${TOLLGATE:-${CARGO_TARGET_DIR:-target}/release/tollgate}
port=${DEMO_PORT:-8080}
admin=${DEMO_ADMIN_PORT:-9900}
control=${DEMO_CONTROL_PORT:-9911}
service=${DEMO_SERVICE_PORT:-9000}
state=${DEMO_STATE:-.demo}
service_process=
gateway_process=
timer=

stop() {
    trap - EXIT INT TERM
    [ -z "$timer" ] || kill "$timer" 2>/dev/null || :
    [ -z "$gateway_process" ] || kill "$gateway_process" 2>/dev/null || :
    [ -z "$gateway_process" ] || wait "$gateway_process" 2>/dev/null || :
    [ -z "$service_process" ] || kill "$service_process" 2>/dev/null || :
    [ -z "$service_process" ] || wait "$service_process" 2>/dev/null || :
    rm -rf "$state"
}
if [ -e "$state" ] && [ ! -e "$state/made-by-demo" ]; then
    echo "demo: $state is there and not of an earlier demo; remove it, or choose another with DEMO_STATE" >&2
    exit 1
fi
rm -rf "$state"
mkdir -m 700 -p "$state"
: >"$state/made-by-demo"
trap stop EXIT
trap 'exit 0' INT TERM

# A machine without curl still gets its demo: then the start-up line has to do.
ready() {
    if command -v curl >/dev/null 2>&1; then
        curl -fs -o /dev/null --max-time 1 "http://127.0.0.1:$admin/readyz"
    else
        grep -q 'admin on ' "$state/gateway.log"
    fi
}

"$tollgate" demo-service --listen "127.0.0.1:$service" >"$state/service.log" 2>&1 &
service_process=$!
serve() {
    DEMO_SERVICE_PORT=$service "$tollgate" gateway --config config/demo \
        --listen "127.0.0.1:$port" --admin "127.0.0.1:$admin" --control-api "127.0.0.1:$control" \
        --state-dir "$state" --access-log "$state/access.log" >>"$state/gateway.log" 2>&1 &
    gateway_process=$!
    echo "$gateway_process" >"$state/gateway.pid"
}
serve

tries=0
until ready; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$gateway_process" 2>/dev/null \
        || ! kill -0 "$service_process" 2>/dev/null; then
        echo "demo: did not start:" >&2
        cat "$state/service.log" "$state/gateway.log" >&2
        exit 1
    fi
    sleep 0.1
done

sed 's/^ *//' "$state/gateway.log"
cat <<TRY

The bookstore is served at http://127.0.0.1:$port/v1. Try, in another terminal:

  curl -i 'http://127.0.0.1:$port/v1/books?limit=2'                   # listBooks
  curl http://127.0.0.1:$port/v1/books/new-arrivals                   # a literal beats {book}
  curl http://127.0.0.1:$port/v1/books/moby-dick                      # getBook
  curl -d '{"reader":"me"}' http://127.0.0.1:$port/v1/books/moby-dick:reserve
  curl http://127.0.0.1:$port/v1/covers/9780142437247.png             # two parameters in one segment
  curl http://127.0.0.1:$port/v1/files/moby-dick/chapters/1.txt       # a path of any depth
  curl -N 'http://127.0.0.1:$port/v1/events?count=3'                  # a stream
  curl -i http://127.0.0.1:$port/v1/admin/stats                       # 401: the file demands an API key
  curl -i -X PATCH http://127.0.0.1:$port/v1/books                    # 405, with Allow
  curl -i http://127.0.0.1:$port/v1/nothing                           # 404
  curl http://127.0.0.1:$admin/metrics                                 # counted by operation
  $tollgate status --admin 127.0.0.1:$admin

A service that speaks only gRPC is served as REST/JSON at http://127.0.0.1:$port/library:

  curl http://127.0.0.1:$port/library/v1/shelves
  curl 'http://127.0.0.1:$port/library/v1/shelves/fiction/books?pageSize=2&filter.title=a'
  curl -X PATCH -d '{"price":"990"}' http://127.0.0.1:$port/library/v1/shelves/fiction/books/emma
  curl -N 'http://127.0.0.1:$port/library/v1/shelves/-/books:watch?pageSize=3'   # a stream, as a JSON array
  curl -i -d '{"titel":"Ulysses"}' http://127.0.0.1:$port/library/v1/shelves/fiction/books   # 400, naming the field

Keys, plans and terms (config/demo says who may what):

  $tollgate plans list --control http://127.0.0.1:$control --admin-credential $state/admin-credential
  $tollgate consumers list --control http://127.0.0.1:$control --admin-credential $state/admin-credential
  $tollgate keys create front-desk --control http://127.0.0.1:$control --admin-credential $state/admin-credential
  curl -i -H 'x-api-key: THE-SECRET' http://127.0.0.1:$port/v1/admin/stats   # 403: terms not accepted
  curl -H 'x-api-key: THE-SECRET' http://127.0.0.1:$port/v1/.tollgate/terms  # the README goes on from here

Access log: $state/access.log. Ctrl-C stops the demo.
TRY

if [ -n "${DEMO_SECONDS:-}" ]; then
    (sleep "$DEMO_SECONDS" && kill "$$") >/dev/null 2>&1 &
    timer=$!
fi
while :; do
    status=0
    wait "$gateway_process" || status=$?
    # Killed by somebody who wants to see what is left of its numbers: it starts again, as a supervisor would have it.
    [ "$status" -eq 137 ] || exit "$status"
    echo 'demo: the gateway was killed; it starts again' >&2
    serve
done
