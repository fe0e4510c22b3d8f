"""An engine whose answers are the seeds of their requests."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipo_core.engine import Completion, Request
from tests.canned_engine import CannedEngine


@dataclass
class FakeEngine(CannedEngine):
    """Answers the last request first, with its seed as the text, so that tests see equal seeds."""

    stop_after: int | None = None
    error: BaseException | None = None
    words: str = ""
    asked: list[Request] = field(default_factory=list)
    opened: list[tuple[Any, ...]] = field(default_factory=list)

    def open(self, *how: Any) -> "FakeEngine":
        self.opened.append(how)
        return self

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        batch = list(requests)
        self.asked += batch
        for number, request in enumerate(reversed(batch)):
            if number == self.stop_after:
                if self.error is None:
                    return
                raise self.error
            yield Completion(
                id=request.id,
                token_ids=[1, 2, 3],
                text=f"{request.sampling.seed}{self.words}",
                tokens=4,
                slots=3,
                drafts=0,
                kept=0,
                finish_reason="stop" if request.sampling.seed % 3 else "length",
                ttft_s=0.1,
                time_s=0.2,
                slot_token_counts=[1, 1, 1, 1],
            )
