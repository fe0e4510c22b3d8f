"""What the engines of tests share whose completions the test makes up."""

from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerBase

from pipo_core.engine import Completion, Delta, Reports, Request


class CannedEngine:
    """An engine without a model: a subclass writes the completions in `generate`, and nothing else is asked of it."""

    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int] = frozenset({0})
    max_length: int = 1 << 20
    reports: Reports = Reports()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        raise NotImplementedError

    def stream(self, requests: Iterable[Request]) -> Iterator[Delta]:
        raise NotImplementedError

    def refusal(self, request: Request) -> str | None:
        return None

    def cancel(self, request_id: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass
