"""Pair model against uncompressed model, both on SGLang, in one run: tokens and steps a second by concurrency.

    python -m tools.benchmarks.sglang_serving --out results.json --concurrency 1 8 -- --device cpu …

What stands behind `--` are options of SGLang's servers, which also see this process's `PIPO_PAIR_GRAPH`. Arms take
turns, so that a machine which slows down slows all of them. Answers are greedy and of a fixed length, to different
prompts. Before anything is timed, the pair model's are compared with the torch engine's.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipo_core.chat import load_tokenizer
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request, open_engine
from pipo_core.engine.dialects import SGLangDialect
from pipo_core.engine.remote import RemoteEngine
from pipo_core.engine.sglang_server import SGLangServer
from pipo_core.files import write_json
from pipo_core.machine import machine, versions
from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.model.shapes import random_shape_model
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding
from pipo_core.sglang.served import wants_pair_graph

TINY = "tiny"
ARMS = {
    "regular": Decoding("regular"),
    "pipo, every draft kept": Decoding("pipo", 0.0),
    "pipo, no draft kept": Decoding("pipo", 1.0),
}


@dataclass(frozen=True)
class Given:
    """The options of a run."""

    shape: str
    concurrency: Sequence[int]
    prompt_tokens: int
    new_tokens: int
    trials: int
    repeated: int
    dtype: torch.dtype
    flags: Sequence[str]


def main() -> None:
    """Measure, write the figures and print them."""
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", default=TINY, help="tiny, or a published shape with random weights")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--repeated", type=int, default=0, help="tokens of a prompt that is sent twice")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    named = vars(parser.parse_args(words[:split]))
    out, dtype = named.pop("out"), getattr(torch, named.pop("dtype"))
    results = measure(Given(**named, dtype=dtype, flags=words[split + 1 :]))
    write_json(out, results)
    for row in results["rows"]:
        sys.stdout.write(f"{row}\n")
    sys.stdout.write(f"{results['parity']} {results['repeated_prompt']}\n")


def measure(given: Given) -> dict[str, Any]:
    """Return the figures of all arms."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pairs, plain = _checkpoints(given, folder)
        engines = {
            name: _engine(stack, pairs if decoding.spec.reads_pairs else plain, decoding, given)
            for name, decoding in ARMS.items()
        }
        tokenizer_size = min(400, len(load_tokenizer(pairs)))
        parity = _parity(engines["pipo, every draft kept"], pairs, given, tokenizer_size)
        rows = []
        for number in given.concurrency:
            trials: dict[str, list[tuple[float, int, int]]] = {name: [] for name in engines}
            for trial in range(given.trials + 1):
                for name, engine in engines.items():
                    found = _timed(engine, _requests(given, number, seed=trial, vocabulary=tokenizer_size))
                    trials[name] += [found] if trial else []  # the first one warms up
            rows += [_row(name, number, timed) for name, timed in trials.items()]
        repeated = {name: _repeated(engine, given, tokenizer_size) for name, engine in engines.items()}
    return {
        "machine": machine(),
        "versions": {**versions(), "sglang": "0.5.23"},
        "settings": {
            **vars(given),
            "dtype": str(given.dtype),
            "flags": list(given.flags),
            "pair_graph": wants_pair_graph(),
        },
        "parity": parity,
        "rows": rows,
        "repeated_prompt": repeated if given.repeated else None,
    }


def _checkpoints(given: Given, folder: Path) -> tuple[Path, Path]:
    """Write a pair model and return its folder and that of the uncompressed one."""
    tokenizer = bundled_model("tiny-student")
    torch.manual_seed(0)
    if given.shape == TINY:
        model = load_checkpoint(tokenizer, dtype=torch.float32)
        return save_checkpoint(model, folder / "pairs", layout="pipo", tokenizer_from=tokenizer), tokenizer
    model = random_shape_model(given.shape, dtype=given.dtype, device=torch.device("cpu"))
    pairs = save_checkpoint(model, folder / "pairs", layout="pipo", tokenizer_from=tokenizer)
    return pairs, save_checkpoint(model, folder / "plain", layout="base", tokenizer_from=tokenizer)


def _engine(stack: ExitStack, ckpt: Path, decoding: Decoding, given: Given) -> RemoteEngine:
    server = SGLangServer(ckpt, decoding, flags=given.flags)
    stack.callback(server.stop)
    server.wait()
    tokenizer = load_tokenizer(ckpt)
    dialect = SGLangDialect(tokenizer, decoding, frozenset({int(tokenizer.eos_token_id)}))
    return RemoteEngine(
        dialect, [server.url], tokenizer=tokenizer, max_length=10**6, concurrency=max(given.concurrency)
    )


def _requests(given: Given, number: int, *, seed: int, vocabulary: int) -> list[Request]:
    rng = random.Random(seed)
    return [
        Request(
            f"{seed}-{number}-{index}",
            tuple(rng.randrange(3, vocabulary) for _ in range(given.prompt_tokens)),
            SamplingParams(temperature=0),
            max_tokens=given.new_tokens,
            ignore_end=True,
        )
        for index in range(number)
    ]


def _timed(engine: RemoteEngine, requests: Sequence[Request]) -> tuple[float, int, int]:
    """Return the seconds of requests that are sent at once, and their tokens and slots."""
    began = time.perf_counter()
    found = list(engine.generate(requests))
    seconds = time.perf_counter() - began
    if any(one.error for one in found):
        raise SystemExit(f"a request failed: {next(one.error for one in found if one.error)}")
    return seconds, sum(one.tokens for one in found), sum(one.slots or 0 for one in found)


def _row(name: str, concurrency: int, trials: Sequence[tuple[float, int, int]]) -> dict[str, Any]:
    return {
        "arm": name,
        "concurrency": concurrency,
        "tokens_per_second": statistics.median(tokens / seconds for seconds, tokens, _ in trials),
        "slots_per_second": statistics.median(slots / seconds for seconds, _, slots in trials),
        "seconds": [round(seconds, 4) for seconds, _, _ in trials],
    }


def _parity(engine: RemoteEngine, ckpt: Path, given: Given, vocabulary: int) -> dict[str, int]:
    """Return how many greedy answers are the torch engine's, token for token."""
    same = _requests(given, 16, seed=99, vocabulary=vocabulary)
    # They end one after another, so that steps of every smaller batch size are compared, too.
    requests = [replace(one, max_tokens=max(1, given.new_tokens - 2 * number)) for number, one in enumerate(same)]
    settings = TorchSettings(batch=16, precision="fp32" if given.dtype == torch.float32 else "bf16")
    here = open_engine(ckpt, Decoding("pipo", 0.0), settings)
    expected = {one.id: one.token_ids for one in here.generate(requests)}
    here.close()
    equal = sum(one.token_ids == expected[one.id] for one in engine.generate(requests))
    return {"answers": len(requests), "equal": equal}


def _repeated(engine: RemoteEngine, given: Given, vocabulary: int) -> dict[str, float]:
    """Return the seconds to a first token of a prompt that nobody has sent, and of the same prompt again."""
    if not given.repeated:
        return {}
    rng = random.Random(7)
    prompt = tuple(rng.randrange(3, vocabulary) for _ in range(given.repeated))
    seconds = []
    for index in range(2):
        request = Request(f"again-{index}", prompt, SamplingParams(temperature=0), max_tokens=1)
        seconds.append(_timed(engine, [request])[0])
    return {"first": round(seconds[0], 4), "again": round(seconds[1], 4)}


if __name__ == "__main__":
    main()
