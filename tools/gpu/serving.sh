#!/bin/sh
# The checks of docs/gpu-checks.md that need SGLang 0.5.23 beside a GPU, in one call; what they print goes to a folder.
#
#   sh tools/gpu/serving.sh results
#
# First without and then with CUDA graphs, in fp32, for equality with the torch engine; then speed in bf16.
set -u
out=${1:?a folder for the results}
mkdir -p "$out"
nvidia-smi > "$out/gpu.txt" 2>&1
python -m pip list > "$out/packages.txt" 2>&1

check() { # name, seconds, words …
    name=$1 seconds=$2
    shift 2
    timeout "$seconds" python -m tools.benchmarks.sglang_serving --out "$out/$name.json" "$@" > "$out/$name.txt" 2>&1
    echo "$name: exit $?" | tee -a "$out/summary.txt"
}

check tiny-plain 300 --trials 1 -- --dtype float32 --disable-cuda-graph
check tiny-graphs 300 --trials 1 -- --dtype float32
check 0.8b 600 --shape qwen3.5-0.8b --dtype bfloat16 --concurrency 1 8 32 64 --prompt-tokens 2048 --new-tokens 512 \
    --trials 3 --repeated 8192 -- --mem-fraction-static 0.25
check 4b 900 --shape qwen3.5-4b --dtype bfloat16 --concurrency 1 8 32 64 --prompt-tokens 2048 --new-tokens 512 \
    --trials 3 --repeated 8192 -- --mem-fraction-static 0.28
