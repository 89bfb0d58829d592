#!/bin/sh
# Starts an installation as plain processes: a control plane, two gateways, and three sidecars with their apps (two instances of the
# service `bookstore`, one of `library`). Says what to try, and stops all of it on Ctrl-C.
#
#   fleet-demo.sh              all of it
#   fleet-demo.sh kill NAME    kills one of it as `kill -9` does: control, edge-a, edge-b, book-1, book-2 or library-1
#   fleet-demo.sh start NAME   starts it again, and waits until it is ready
#
#   TOLLGATE             the binary                          target/release/tollgate
#   FLEET_NODES          where nodes connect                 9910
#   FLEET_CONTROL        control API                         9911
#   FLEET_EDGE_A, _B     traffic of the gateways             8080, 8180; admin: FLEET_EDGE_A_ADMIN, _B_ADMIN (9900, 9901)
#   FLEET_BOOK_1, _2     inbound ports of the sidecars       9080, 9180; with _OUTBOUND (9081, 9181), _ADMIN (9902, 9903) and
#                                                            _APP (7001, 7002), the port of the app
#   FLEET_LIBRARY_1      the same                            9280; 9281, 9904, 7003
#   FLEET_STATE          configuration, state, logs          .fleet (made anew)
#   FLEET_SECONDS        stop after so long                  (never)
set -eu

cd "$(dirname "$0")/.."
tollgate=${TOLLGATE:-${CARGO_TARGET_DIR:-target}/release/tollgate}
state=${FLEET_STATE:-.fleet}
nodes=127.0.0.1:${FLEET_NODES:-9910}
control=127.0.0.1:${FLEET_CONTROL:-9911}
edge_a=127.0.0.1:${FLEET_EDGE_A:-8080} edge_a_admin=127.0.0.1:${FLEET_EDGE_A_ADMIN:-9900}
edge_b=127.0.0.1:${FLEET_EDGE_B:-8180} edge_b_admin=127.0.0.1:${FLEET_EDGE_B_ADMIN:-9901}
book_1_app=127.0.0.1:${FLEET_BOOK_1_APP:-7001} book_1_admin=127.0.0.1:${FLEET_BOOK_1_ADMIN:-9902}
book_2_app=127.0.0.1:${FLEET_BOOK_2_APP:-7002} book_2_admin=127.0.0.1:${FLEET_BOOK_2_ADMIN:-9903}
library_1_app=127.0.0.1:${FLEET_LIBRARY_1_APP:-7003} library_1_admin=127.0.0.1:${FLEET_LIBRARY_1_ADMIN:-9904}

# In the order they end: who takes calls before whom calls go to, and the one all report to last.
members="edge-a edge-b book-1 book-2 library-1 book-1-app book-2-app library-1-app control"

# Starts `tollgate ARGUMENTS` as NAME.
run() {
    name=$1
    shift
    "$tollgate" "$@" </dev/null >>"$state/$name.log" 2>&1 &
    echo "$!" >"$state/$name.pid"
}
gateway() { # NAME TRAFFIC ADMIN
    run "$1" gateway --control "https://$nodes" --node "$1" --join-token-file "$state/$1.token" \
        --listen "$2" --admin "$3" --workers 1 --state-dir "$state/$1" --access-log "$state/$1.access.log"
}
sidecar() { # NAME SERVICE APP ADMIN INBOUND OUTBOUND
    run "$1" sidecar --service "$2" --app "$3" --control "https://$nodes" --node "$1" --join-token-file "$state/$1.token" \
        --admin "$4" --inbound "127.0.0.1:$5" --outbound "127.0.0.1:$6" --mtls strict --drain-grace 1s \
        --state-dir "$state/$1" --access-log "$state/$1.access.log"
}
launch() {
    case $1 in
    control) run control control --config "$state/config" --nodes "$nodes" --control-api "$control" --state-dir "$state/control" ;;
    edge-a) gateway edge-a "$edge_a" "$edge_a_admin" ;;
    edge-b) gateway edge-b "$edge_b" "$edge_b_admin" ;;
    book-1) sidecar book-1 bookstore "http://$book_1_app" "$book_1_admin" "${FLEET_BOOK_1:-9080}" "${FLEET_BOOK_1_OUTBOUND:-9081}" ;;
    book-2) sidecar book-2 bookstore "http://$book_2_app" "$book_2_admin" "${FLEET_BOOK_2:-9180}" "${FLEET_BOOK_2_OUTBOUND:-9181}" ;;
    library-1) sidecar library-1 library "grpc://$library_1_app" "$library_1_admin" "${FLEET_LIBRARY_1:-9280}" "${FLEET_LIBRARY_1_OUTBOUND:-9281}" ;;
    book-1-app) run book-1-app demo-service --listen "$book_1_app" ;;
    book-2-app) run book-2-app demo-service --listen "$book_2_app" ;;
    library-1-app) run library-1-app demo-service --listen "$library_1_app" ;;
    *) echo "fleet-demo: no such part: $1" >&2 && exit 2 ;;
    esac
}

administer() { "$tollgate" "$@" --control "http://$control" --admin-credential "$state/control/admin-credential"; }

# Waits until NAME does its work.
ready() {
    case $1 in
    control)
        tries=0
        until administer ca show >/dev/null 2>&1; do
            tries=$((tries + 1))
            [ "$tries" -le 100 ] && kill -0 "$(cat "$state/control.pid")" 2>/dev/null || return 1
            sleep 0.1
        done
        ;;
    edge-a) "$tollgate" wait --admin "$edge_a_admin" --timeout 20s ;;
    edge-b) "$tollgate" wait --admin "$edge_b_admin" --timeout 20s ;;
    book-1) "$tollgate" wait --admin "$book_1_admin" --timeout 20s ;;
    book-2) "$tollgate" wait --admin "$book_2_admin" --timeout 20s ;;
    library-1) "$tollgate" wait --admin "$library_1_admin" --timeout 20s ;;
    esac
}
start() {
    launch "$1"
    ready "$1" || {
        echo "fleet-demo: $1 did not start:" >&2
        cat "$state/$1.log" >&2
        exit 1
    }
}
# Ends NAME by SIGNAL, and waits until it is gone. It need not be a child: `start` has its own shell.
end() {
    [ -e "$state/$1.pid" ] || return 0
    process=$(cat "$state/$1.pid")
    kill "-$2" "$process" 2>/dev/null || :
    tries=0
    while kill -0 "$process" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -ne 150 ] || kill -KILL "$process" 2>/dev/null || :
        sleep 0.1
    done
    rm -f "$state/$1.pid"
}

case ${1:-} in
'') ;;
kill | start)
    [ -e "$state/made-by-fleet-demo" ] || { echo "fleet-demo: nothing runs in $state" >&2 && exit 1; }
    case " $members " in *" ${2:-} "*) ;; *) echo "fleet-demo: $1 whom? One of: $members" >&2 && exit 2 ;; esac
    if [ "$1" = kill ]; then end "$2" KILL; else start "$2"; fi
    exit
    ;;
*) echo "fleet-demo: kill NAME, start NAME, or nothing" >&2 && exit 2 ;;
esac

if [ -e "$state" ] && [ ! -e "$state/made-by-fleet-demo" ]; then
    echo "fleet-demo: $state is there and not of an earlier demo; remove it, or choose another with FLEET_STATE" >&2
    exit 1
fi
rm -rf "$state"
mkdir -m 700 -p "$state"
: >"$state/made-by-fleet-demo"

timer=
stop() {
    trap - EXIT INT TERM
    [ -z "$timer" ] || kill "$timer" 2>/dev/null || :
    # All are told first: a sidecar goes on for a second, for those who have not heard yet that it leaves.
    for member in $members; do
        [ ! -e "$state/$member.pid" ] || kill "$(cat "$state/$member.pid")" 2>/dev/null || :
    done
    for member in $members; do end "$member" TERM; done
    rm -rf "$state"
}
trap stop EXIT
trap 'exit 0' INT TERM

# A copy, to be changed at will: `next` holds what is not published yet.
mkdir -p "$state/config/apis" "$state/config/next"
cp config/fleet/plans.yaml config/fleet/consumers.yaml "$state/config"
for file in apis/bookstore.yaml apis/library.yaml next/partners.yaml; do
    sed "s|\.\./\.\./\.\./openapi-specs|$PWD/openapi-specs|" "config/fleet/$file" >"$state/config/$file"
done

start control
umask 077
for edge in edge-a edge-b; do administer join-tokens create --gateway "$edge" --quiet >"$state/$edge.token"; done
for book in book-1 book-2; do administer join-tokens create --service bookstore --quiet >"$state/$book.token"; done
administer join-tokens create --service library --quiet >"$state/library-1.token"
for member in book-1-app book-2-app library-1-app book-1 book-2 library-1 edge-a edge-b; do launch "$member"; done
for member in book-1 book-2 library-1 edge-a edge-b; do
    ready "$member" || {
        echo "fleet-demo: $member did not start:" >&2
        cat "$state/$member.log" >&2
        exit 1
    }
done
# Used up: each of them let one node join.
rm -f "$state"/*.token
administer nodes
# Identifier and secret, as two words.
key=$(administer keys create front-desk --quiet)
key=${key#* }

cat <<TRY

The bookstore is served at http://$edge_a/v1 and http://$edge_b/v1. Try, in another terminal:

  export TOLLGATE_ADMIN_CREDENTIAL=\$(cat $state/control/admin-credential)
  curl http://$edge_a/v1/books/moby-dick                                # gateway, sidecar, app
  curl -H 'x-api-key: $key' -d '{}' http://$edge_a/v1/books             # billed, once
  curl -H 'x-api-key: $key' -d '{}' http://$edge_b/v1/books
  seq 20 | xargs -P 20 -I% curl -s -o /dev/null -H 'x-api-key: $key' -d '{}' http://$edge_a/v1/books   # over both instances
  $tollgate nodes --control http://$control
  $tollgate bundles list --control http://$control
  curl -H 'host: library.localhost' http://$edge_b/v1/shelves           # the service behind speaks gRPC
  cp $state/config/next/partners.yaml $state/config/apis/               # publishes another API
  until curl -fs http://$edge_b/partners/v1/books/moby-dick; do sleep 0.2; done
  sh scripts/fleet-demo.sh kill control                                 # the control plane is gone:
  curl -f -H 'x-api-key: $key' -d '{}' http://$edge_a/v1/books          # still served
  sh scripts/fleet-demo.sh kill book-1
  sh scripts/fleet-demo.sh start book-1                                 # starts from what it keeps on its disk
  curl http://$edge_a/v1/books/moby-dick
  sh scripts/fleet-demo.sh start control
  # 23, to the record, once the gateways are back in contact:
  until $tollgate usage --consumer front-desk --by operation --control http://$control | grep 'createBook  23'; do sleep 0.5; done
  $tollgate usage gaps --control http://$control

The README goes on from here. Logs: $state/*.log. Ctrl-C stops all of it.
TRY

if [ -n "${FLEET_SECONDS:-}" ]; then
    (sleep "$FLEET_SECONDS" && kill "$$") >/dev/null 2>&1 &
    timer=$!
fi
while :; do
    # In the background: a signal ends `wait`, and would not end `sleep`.
    sleep 3600 &
    nap=$!
    trap 'kill "$nap" 2>/dev/null || :; exit 0' INT TERM
    wait "$nap" || :
done
