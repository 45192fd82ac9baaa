#!/usr/bin/env bash
# One run on a GPU: bits, errors against f64, the bench, the peers where PyTorch is, a profile where ncu is. Under 8 minutes.
#   benches/peers/gpu.sh PROGRAM [FOLDER]
# PROGRAM is a built `weir` or `weir-bench-kernels`; the machine needs nothing but a driver. What is found goes to FOLDER ($OUT
# where it is set, else benches/results/gpu): kernels.md (tables), *.jsonl, roofline.png, trace.json, log.
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

step "Bits and errors over small shapes" 90 "${command[@]}" --check --json "$folder/check.jsonl"
step "Bench" 170 "${command[@]}" --budget 100 --json "$folder/bench.jsonl" --plot "$folder/roofline.png" --trace "$folder/trace.json"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  # The stated shapes come first in the bench, so the peers take those.
  echo "peers: begun" >>"$folder/log"
  timeout 120 python3 "$here/pool.py" "$folder/bench.jsonl" --device cuda --most 15 --seconds 0.5 \
    >"$folder/peers.jsonl" 2>>"$folder/log" || echo "peers: cut off or failed, see log" | tee -a "$folder/log"
  step "Beside PyTorch" 60 "${command[@]}" --budget 20 --peers "$folder/peers.jsonl"
else
  echo "peers: no PyTorch that sees this GPU" | tee -a "$folder/log"
fi
if command -v ncu >/dev/null; then
  # The clocks are left as they are: the card is shared with whoever comes next.
  step "Profile of (b)" 60 ncu --clock-control none --kernel-name regex:weir_ --launch-skip 4 --launch-count 4 \
    --section SpeedOfLight --section MemoryWorkloadAnalysis --section Occupancy \
    "${command[@]}" --filter "pool.forward squared-average bf16 64x4096 d1024 -ragged -masked" --budget 4
fi
tail -n 60 "$folder/kernels.md"
exit $wrong
