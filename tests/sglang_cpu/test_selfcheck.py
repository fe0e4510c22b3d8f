"""An SGLang that the hooks were not made for is refused before it writes wrong text."""

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sglang")

from sglang.srt.plugins import load_plugins

from pipo_core.errors import MachineError
from pipo_core.sglang import selfcheck
from pipo_core.sglang.hooks import HOOKS

USUAL = SimpleNamespace(
    pp_size=1,
    enable_dp_attention=False,
    attn_dp_size=1,
    speculative_algorithm=None,
    disaggregation_mode="null",
    enable_lora=None,
    lora_paths=None,
    tokenizer_worker_num=1,
    enable_hierarchical_cache=False,
)


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    load_plugins()
    monkeypatch.setattr(selfcheck, "get_server_args", lambda: USUAL)


def refusal(hint: str = "pip install sglang==") -> str:
    with pytest.raises(MachineError) as caught:
        selfcheck.require_support()
    assert hint in (caught.value.hint or "")
    return caught.value.message


def test_this_sglang_is_the_tested_one() -> None:
    selfcheck.require_support()


def test_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "version", lambda _: "0.6.0")
    assert "it is version 0.6.0, and the tested one is" in refusal()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"target": "sglang.srt.managers.schedule_batch.Req.gone"}, "Req.gone is not there"),
        ({"target": "sglang.srt.no_module.function"}, "no_module.function is not there"),
        ({"target": "sglang.srt.managers.schedule_batch.Req.finished"}, "Req.finished is not patched"),
        ({"function": print}, "is not patched"),
        ({"parameters": ("self", "tokens")}, "in place of (self, tokens, …)"),
    ],
)
def test_a_function_that_is_not_as_expected(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], complaint: str
) -> None:
    monkeypatch.setattr(selfcheck, "HOOKS", (*HOOKS[1:], HOOKS[0]._replace(**change)))
    assert complaint in refusal()


@pytest.mark.parametrize(
    ("target", "expected", "complaint"),
    [
        (f"{selfcheck._FULL_GRAPHS}.gone", ("self",), "FullCudaGraphBackend.gone is not there"),
        (f"{selfcheck._FULL_GRAPHS}.replay", ("self", "size"), "in place of (self, size, …)"),
    ],
)
def test_a_called_function_that_is_not_as_expected(
    monkeypatch: pytest.MonkeyPatch, target: str, expected: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.setitem(selfcheck.CALLED, target, expected)
    assert complaint in refusal()


@pytest.mark.parametrize("option", selfcheck._UNSUPPORTED)
def test_options_that_do_not_go_with_pairs(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    values: dict[str, dict[str, Any]] = {
        "--pp-size": {"pp_size": 2},
        "--enable-dp-attention": {"enable_dp_attention": True},
        "--speculative-algorithm": {"speculative_algorithm": "NEXTN"},
        "--disaggregation-mode": {"disaggregation_mode": "prefill"},
        "--enable-lora": {"enable_lora": True},
        "--tokenizer-worker-num": {"tokenizer_worker_num": 2},
        "--enable-hierarchical-cache": {"enable_hierarchical_cache": True},
    }
    args = SimpleNamespace(**{**vars(USUAL), **values[option]})
    monkeypatch.setattr(selfcheck, "get_server_args", lambda: args)
    assert f"{option} does not go with pairs" in refusal("leave these options out")
