#!/usr/bin/env bash
# All that needs a CUDA device, in one command: tests/gpu, the benchmark whose figures the claims state, and scenarios on
# the device; what cannot run says why.
#
#   PY=python3 MINUTES=20 OUT=outputs/gpu RUN_ARGS=--quick bash scripts/gpu_check.sh [arguments of pytest]
#
# PY: the interpreter; no virtual environment is needed. MINUTES: for all of it; a step is stopped when they are over,
# and a scenario when its share is (`share`): 20 hold the tests, the benchmark and parts of the scenarios, 40 all of it.
# SCENARIOS: which are run, in this order. RUN_ARGS: further arguments of run_all.py; --quick where it is not set, since
# whole runs take longer than these minutes: RUN_ARGS= MINUTES=180. What a scenario is told beside that stands in `told`.
# Writes to OUT, in the place of what an earlier check left there: runs/, reference/ (the same, scrubbed, also of runs
# that were stopped), gpu.json and README.md of benchmarks/gpu.py, gpu_check.txt, a line for every step, and
# gpu-check.md, which says what was settled, however this script ends. Exit: 0 all that ran passed, 3 a device that
# torch cannot use, else that of the first step that failed.
set -u -o pipefail -o noglob
cd "$(dirname "$0")/.."

PY=${PY:-python3} MINUTES=${MINUTES:-20} OUT=${OUT:-outputs/gpu}
SCENARIOS=${SCENARIOS:-mamba bert bert_large smollm2 mock} RUN_ARGS=${RUN_ARGS---quick}
BENCHMARK_MINUTES=5
began=$(date +%s) failed=0 child= running= cap=
ledger=$OUT/gpu_check.txt

left() { echo $((60 * MINUTES - $(date +%s) + began)); }

tell() {
  echo "gpu-check: $*"
  echo "$*" >>"$ledger"
}

# step NAME OK COMMAND...: exit codes up to OK are fine (1 of a run is a gate that was not met).
step() {
  local name=$1 fine=$2 start code
  shift 2
  if [ "$(left)" -le 10 ]; then
    tell "$name: skipped, the $MINUTES minutes are over"
    return 1
  fi
  start=$(date +%s)
  timeout --signal=TERM --kill-after=20 "$(least "$(left)" "${cap:-$(left)}")" "$@" &
  child=$!
  wait "$child"
  code=$?
  child=
  if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
    tell "$name: stopped after $(($(date +%s) - start)) s, its part of the $MINUTES minutes is over"
    [ "$failed" -ne 0 ] || failed=124
    return 1
  fi
  tell "$name: exit $code after $(($(date +%s) - start)) s"
  if [ "$code" -gt "$fine" ]; then
    [ "$failed" -ne 0 ] || failed=$code
    return 1
  fi
}

least() { echo $(($1 < $2 ? $1 : $2)); }

weight() {
  case $1 in
    mamba | bert) echo 4 ;;
    bert_large) echo 2 ;;
    *) echo 1 ;;
  esac
}

# share SCENARIO...: seconds that the first of those that are to come may take, never 0, which `timeout` takes for no limit.
share() {
  local all=0 scenario
  for scenario in "$@"; do all=$((all + $(weight "$scenario"))); done
  echo $(($(left) * $(weight "$1") / all + 1))
}

# Whatever ends the script: what ran is kept, and the page says what was settled.
finish() {
  local code=$?
  trap - EXIT INT TERM
  if [ -n "${child:-}" ]; then
    kill -TERM "$child" 2>/dev/null
    wait "$child"
    tell "the check was stopped from outside"
  fi
  [ -z "${running:-}" ] || keep_scrubbed "$running"
  "$PY" -m icd_lib.release.gpu_page "$OUT" && echo "gpu-check: $OUT/gpu-check.md says what was settled"
  exit "$code"
}

# keep_scrubbed SCENARIO: of a run that was stopped too, as far as it came.
keep_scrubbed() {
  running=
  if [ -f "$OUT/runs/$1/config.lock.json" ]; then
    "$PY" -c 'import sys; from icd_lib.release.reference import save_reference; save_reference(*sys.argv[1:])' \
      "$OUT/runs/$1" "$OUT/reference/$1" || tell "$1: could not be scrubbed"
  fi
}

# told SCENARIO: what it is told besides its file, a line each. Gates on energy and L2 need windows and profiles enough
# for an interval; a profile takes three quarters of a minute.
told() {
  case $1 in
    mamba | bert)
      echo device=cuda deploy.runtime=cuda_graph deploy.precision=fp32 measure.ladder=true \
        measure.energy_windows=3 measure.energy_window_s=5 measure.ncu_rounds=3 measure.ncu_budget_s=300
      ;;&
    mamba) echo measure.runtimes=[cuda_eager,cuda_eager_bf16,cuda_graph,cuda_graph_bf16] ;;
    bert)
      echo measure.runtimes=[cuda_eager,cuda_eager_bf16,cuda_compile,cuda_compile_bf16,cuda_graph,cuda_graph_bf16,cuda_tensorrt_fp16]
      ;;
    # Its sections kv and quantization are of the CPU; what is left is a decoder that is pruned, read with and generates.
    smollm2)
      echo device=cuda kv=null quantization=null codesign.strengths=[-0.2] \
        decode.clock=[[1,128],[8,256]] decode.rounds=1 decode.steps=8 decode.greedy=16 \
        gates.smoke.latency_rel=-0.1 gates.smoke.token_rel=null gates.strict.latency_rel=-0.2 gates.strict.token_rel=null
      ;;
    mock | trace) ;; # a table of rows is laid out for the processor's caches
    *) echo device=cuda ;;
  esac | tr ' ' '\n'
}

# Exit code 0 where a scenario can run here with these overrides; else the reason, in a line.
can_run() {
  "$PY" - "$@" <<'PYTHON' 2>&1 | tail -n 1
import contextlib
import importlib.util
import io
import sys

from icd_lib.data.fetch import main as fetch
from icd_lib.errors import IcdError
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.run.scenario import load_scenario

if missing := [name for name in ("papermill", "nbconvert", "ipykernel") if importlib.util.find_spec(name) is None]:
    sys.exit(f"the packages {', '.join(missing)} are not installed")
try:
    scenario = load_scenario(sys.argv[1], sys.argv[2:])
    resolve_checkpoint(
        scenario.get("model.checkpoint"), revision=scenario.get("model.revision"), family=scenario.get("model.family")
    )
except IcdError as error:
    sys.exit(error.args[0])
with contextlib.redirect_stdout(io.StringIO()):
    missing = fetch(["--check"])
if missing:
    sys.exit("its texts are not here: python -m icd_lib.data.fetch")
PYTHON
}

if ! "$PY" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    echo "gpu-check: there is an NVIDIA device, but the installed torch cannot use it; install a CUDA build of torch" >&2
    exit 3
  fi
  echo "gpu-check: no CUDA device on this machine; nothing was checked"
  exit 0
fi

mkdir -p "$OUT"
rm -rf "$OUT/reference" "$OUT"/{gpu.json,ncu.json,samples.json,power.csv,README.md,gpu-check.md}
: >"$ledger"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
tell "$("$PY" -c 'import torch; print(torch.cuda.get_device_name(0), "with CUDA", torch.version.cuda, "torch", torch.__version__)')"
step "tests/gpu" 0 "$PY" -m pytest -q -p no:cacheprovider -m "gpu and not slow" tests/gpu "$@"
step "benchmarks/gpu.py" 0 "$PY" benchmarks/gpu.py --out "$OUT" --minutes "$BENCHMARK_MINUTES"
set -- $SCENARIOS
for scenario in $SCENARIOS; do
  cap=$(share "$@")
  shift
  mapfile -t overrides < <(told "$scenario")
  case $scenario in
    mock | trace) tell "$scenario: on the CPU, a table of rows is laid out for the processor's caches" ;;
    smollm2) tell "$scenario: without its sections kv and quantization, which are of the CPU" ;;
  esac
  if ! why=$(can_run "$scenario" "${overrides[@]}"); then
    tell "$scenario: skipped, $why"
    continue
  fi
  words=()
  for override in "${overrides[@]}"; do words+=(--override "$override"); done
  rm -rf "${OUT:?}/runs/$scenario" # one of an earlier check must not be kept as this one's
  running=$scenario
  # shellcheck disable=SC2086
  step "$scenario" 1 "$PY" run_all.py --scenario "$scenario" "${words[@]}" --out "$OUT/runs" --force $RUN_ARGS
  keep_scrubbed "$scenario"
done
exit "$failed"
