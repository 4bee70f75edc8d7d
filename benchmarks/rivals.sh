#!/usr/bin/env bash
# Makes sets by the methods of docs/rivals.md and compares them; a second start goes on where it was.
#
#   bash benchmarks/rivals.sh digits 1          data set, images per class
#   bash benchmarks/rivals.sh mnist 10 DATA     folder of the publisher's files
#
# What it makes lies in OUT (by default runs/rivals). BUDGET=short (the default) takes the schedules
# below, BUDGET=published those of the configurations.
set -euo pipefail
dataset=$1 count=$2 data=${3:+$(realpath "$3")}
out=${OUT:+$(realpath -m "$OUT")}
cd "$(dirname "$0")/.."
out=${out:-runs/rivals}/${dataset}_$count
python=${PYTHON:-python}
size=$((10 * count))
common=(--config.dataset.data_dir="$data" --config.eval.num_test="${NUM_TEST:-0}")

kip=() matching=()
if [ "${BUDGET:-short}" = short ]; then
  case $dataset-$count in
    digits-1) matching=(--config.num_steps=300) ;;
    digits-10) matching=(--config.num_steps=300 --config.matching.inner_loops=10) ;;
    *-1) kip=(--config.num_steps=100 --config.batch_size=200)
      matching=(--config.num_steps=300 --config.batch_size=160) ;;
    *) kip=(--config.num_steps=100 --config.batch_size=200)
      matching=(--config.num_steps=200 --config.batch_size=160 --config.matching.inner_loops=5) ;;
  esac
fi

run() { # name, configuration, further flags
  local name=$1 config=$2
  shift 2
  "$python" main.py --config="configs/$config" --workdir="$out/$name" \
    "${common[@]}" --config.eval.steps="(0,)" "$@"
}

run ls "ls_$dataset.py" --config.support.size=$size
run kip_fixed "kip_$dataset.py" --config.support.size=$size --config.support.learn_labels=False "${kip[@]}"
run kip "kip_$dataset.py" --config.support.size=$size "${kip[@]}"
run dc "dc_$dataset.py:$count" "${matching[@]}"
run dsa "dsa_$dataset.py:$count" "${matching[@]}"

network=convnet_in
[ "$dataset" = digits ] && network=convnet2_in
"$python" main.py --config="configs/kip_$dataset.py" --mode=compare --workdir="$out/compared" \
  --compare="$out/ls,$out/kip_fixed,$out/kip,$out/dc,$out/dsa" "${common[@]}" \
  --config.transfer.networks="('krr','kernel','$network')" \
  --config.transfer.recipe=kip \
  --config.transfer.baselines="('random','herding')" --config.transfer.width=128 \
  --config.transfer.num_steps=1000 --config.transfer.lr_factor="(0.1,0.3)"
