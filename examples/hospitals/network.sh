#!/usr/bin/env bash
# Four hospitals and a hub: the same round over a network, each side as it would be on its own machine.
# Usage: examples/hospitals/network.sh [WORK]      (a folder for the files; default a temporary one)
# Needs pip install "fusionlearn[hub,agent,demo]", and [postgresql] for the line below.
# FUSIONLEARN_DATABASE (one that is empty) and FUSIONLEARN_STORE put the hub on PostgreSQL and an object store instead of a folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work"
hospitals="cleveland hungarian switzerland va"

echo "== Each hospital exports its own table"
python "$here/prepare.py" "$work"

echo "== The coordinator starts a hub and publishes a signed task: it closes with the fourth update"
export FUSIONLEARN_HOME=$work/coordinator
fusionlearn new "$here/task.toml" -o "$work/task.fusion"
fusionlearn serve --data "$work/hub" --port "${PORT:-0}" 2> "$work/hub.log" &
hub=$!
trap 'kill $hub 2> /dev/null; wait $hub 2> /dev/null || true' EXIT
until grep -q "Listening on" "$work/hub.log"; do kill -0 $hub; sleep 0.1; done
url=$(sed -n 's/.*Listening on //p' "$work/hub.log")
fusionlearn publish "$work/task.fusion" --hub "$url" --quorum 4

for hospital in $hospitals; do
  echo "== $hospital: joins with its code, looks at what leaves, sends it once"
  code=$(FUSIONLEARN_HOME=$work/coordinator fusionlearn invite --hub "$url" --json | python -c 'import json, sys; print(json.load(sys.stdin)["code"])')
  FUSIONLEARN_HOME=$work/$hospital fusionlearn join "$url" --code "$code" --name "$hospital" \
    --data "$work/$hospital/train.csv" --hold-out 0 --accept-small-cells
done

for hospital in $hospitals; do
  echo "== $hospital: comes back, fetches the model, tries it on its own patients, kept back"
  export FUSIONLEARN_HOME=$work/$hospital
  until fusionlearn status "$url" > /dev/null; do sleep 0.5; done
  fusionlearn fetch "$url" -o "$work/$hospital/model.fusion"
  fusionlearn evaluate "$work/$hospital/model.fusion" "$work/$hospital/test.csv"
done

echo "== The coordinator: who answered, and the log"
export FUSIONLEARN_HOME=$work/coordinator
fusionlearn updates --hub "$url"
fusionlearn hub verify --data "$work/hub"
