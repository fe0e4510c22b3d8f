"""A conversation in the terminal: questions, answers that are printed while they are written, what went wrong."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from pipo_cli.transcript import Transcript, shows_colours
from pipo_core.errors import PipoError
from pipo_core.messages import split_thought
from pipo_core.text import one_line

if TYPE_CHECKING:
    from pipo_core.engine import Completion, Engine, Request

MAX_TOKENS = 4096
"""Longest answer of a checkpoint, if the user does not say; a server has a limit of its own."""


class Conversation:
    """Asks an engine one question after the other, each with what was said before.

    A question that gets no answer is forgotten, so that it can be asked again.

    Attributes:
        failed: whether a question has got no answer.
    """

    def __init__(
        self,
        engine: "Engine",
        *,
        by_server: bool,
        system: str | None,
        max_tokens: int | None,
        temperature: float,
        seed: int,
        show_drafts: bool,
    ) -> None:
        """Begin without a question.

        Args:
            engine: what answers.
            by_server: whether a server lays out the chat and takes thoughts out of answers.
            system: the system message; None for none.
            max_tokens: longest answer; None for `MAX_TOKENS`, or for the server's limit.
            temperature: of the sampling.
            seed: of the sampling.
            show_drafts: whether drafts are marked.
        """
        self.failed = False
        self._engine = engine
        self._by_server = by_server
        self._opening = [{"role": "system", "content": system}] if system else []
        self._messages = [*self._opening]
        self._turn = 0
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._seed = seed
        self._show_drafts = show_drafts

    def reset(self) -> None:
        """Forget what was said."""
        self._messages = [*self._opening]

    def answer(self, question: str) -> None:
        """Print the answer to a question while it is written; Ctrl-C ends it, and what was written counts."""
        self._turn += 1
        self._messages.append({"role": "user", "content": question})
        try:
            text = self._print_answer(self._request())
        except PipoError as error:
            self.failed, text = True, ""
            typer.echo(f"the answer failed: {one_line(error.message)}", err=True)
        if not text:
            self._messages.pop()
            return
        self._messages.append({"role": "assistant", "content": _without_thought(text) if self._by_server else text})

    def _request(self) -> "Request":
        from pipo_core.chat import encode_prompt
        from pipo_core.decode.sampling import SamplingParams
        from pipo_core.engine import Request, request_seed

        engine, name = self._engine, f"turn-{self._turn}"
        sampling = SamplingParams(
            temperature=self._temperature, top_p=0.95, top_k=20, seed=request_seed(self._seed, self._turn)
        )
        if self._by_server:
            budget = self._max_tokens or engine.max_length
            return Request(name, sampling=sampling, max_tokens=budget, messages=tuple(self._messages), once=True)
        ids = encode_prompt(engine.tokenizer, self._messages)
        budget = max(1, min(self._max_tokens or MAX_TOKENS, engine.max_length - len(ids)))
        return Request(name, tuple(ids), sampling, max_tokens=budget)

    def _print_answer(self, request: "Request") -> str:
        """Print an answer and return what was written of it.

        Raises:
            PipoError: if the request fails.
        """
        engine, completion, text = self._engine, None, ""
        transcript = Transcript(
            engine.tokenizer if self._show_drafts else None,
            colours=shows_colours(),
            drafts=self._show_drafts,
            opened=not self._by_server,
        )
        # A server may be silent for long, so its request is ended at once; the torch engine must not be interrupted
        # within a step.
        with _stop_on_interrupt(lambda: engine.cancel(request.id), at_once=self._by_server) as check:
            for delta in engine.stream([request]):
                typer.echo(transcript.add(delta), nl=False, color=shows_colours())
                sys.stdout.flush()
                text += delta.text
                completion = delta.completion
                check()
        typer.echo(transcript.finish(), color=shows_colours())
        if completion is None:
            raise PipoError("the engine ended without one")
        if completion.finish_reason == "error":
            raise PipoError(completion.error or "the engine does not say why")
        typer.echo(f"[{_summary(completion)}]", err=True)
        return text


def _without_thought(text: str) -> str:
    """Return an answer as a server is told of it later: templates leave earlier thoughts out, some servers do not."""
    thought, answer = split_thought({"content": text})
    return "" if thought is None else answer


def _summary(completion: "Completion") -> str:
    """Return how an answer ended, and its counts as far as the engine tells them."""
    if completion.finish_reason == "cancelled" and not completion.tokens:
        return "cancelled"
    kept = f", {completion.kept} of {completion.drafts} drafts kept" if completion.drafts else ""
    steps = "" if completion.slots is None else f" in {completion.slots} steps"
    return f"{completion.finish_reason}: {completion.tokens} tokens{steps}{kept}, {completion.time_s:.2f} s"


@contextmanager
def _stop_on_interrupt(stop: Callable[[], None], *, at_once: bool) -> Iterator[Callable[[], None]]:
    """Yield a function that calls `stop` if Ctrl-C has been pressed.

    The first Ctrl-C raises nothing. A second one raises KeyboardInterrupt.

    Args:
        stop: ends the answer.
        at_once: whether Ctrl-C itself calls it, too.
    """
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        if at_once:
            stop()

    def check() -> None:
        if pressed:
            stop()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
