#!/usr/bin/env bash
# Four hospitals, one upload each, by files: the whole round as its people would do it.
# Usage: examples/hospitals/run.sh [WORK]      (a folder for the files; default a temporary one)
# Everything a hospital does happens with its own FUSIONLEARN_HOME, as on its own machine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work"
hospitals="cleveland hungarian switzerland va"

echo "== Each hospital exports its own table"
python "$here/prepare.py" "$work"

echo "== The coordinator makes a signed task and sends it to the hospitals"
FUSIONLEARN_HOME=$work/coordinator fusionlearn new "$here/task.toml" -o "$work/task.fusion"

for hospital in $hospitals; do
  echo "== $hospital: one look at what leaves, then one upload"
  FUSIONLEARN_HOME=$work/$hospital fusionlearn summarize "$work/task.fusion" "$work/$hospital/train.csv" \
    -o "$work/$hospital.fusion" --accept-small-cells
done

echo "== The coordinator fuses the four files"
FUSIONLEARN_HOME=$work/coordinator fusionlearn fuse "$work/task.fusion" \
  "$work/cleveland.fusion" "$work/hungarian.fusion" "$work/switzerland.fusion" "$work/va.fusion" \
  -o "$work/model.fusion" --report "$work/report.json"

for hospital in $hospitals; do
  echo "== $hospital: the fused model on its own patients, kept back"
  FUSIONLEARN_HOME=$work/$hospital fusionlearn evaluate "$work/model.fusion" "$work/$hospital/test.csv"
done

echo "== Fused against local and pooled"
python "$here/compare.py" "$work"
