"""What of the plugin needs no SGLang; the rest is in `tests/sglang_cpu`."""

from array import array
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.errors import UsageError
from pipo_core.model.weight_files import BASE_ARCHITECTURE, PIPO_ARCHITECTURE
from pipo_core.sglang import ARCHITECTURE, TEXT_ARCHITECTURE
from pipo_core.sglang import served as served_module
from pipo_core.sglang.asked import Asked, asked_by, asked_of
from pipo_core.sglang.pair_ids import PairIds
from pipo_core.sglang.served import default_tau, serve_pairs, served

VOCABULARY = 11
IDS = PairIds(VOCABULARY)
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12)


@given(TOKENS)
def test_a_prompt_is_packed_and_unpacked(tokens: list[int]) -> None:
    slots = IDS.pack(tokens)
    assert len(slots) == (len(tokens) + 1) // 2
    assert list(IDS.unpack(slots)) == tokens
    assert [IDS.count(slot) for slot in slots] == [2] * (len(tokens) // 2) + [1] * (len(tokens) % 2)


@given(TOKENS, TOKENS)
def test_cached_slots_are_equal_only_with_equal_next_first_tokens(one: list[int], other: list[int]) -> None:
    keys, others = IDS.radix_keys(IDS.pack(one)), IDS.radix_keys(IDS.pack(other))
    slots, firsts = IDS.pack(one), one[::2]
    for place, key in enumerate(keys):
        same = [*others].count(key)
        following = firsts[place + 1] if place + 1 < len(firsts) else None
        pairs = list(zip(IDS.pack(other), [*other[2::2], None], strict=False))
        assert same == pairs.count((slots[place], following))


def test_a_slot_of_a_token_is_that_token_and_a_kept_pad_is_no_gap() -> None:
    first, second = torch.tensor([3, 4, 5]), torch.tensor([7, 0, 9])
    slots = IDS.join(first, second, torch.tensor([False, True, True]))
    assert slots.tolist() == [3, 4 + VOCABULARY, 5 + VOCABULARY * 10]
    assert IDS.unpack(array("q", slots.tolist())).tolist() == [3, 4, 0, 5, 9]
    pad = 2
    found_first, found_second = IDS.split(slots, pad)
    assert found_first.tolist() == [3, 4, 5]
    assert found_second.tolist() == [pad, 0, 9]


def test_the_largest_vocabulary_fits_the_cache_s_keys() -> None:
    ids = PairIds(248_320)
    slots = ids.pack([248_319] * 4)
    assert ids.unpack(slots).tolist() == [248_319] * 4
    assert ids.radix_keys(slots)[0] == slots[0] * 248_321 + 248_320


@pytest.mark.parametrize(
    ("custom", "asked"),
    [
        (None, Asked()),
        ({}, Asked()),
        ({"tau": 0.5, "max_slots": 3, "record_slots": True, "other": 1}, Asked(0.5, 3, record_slots=True)),
        ({"tau": None, "record_drafts": True}, Asked(record_drafts=True)),
    ],
)
def test_what_a_request_asks(custom: Any, asked: Asked) -> None:
    assert asked_by(custom) == asked
    assert asked_of(SimpleNamespace(sampling_params=SimpleNamespace(custom_params=custom))) == asked


@pytest.mark.parametrize(
    "given",
    [
        3,
        [],
        {"tau": "x"},
        {"tau": float("nan")},
        {"tau": 10**400},
        {"tau": 1.1},
        {"max_slots": True},
        {"record_slots": 0},
    ],
)
def test_what_makes_no_sense_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="custom_params"):
        asked_by(given)


def test_what_is_served_is_known_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_module, "_served", None)
    assert served() is None
    monkeypatch.setenv("PIPO_TAU", "0.25")
    found = serve_pairs(SimpleNamespace(vocab_size=VOCABULARY, pad_token_id=4))
    assert (served(), found.tau, found.pad_id, found.ids) == (found, 0.25, 4, IDS)
    with pytest.raises(UsageError, match="names no pad_token_id"):
        serve_pairs(SimpleNamespace(vocab_size=VOCABULARY, pad_token_id=None))


@pytest.mark.parametrize("text", ["high", "nan", "inf", "1.5"])
def test_a_threshold_of_the_environment_is_a_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PIPO_TAU", text)
    with pytest.raises(UsageError, match="PIPO_TAU"):
        default_tau()
    monkeypatch.delenv("PIPO_TAU")
    assert default_tau() == 0.95


@pytest.mark.parametrize(("text", "wanted"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_whether_the_pair_phase_is_recorded(monkeypatch: pytest.MonkeyPatch, text: str | None, wanted: bool) -> None:
    monkeypatch.setattr(served_module, "_served", None)
    monkeypatch.delenv("PIPO_PAIR_GRAPH", raising=False)
    if text is not None:
        monkeypatch.setenv("PIPO_PAIR_GRAPH", text)
    assert serve_pairs(SimpleNamespace(vocab_size=VOCABULARY, pad_token_id=4)).pair_graph is wanted


@pytest.mark.parametrize("text", ["yes", "2", "true", " 1"])
def test_another_wish_is_refused_before_anything_is_served(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(served_module, "_served", None)
    monkeypatch.setenv("PIPO_PAIR_GRAPH", text)
    with pytest.raises(UsageError, match=r"PIPO_PAIR_GRAPH = .* is neither 0 nor 1"):
        serve_pairs(SimpleNamespace(vocab_size=VOCABULARY, pad_token_id=4))
    assert served() is None


def test_the_names_are_those_of_written_checkpoints() -> None:
    assert (ARCHITECTURE, TEXT_ARCHITECTURE) == (PIPO_ARCHITECTURE, BASE_ARCHITECTURE)
