import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from pipo_core.data.problems import load_problems, user_message
from pipo_core.data.tiny.tokenizer import train_tokenizer
from pipo_core.engine import Completion, Request
from pipo_core.recipes.methods import Decoding
from pipo_core.reporting import SilentReporter
from tests.canned_engine import CannedEngine


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


@cache
def answers() -> dict[str, str]:
    """The reference answer of every prompt in the tests of this folder."""
    sets = [load_problems("tiny", "heldout", count, seed) for count, seed in ((30, 1), (30, 2), (200, 0))]
    return {user_message(problem): str(problem.answer) for problems in sets for problem in problems}


@dataclass
class FakeEngine(CannedEngine):
    """Answers with a given skill. As with real engines, seed and method decide the answer, and limits only cut it."""

    method: str
    skill: float
    stop_after: int | None = None
    lose: int = 0
    seen: list[Request] = field(default_factory=list)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        asked = list(requests)
        self.seen += asked
        order = asked[self.lose :]
        random.Random(len(asked)).shuffle(order)
        for number, request in enumerate(order):
            if number == self.stop_after:
                raise KeyboardInterrupt
            yield self.answer(request)

    def answer(self, request: Request) -> Completion:
        rng = random.Random(f"{request.sampling.seed}-{self.method}")
        max_step_tokens = 2 if self.method == "pipo" else 1
        planned = [rng.randint(1, max_step_tokens) for _ in range(rng.randint(3, 30))]
        right = rng.random() < self.skill
        counts: list[int] = []
        for count in planned:
            room = (request.max_tokens or 10**9) - sum(counts)
            if room <= 0 or len(counts) == (request.max_slots or 10**9):
                break
            counts.append(min(count, room))
        ended = counts == planned
        answer = int(answers()[request.messages[0]["content"]])
        box = f"\\boxed{{{answer if right else answer + 1}}}"  # boxed early, so that a cut answer contains it, too
        return Completion(
            id=request.id,
            token_ids=[1] * (sum(counts) - ended),
            text=f"{box} and so on",
            tokens=sum(counts),
            slots=len(counts),
            drafts=len(counts) * (max_step_tokens - 1),
            kept=sum(count == 2 for count in counts),
            finish_reason="stop" if ended else "length",
            ttft_s=0.01,
            time_s=0.01 * len(counts),
            slot_token_counts=counts,
        )


@dataclass
class Opener:
    """Stands for `open_engine` and remembers what was opened."""

    skills: dict[str, float] = field(default_factory=dict)
    stop_after: int | None = None
    lose: int = 0
    engines: list[FakeEngine] = field(default_factory=list)
    opened: list[Decoding] = field(default_factory=list)

    def __call__(self, ckpt: Path, decoding: Decoding, settings: object) -> FakeEngine:
        engine = FakeEngine(decoding.method, self.skills.get(ckpt.name, 0.7), self.stop_after, self.lose)
        self.engines.append(engine)
        self.opened.append(decoding)
        return engine

    @property
    def asked(self) -> list[str]:
        return [request.id for engine in self.engines for request in engine.seen]


class Listener(SilentReporter):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, msg: str) -> None:
        self.warnings.append(msg)


@pytest.fixture
def opener() -> type[Opener]:
    return Opener


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], str]:
    """Return a maker of checkpoint stand-ins: folders with a tokenizer and something to fingerprint."""

    def make(name: str) -> str:
        folder = tmp_path / "models" / name
        tokenizer().save_pretrained(folder)
        (folder / "weights").write_text(name)
        return str(folder)

    return make
