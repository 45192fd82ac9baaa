#!/usr/bin/env bash
# One run on a GPU: bits, errors against f64, the bench, the peers where PyTorch is, the sanitizer and profiles where NVIDIA's tools
# are, and the demo's networks by burn's CUDA back end where there is a program that has it. Its limits add up to 590 s.
#   benches/peers/gpu.sh PROGRAM [FOLDER]
# PROGRAM is a built `weir` or `weir-bench-kernels`; the machine needs nothing but a driver. WEIR_BURN names a `weir` that was built
# with `--features cuda` (`make bench-gpu BURN=1` builds one); without it burn is tried where PROGRAM itself is such a `weir`. Either
# runs the demo of this checkout. What is found goes to FOLDER ($OUT where it is set, else benches/results/gpu): kernels.md (tables),
# *.jsonl, roofline.png, trace.json, log.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "${1:?name the program: a built weir or weir-bench-kernels}")
folder=${2:-${OUT:-$here/../results/gpu}}
device=${WEIR_DEVICE:-cuda:0}
mkdir -p "$folder"
folder=$(realpath "$folder")
command=("$program")
[[ $(basename "$program") == weir ]] && command+=(bench kernels)
command+=(--device "$device")
wrong=0

# step NAME SECONDS COMMAND...: what it prints goes to kernels.md; a step that fails does not keep the next from running.
step() {
  local name=$1 seconds=$2 begun=$SECONDS status=0
  shift 2
  printf '\n## %s\n\n' "$name" >>"$folder/kernels.md"
  timeout "$seconds" "$@" >>"$folder/kernels.md" 2>>"$folder/log" || status=$?
  ((status == 0)) || wrong=1
  echo "$name: exit $status after $((SECONDS - begun)) s" | tee -a "$folder/log"
}

{
  echo "# Kernels on a GPU"
  echo
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv 2>/dev/null ||
    echo "no nvidia-smi"
} >"$folder/kernels.md"
: >"$folder/log"

step "Bits and errors over small shapes" 60 "${command[@]}" --check --json "$folder/check.jsonl"
step "Bench" 130 "${command[@]}" --budget 80 --json "$folder/bench.jsonl" --plot "$folder/roofline.png" --trace "$folder/trace.json"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  # The stated shapes come first in the bench, so the peers take those.
  timeout 90 python3 "$here/pool.py" "$folder/bench.jsonl" --device cuda --most 15 --seconds 0.5 \
    >"$folder/peers.jsonl" 2>>"$folder/log" || echo "peers: cut off or failed, see log" | tee -a "$folder/log"
  step "Beside PyTorch" 55 "${command[@]}" --budget 35 --peers "$folder/peers.jsonl"
else
  echo "peers: no PyTorch that sees this GPU" | tee -a "$folder/log"
fi

# The engine's networks by burn on the card, beside the same on the processor: the pages say that they agree to some digits, and
# which digits is what this shows. burn ends the process where a device fails, so a failure here is a line in the log.
burn=${WEIR_BURN:-}
if [[ -z $burn && $(basename "$program") == weir ]]; then
  # doctor's exit status is of the whole machine.
  said=$(timeout 15 "$program" doctor 2>/dev/null) || true
  [[ $said == *"this build has burn's CUDA back end"* ]] && burn=$program
fi
if [[ -n $burn && ! -x $burn ]]; then
  echo "burn: not tried, as WEIR_BURN ($burn) is no program" | tee -a "$folder/log"
  wrong=1
elif [[ -n $burn ]]; then
  burn=$(realpath "$burn")
  by_burn() {
    local where
    cd "$here/../.." || return
    for where in cpu "$device"; do
      "$burn" run pipelines/demo.weir.toml --executor burn --device "$where" --again --out "$folder/burn-${where%%:*}" || return
    done
    head "$folder"/burn-*/predictions.csv
  }
  export -f by_burn
  export here burn device folder
  step "The demo's networks by burn" 60 bash -c by_burn
else
  echo "burn: not tried, as WEIR_BURN names no weir with burn's CUDA back end: make bench-gpu BURN=1, or" \
    "CUDARC_CUDA_VERSION=13000 cargo build --release -p weir --features cuda" | tee -a "$folder/log"
fi

# Out of bounds and misaligned addresses, then shared memory that is read before it is written by all, over (a) to (e).
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    for cases in "8x40 -ragged -masked" tiles; do
      step "compute-sanitizer, $tool, $cases" 20 compute-sanitizer --tool "$tool" --error-exitcode 9 \
        "${command[@]}" --check --filter "$cases"
    done
  done
else
  echo "compute-sanitizer: not on this machine" | tee -a "$folder/log"
fi
if command -v ncu >/dev/null; then
  # The clocks are left as they are: the card is shared with whoever comes next.
  for case in "(b):pool.forward squared-average bf16 64x4096 d1024 -ragged -masked" \
    "(c):gated-pool.forward squared-average bf16 64x4096 d1024 l256 -ragged -masked"; do
    step "Profile of ${case%%:*}" 50 ncu --clock-control none --kernel-name regex:weir_ --launch-skip 4 --launch-count 4 \
      --section SpeedOfLight --section MemoryWorkloadAnalysis --section Occupancy \
      "${command[@]}" --filter "${case#*:}" --budget 4
  done
else
  echo "ncu: not on this machine" | tee -a "$folder/log"
fi
tail -n 60 "$folder/kernels.md"
exit $wrong
