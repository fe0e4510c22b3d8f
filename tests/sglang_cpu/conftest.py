"""One server for many tests: it takes longer to start than to answer.

These tests run where SGLang is installed (`make test-sglang`); elsewhere they are skipped.
"""

import concurrent.futures
import importlib.util
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import httpx
import pytest
import torch

from pipo_core.chat import load_tokenizer
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Request, Slot, open_engine
from pipo_core.engine.sglang_server import SGLangServer
from pipo_core.engine.torch_opening import student_engine
from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding
from tests.features import TOOL_TEMPLATE

if importlib.util.find_spec("sglang") is None:
    collect_ignore_glob = ["test_*.py"]

CPU_FLAGS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--dtype", "float32", "--disable-cuda-graph", "--skip-server-warmup", "--log-level", "info"),
    *("--context-length", "2048", "--max-running-requests", "16", "--sleep-on-idle"),
)
# The states of the convolutions would be bf16 whatever --dtype says, and answers would differ by rounding.
CPU_VARIABLES = {"SGLANG_MAMBA_CONV_DTYPE": "float32", "OMP_NUM_THREADS": "1"}
# Now and then some of the running requests lose their memory, as if it had run out, and start again.
RETRACTING = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "23"}
# States are kept every 64 slots, steps overlap, prompts are read in pieces, and the cache must drop entries.
HARD_FLAGS = (
    *("--mamba-radix-cache-strategy", "extra_buffer", "--max-mamba-cache-size", "64"),
    *("--chunked-prefill-size", "64", "--max-total-tokens", "512"),
    *("--enable-metrics", "--reasoning-parser", "qwen3", "--tool-call-parser", "qwen3_coder"),
    "--constrained-json-disable-any-whitespace",  # a model that means nothing would write nothing else
)

Body = dict[str, Any]
Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Client:
    """Talks to a server."""

    url: str

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=300)

    def generate(self, ids: Sequence[int], tau: float | None = None, **changes: Any) -> Body:
        """Return the answer to a greedy request; ``changes`` are sampling parameters."""
        more = {name: changes.pop(name) for name in list(changes) if name in TOP_LEVEL}
        parameters = changes.pop("custom_params", {}) | ({} if tau is None else {"tau": tau})
        sampling = {"temperature": 0, "max_new_tokens": 60, "custom_params": parameters, **changes}
        response = self.post("/generate", {"input_ids": list(ids), "sampling_params": sampling, **more})
        assert response.status_code == 200, response.text
        answer: Body = response.json()
        return {**answer, "prompt": list(ids)}

    def generate_all(self, prompts: Sequence[Sequence[int]], tau: float | None = None, **changes: Any) -> list[Body]:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            return list(pool.map(lambda ids: self.generate(ids, tau, **changes), prompts))

    def refusal(self, path: str, body: Mapping[str, Any]) -> str:
        response = self.post(path, body)
        assert response.status_code == 400, (response.status_code, response.text)
        return response.text


TOP_LEVEL = ("return_logprob", "top_logprobs_num", "rid", "stream")


@dataclass(frozen=True)
class Reference:
    """The torch engine on the same checkpoint."""

    ckpt: Path

    def answers(
        self, prompts: Sequence[Sequence[int]], tau: float, *, max_tokens: int = 60, **changes: Any
    ) -> list[Completion]:
        settings = TorchSettings(batch=16, device="cpu", precision="fp32", threads=1)
        engine = open_engine(self.ckpt, Decoding("pipo", tau), settings)
        names = {"ignore_end", "stop", "stop_ids"} & changes.keys()
        request = {name: changes.pop(name) for name in names}
        sampling = SamplingParams(temperature=0, **changes)
        asked = [
            Request(str(number), tuple(ids), sampling, max_tokens=max_tokens, record=True, **request)
            for number, ids in enumerate(prompts)
        ]
        found = {completion.id: completion for completion in engine.generate(asked)}
        engine.close()
        return [found[str(number)] for number in range(len(prompts))]

    def sampled_slots(self, prompt: Sequence[int], count: int, **sampling: Any) -> "Counter[tuple[int, ...]]":
        """Return how often each slot is the first one, every draft kept, over as many seeds."""
        settings = TorchSettings(batch=64, device="cpu", precision="fp32", threads=1)
        engine = open_engine(self.ckpt, Decoding("pipo", 0.0), settings)
        asked = [
            Request(str(seed), tuple(prompt), SamplingParams(**sampling, seed=seed), max_tokens=2, ignore_end=True)
            for seed in range(count)
        ]
        found = Counter(tuple(one.token_ids) for one in engine.generate(asked))
        engine.close()
        return found

    def records(
        self, prompts: Sequence[Sequence[int]], tau: float, max_tokens: int
    ) -> list[tuple[list[Slot], list[float]]]:
        """Return the slots of each answer, with the drafts that were rejected, and the confidence of each draft."""
        model, tokenizer = load_checkpoint(self.ckpt, dtype=torch.float32), load_tokenizer(self.ckpt)
        engine = student_engine(model, tokenizer, tau=tau, batch=16, max_length=1024)
        asked = [
            Request(str(number), tuple(ids), SamplingParams(temperature=0), max_tokens, ignore_end=True, record=True)
            for number, ids in enumerate(prompts)
        ]
        confidences: dict[str, list[float]] = {request.id: [] for request in asked}
        slots: dict[str, list[Slot]] = {}
        for delta in engine.stream(asked):
            confidences[delta.id] += [one.confidence for one in delta.tokens if one.confidence is not None]
            if delta.completion is not None:
                slots[delta.id] = delta.completion.record or []
        return [(slots[request.id], confidences[request.id]) for request in asked]


def assert_equal(answers: Sequence[Body], completions: Sequence[Completion], ends: frozenset[int]) -> None:
    """Every answer has the tokens, the slots and the kept drafts of the torch engine's."""
    for number, (answer, completion) in enumerate(zip(answers, completions, strict=True)):
        ids, meta = answer["output_ids"], answer["meta_info"]
        written = ids[:-1] if meta["finish_reason"]["type"] == "stop" and ids[-1] in ends else ids
        assert written == completion.token_ids, number
        report = meta["pipo"][0]
        assert (report["slots"], report["kept"]) == (completion.slots, completion.kept), number
        assert meta["completion_tokens"] == len(ids) == completion.tokens, number


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pair model whose texts vary and whose gate keeps some drafts: trained weights, random new parts."""
    source = bundled_model("tiny-student")
    torch.manual_seed(3)
    model = load_checkpoint(source, dtype=torch.float32)
    with torch.no_grad():
        model.confidence_head.fc2.weight.mul_(10)
        for parameter in model.compressor.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("sglang") / "pairs"
    save_checkpoint(model, folder, layout="pipo", tokenizer_from=source)
    (folder / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def reference(ckpt: Path) -> Reference:
    return Reference(ckpt)


@pytest.fixture(scope="session")
def ends(ckpt: Path) -> frozenset[int]:
    from pipo_core.chat import end_ids

    return end_ids(load_tokenizer(ckpt), ckpt)


@pytest.fixture(scope="session")
def prompts(ckpt: Path) -> list[list[int]]:
    """Return prompts of odd and even lengths."""
    tokenizer, rng = load_tokenizer(ckpt), random.Random(0)
    found: list[list[int]] = []
    for number in itertools.count():
        numbers = [str(rng.randint(1, 99)) for _ in range(rng.randint(2, 6))]
        ids = tokenizer(f"What is {'+'.join(numbers)}?", add_special_tokens=False).input_ids
        found.append(list(ids[1:] if len(ids) % 2 != number % 2 else ids))
        if len(found) == 30:
            return found
    raise AssertionError


@pytest.fixture(scope="session")
def client(ckpt: Path) -> Iterator[Client]:
    """A server in which everything happens that can: see `HARD_FLAGS`."""
    with running(ckpt, Decoding("pipo", 0.5), *HARD_FLAGS, variables=RETRACTING) as url:
        yield Client(url)


@contextmanager
def running(
    ckpt: Path,
    decoding: Decoding,
    *flags: str,
    variables: Mapping[str, str] = MappingProxyType({}),
    echo: IO[str] | None = None,
) -> Iterator[str]:
    """Run a server in the block; its address is the value, and what it prints goes to ``echo``."""
    every = {**CPU_VARIABLES, **variables}
    server = SGLangServer(ckpt, decoding, name="model", flags=(*CPU_FLAGS, *flags), variables=every, echo=echo)
    try:
        server.wait(seconds=400)
        yield server.url
    finally:
        server.stop()
