#!/bin/sh
# The checks of docs/gpu-checks.md that need SGLang 0.5.23 beside a GPU, in one call; what they print goes to a folder.
#
#   sh tools/gpu/serving.sh results
#
# First equality with the torch engine on the tiny model, in fp32: with CUDA graphs, the pair phase replayed as well and
# not, then without any. Then speed in bf16; the 4B shape in both forms.
set -u
out=${1:?a folder for the results}
mkdir -p "$out"
nvidia-smi > "$out/gpu.txt" 2>&1
python -m pip list > "$out/packages.txt" 2>&1

check() { # name, seconds, whether the pair phase is replayed from a CUDA graph (0 or 1), words …
    name=$1 seconds=$2 pair_graph=$3
    shift 3
    PIPO_PAIR_GRAPH=$pair_graph timeout "$seconds" \
        python -m tools.benchmarks.sglang_serving --out "$out/$name.json" "$@" > "$out/$name.txt" 2>&1
    echo "$name: exit $?" | tee -a "$out/summary.txt"
}

check tiny-pair-graph 300 1 --trials 1 -- --dtype float32
check tiny-graphs 300 0 --trials 1 -- --dtype float32
check tiny-plain 300 0 --trials 1 -- --dtype float32 --disable-cuda-graph
for pair_graph in 1 0; do
    check "4b-pair-graph-$pair_graph" 900 "$pair_graph" --shape qwen3.5-4b --dtype bfloat16 --concurrency 1 8 32 64 \
        --prompt-tokens 2048 --new-tokens 512 --trials 3 --repeated 8192 -- --mem-fraction-static 0.28
done
check 0.8b 600 0 --shape qwen3.5-0.8b --dtype bfloat16 --concurrency 1 8 32 64 --prompt-tokens 2048 --new-tokens 512 \
    --trials 3 --repeated 8192 -- --mem-fraction-static 0.25
