#!/bin/sh
# The checks of docs/gpu-checks.md that a bare machine with one GPU can run, in one call; what they print goes to a folder.
#
#   sh tools/gpu/run_all.sh results
#
# Each check has a time of its own, so that one which hangs does not keep the others from running. Needs PyTorch,
# transformers and pytest; for the engine and the benches also pydantic, typer, rich, pyyaml and matplotlib.
set -u
out=${1:?a folder for the results}
mkdir -p "$out"
nvidia-smi > "$out/gpu.txt" 2>&1
python -m pip list > "$out/packages.txt" 2>&1

check() { # name, seconds, command …
    name=$1 seconds=$2
    shift 2
    timeout "$seconds" "$@" > "$out/$name.txt" 2>&1
    echo "$name: exit $?" | tee -a "$out/summary.txt"
}

check model 240 python -m pytest tests/gpu/test_model.py tests/gpu/test_sft.py -m gpu -rA
check graphs 240 python -m pytest tests/gpu/test_graphs.py -m gpu -rA
check step-8k 180 python -m tools.gpu.sft_step --shape qwen3.5-0.8b --tokens 8192 --out "$out/step-8k.json"
check latency 540 python -m pipo_cli.main bench recipes/bench/latency.yaml 'prompt_tokens=[2048, 8192]' trials=8 --out "$out/bench"
check latency-plain 300 python -m pipo_cli.main bench recipes/bench/latency.yaml 'prompt_tokens=[2048]' trials=8 \
    engine.compile=false run=latency-plain --out "$out/bench"
check users 420 python -m pipo_cli.main bench recipes/bench/users.yaml random_weights=qwen3.5-4b engine.precision=bf16 \
    engine.threads=null equal_memory=null users.trials=1 users.new_tokens=24 'users.context=[8192, 32768]' \
    'users.requests=[32, 64]' 'arms=[{name: regular, method: regular}, {name: eagle-3, method: eagle, drafts: 3,
    acceptance: [0.697]}, {name: pipo, method: pipo, acceptance: [0.87, 1.0]}]' --out "$out/bench"
check training 300 python -m pipo_cli.main bench recipes/bench/training.yaml 'training_tokens=[2048, 8192]' --out "$out/bench"
