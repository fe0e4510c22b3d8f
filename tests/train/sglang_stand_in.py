"""Stands in for SGLang's server in distillations: it loads weights and answers by the torch engine."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipo_core.chat import load_tokenizer
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request
from pipo_core.engine.torch_opening import student_engine
from pipo_core.model import load_checkpoint
from tests.engine.scripted_server import Answer, ScriptedServer

_SAMPLING = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty")
_BEHIND_THE_END = 3
"""The draft behind an end token: SGLang's server records one, which is none of the text's."""


class StandIn(ScriptedServer):
    """Answers ``/update_weights_from_disk`` and ``/generate`` in SGLang's form.

    Attributes:
        loads: of weights so far.
        answered: requests so far, of both kinds.
        dies_after: how many of them it answers; None for all.
    """

    def __init__(self, ckpt: Path) -> None:
        super().__init__(post=self._answer, get={"/model_info": (200, {"model_path": str(ckpt)})})
        self.loads = 0
        self.answered = 0
        self.dies_after: int | None = None
        self._tokenizer = load_tokenizer(ckpt)
        self._model = load_checkpoint(ckpt)
        self._version = "default"
        self._lock = threading.Lock()

    def _answer(self, path: str, body: Mapping[str, Any]) -> Answer:
        with self._lock:
            if self.answered == self.dies_after:
                return None
            self.answered += 1
            if path == "/update_weights_from_disk":
                assert body["flush_cache"]
                self._model, self._version = load_checkpoint(body["model_path"]), body["weight_version"]
                self.loads += 1
                return 200, {"success": True}
            return 200, self._generated(body)

    def _generated(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked, own = body["sampling_params"], body["sampling_params"]["custom_params"]
        sampling = {name: asked[name] for name in _SAMPLING} | {"top_k": max(asked["top_k"], 0)}
        engine = student_engine(self._model, self._tokenizer, tau=own["tau"], batch=1, max_length=500)
        request = Request(
            "r",
            tuple(body["input_ids"]),
            SamplingParams(**sampling),
            max_slots=own["max_slots"],
            stop_ids=frozenset(asked["stop_token_ids"]),
            record=own["record_drafts"],
        )
        [answer] = engine.generate([request])
        record = answer.record or []
        report = {
            "slot_token_counts": [1 + slot.kept for slot in record],
            "drafts": [[_BEHIND_THE_END if slot.draft is None else slot.draft, 0.5] for slot in record],
        }
        written = [[slot.first, slot.draft] if slot.kept else [slot.first] for slot in record]
        return {
            "text": answer.text,
            "output_ids": [token for slot in written for token in slot],
            "meta_info": {
                "finish_reason": {"type": answer.finish_reason},
                "prompt_tokens": answer.prompt_tokens,
                "weight_version": self._version,
                "pipo": [report],
            },
        }
