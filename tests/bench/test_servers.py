"""`pipo bench` on servers: what they are asked, what their answers count as, and what ends a bench."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipo_core.bench.runner import run_bench
from pipo_core.bench.table import bench_tables
from pipo_core.chat import load_tokenizer
from pipo_core.engine import Engine
from pipo_core.engine.opening import Engines
from pipo_core.errors import MachineError, PipoError, UsageError
from pipo_core.files import read_json
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.locate import bundled_model
from tests.engine.scripted_server import Answer, ScriptedServer, scripted

CKPT = bundled_model("tiny-student")
MODELS: Answer = (200, {"data": [{"id": "m"}]})
TORCH = {"device": "cpu", "precision": "fp32", "threads": 1}


def openai(_: str, body: Mapping[str, Any], **usage: int) -> Answer:
    """Stream as many texts as tokens are asked for, as a server of OpenAI's interface."""
    pieces = [{"choices": [{"text": "x", "finish_reason": None}]} for _ in range(body["max_tokens"])]
    counts = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"], **usage}
    return 200, [*pieces, {"choices": [{"text": "", "finish_reason": "length"}]}, {"usage": counts}, "[DONE]"]


def sglang(_: str, body: Mapping[str, Any]) -> Answer:
    """Stream slots of two tokens and of one in turn, as a pair model on SGLang."""
    asked = body["sampling_params"]["max_new_tokens"]
    counts: list[int] = []
    while sum(counts) < asked:
        counts.append(min(2 - len(counts) % 2, asked - sum(counts)))

    def step(slots: int) -> dict[str, Any]:
        done = sum(counts[:slots])
        reason = {"type": "length"} if slots == len(counts) else None
        pairs = [{"slots": slots, "slot_token_counts": counts[:slots], "kept": done - slots}]
        meta = {"prompt_tokens": len(body["input_ids"]), "finish_reason": reason, "pipo": pairs}
        return {"text": "y" * done, "output_ids": [5] * done, "meta_info": meta}

    return 200, [*(step(slots + 1) for slots in range(len(counts))), "[DONE]"]


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serving(servers: ExitStack, post: Any = openai, get: Mapping[str, Answer] | None = None) -> ScriptedServer:
    return servers.enter_context(scripted(ScriptedServer(post=post, get=get or {"/v1/models": MODELS})))


def arm(name: str, server: ScriptedServer | None, method: str = "regular", **changes: Any) -> dict[str, Any]:
    engine = {} if server is None else {"engine": {"kind": "remote", "urls": [server.url], **changes}}
    return {"name": name, "method": method, "ckpt": str(CKPT), **engine}


def recipe(*arms: dict[str, Any], **changes: Any) -> BenchRecipe:
    small = {"prompt_tokens": [9, 40], "new_tokens": 5, "trials": 2, "warmup": 1, "engine": TORCH}
    many = {"concurrency": [1, 3], "concurrent_prompt_tokens": 12, "concurrent_new_tokens": 7, "concurrent_trials": 1}
    return BenchRecipe.model_validate({"arms": list(arms), **small, **many, **changes})


def test_prompts_and_answers_have_the_lengths_that_are_asked_for(servers: ExitStack, tmp_path: Path) -> None:
    server = serving(servers)
    results = run_bench(recipe(arm("a", server), arm("b", server)), tmp_path)
    bodies = [body for path, body in server.asked if path == "/v1/completions"]
    # Two arms; three rounds at each of two lengths; two rounds of one and of three requests together.
    assert len(server.asked) == len(bodies) == 2 * (3 * 2 + 2 * (1 + 3))
    lengths = sorted((len(body["prompt"]), body["max_tokens"]) for body in bodies)
    assert lengths == sorted([(9, 5)] * 6 + [(40, 5)] * 6 + [(12, 7)] * 16)
    assert all(body["ignore_eos"] and body["stream"] for body in bodies)
    tokenizer = load_tokenizer(CKPT)
    special = set(tokenizer.all_special_ids)
    assert tokenizer.pad_token_id in special
    assert not special & {token for body in bodies for token in body["prompt"]}
    raw = read_json(tmp_path / "results.json")
    assert {trial["tokens"] for trial in raw["raw"]} == {5}
    assert {(trial["requests"], trial["tokens"]) for trial in raw["raw_throughput"]} == {(1, 7), (3, 21)}
    for row in [*results["lengths"], *results["throughput"]]:
        assert [one["engine"] for one in row["arms"]] == [server.url.removeprefix("http://")] * 2
    assert results["machine"]["device"] == "servers"


def test_no_prompt_begins_like_another_not_even_of_an_earlier_bench(servers: ExitStack, tmp_path: Path) -> None:
    """A server that keeps what it has read would answer the second one sooner."""
    server = serving(servers)
    for _ in range(2):
        run_bench(recipe(arm("a", server), arm("b", server)), tmp_path)
    begins = [tuple(body["prompt"][:9]) for _, body in server.asked]
    assert len(begins) == len(set(begins)) == 56


def test_what_a_server_does_not_tell_is_left_out(servers: ExitStack, tmp_path: Path) -> None:
    results = run_bench(recipe(arm("a", serving(servers))), tmp_path)
    [figures] = results["lengths"][0]["arms"]
    assert (figures["tokens_per_slot"], figures["drafts_kept"], figures["of_limit"]) == (None, None, None)
    assert results["limits_of"] is None
    tables = bench_tables(results)
    assert [table.columns for table in tables] == [
        ["prompt tokens", "arm", "engine", "TTFT ms", "TPOT ms"],
        ["requests", "arm", "engine", "tokens/s", "TTFT ms", "TPOT ms", "latency ms"],
    ]
    raw = read_json(tmp_path / "results.json")
    assert {trial["slot_token_counts"] for trial in raw["raw"]} == {None}
    assert {trial["slots"] for trial in raw["raw_throughput"]} == {None}
    for trial in raw["raw"]:  # of five tokens one came first
        assert trial["tpot_s"] == pytest.approx((trial["time_s"] - trial["ttft_s"]) / 4)


def test_slots_and_kept_drafts_are_those_that_a_server_reports(servers: ExitStack, tmp_path: Path) -> None:
    server = serving(servers, sglang, {"/model_info": (200, {"model_path": "/m"})})
    arms = [arm("torch", None), {**arm("pairs", server, "pipo"), "tau": [0.5, 0.9]}]
    results = run_bench(recipe(*arms, baseline="torch"), tmp_path)
    torch, *pairs = results["lengths"][0]["arms"]
    assert (torch["engine"], torch["tokens_per_slot"]) == ("torch", 1.0)
    assert [one["label"] for one in pairs] == ["pairs@0.5", "pairs@0.9"]
    for one in pairs:
        assert one["tokens_per_slot"] == 5 / 3  # of five tokens: 2 1 2
        assert one["drafts_kept"] == 2 / 3
        assert one["speedup"]["tpot_s"]["median"] > 0
    assert {body["sampling_params"]["custom_params"]["tau"] for _, body in server.asked} == {0.5, 0.9}
    for trial in read_json(tmp_path / "results.json")["raw"]:
        first = trial["slot_token_counts"][0]
        assert first == (1 if trial["label"] == "torch" else 2)
        assert trial["tpot_s"] == pytest.approx((trial["time_s"] - trial["ttft_s"]) / (5 - first))
    times, steps, _ = bench_tables(results)
    assert {row[times.columns.index("engine")] for row in times.rows} == {"torch", server.url.removeprefix("http://")}
    kept = steps.columns.index("drafts kept %")
    assert [row[kept] for row in steps.rows] == ["–", "66.7", "66.7"] * 2
    assert " on cpu and servers; " in times.title


def test_the_claim_of_a_server_is_not_checked(servers: ExitStack, tmp_path: Path) -> None:
    server = serving(servers)
    results = run_bench(recipe(arm("a", server, "eagle"), concurrency=[]), tmp_path)
    assert bench_tables(results)[0].note == "a: not checked to be lossless, because a server answers for it."
    assert len(server.asked) == 6  # the trials


@pytest.mark.parametrize(
    ("post", "complaint"),
    [
        (lambda path, body: openai(path, body, completion_tokens=4), "4 tokens were written, and 5 were asked for"),
        (lambda path, body: openai(path, body, prompt_tokens=10), "10 tokens were read, and 9 were sent"),
        (lambda path, body: (200, (openai(path, body) or (0, []))[1][:3]), "the stream ended before the answer did"),
        (lambda path, body: (200, (openai(path, body) or (0, []))[1][-3:]), "arrived at once, so there are no TTFT"),
        (lambda _, __: (400, {"error": "no token ids"}), "no token ids"),
        (lambda _, __: (429, {"error": "busy"}), "status 429"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_ends_the_bench(
    servers: ExitStack, tmp_path: Path, post: Any, complaint: str
) -> None:
    server = serving(servers, post)
    with pytest.raises(PipoError, match=complaint):
        run_bench(recipe(arm("a", server)), tmp_path)
    assert len(server.asked) == 1
    assert not (tmp_path / "results.json").exists()


def test_a_server_that_dies_in_the_middle_ends_the_bench(servers: ExitStack, tmp_path: Path) -> None:
    tries = itertools.count()
    server = serving(servers, lambda path, body: openai(path, body) if next(tries) < 8 else None)
    with pytest.raises(PipoError, match="disconnected"):
        run_bench(recipe(arm("a", server)), tmp_path)
    assert len(server.asked) <= 8 + 3, "what failed is not asked again"
    assert not (tmp_path / "results.json").exists()


def test_servers_are_looked_for_before_anything_is_opened(servers: ExitStack, tmp_path: Path) -> None:
    def never(*_: Any) -> Engine:
        raise AssertionError

    nobody = ScriptedServer(url="http://127.0.0.1:9")
    with pytest.raises(MachineError, match=r"127\.0\.0\.1:9 cannot be reached"):
        run_bench(recipe(arm("torch", None), arm("a", nobody)), tmp_path, open_engine=never)
    locked = serving(servers, get={"/v1/models": (401, {})})
    with pytest.raises(UsageError, match="refuses the API key"):
        run_bench(recipe(arm("a", locked)), tmp_path, open_engine=never)


def test_engines_are_closed_if_a_later_one_cannot_be_opened(servers: ExitStack, tmp_path: Path) -> None:
    closed = []
    engines = Engines()

    def opening(source: Any, decoding: Any, settings: Any) -> Engine:
        if decoding.method == "pipo":
            raise MachineError("no place")
        engine = engines.open(source, decoding, settings)
        engine.close = lambda: closed.append(decoding.method)  # type: ignore[method-assign]
        return engine

    with pytest.raises(MachineError, match="no place"):
        run_bench(recipe(arm("a", serving(servers)), arm("b", None, "pipo")), tmp_path, open_engine=opening)
    assert closed == ["regular"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"training_tokens": [16]}, "only the torch engine measures training passes"),
        ({"random_weights": "qwen3.5-0.8b", "arms": [{"name": "a", "method": "pipo"}]}, "makes random weights"),
        ({"arms": [{"name": "a", "method": "pipo", "ckpt": "x/y", "acceptance": 0.5}]}, "has acceptance"),
        ({"arms": [{"name": "a", "method": "pipo", "ckpt": "x/y", "draft_vocab": 9}]}, "has draft_vocab"),
        ({"arms": [{"name": "a", "method": "eagle", "ckpt": "x/y", "drafts": 2}]}, "has drafts"),
    ],
)
def test_what_only_the_torch_engine_has_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    for engine in ({"kind": "sglang"}, {"kind": "remote", "urls": ["http://h:1"]}):
        with pytest.raises(ValueError, match=complaint):
            recipe(arm("a", None), **{**changes, "engine": engine})


def test_training_passes_need_an_arm_on_the_torch_engine() -> None:
    served = ScriptedServer(url="http://h:1")
    with pytest.raises(ValueError, match="there is none"):
        recipe(arm("a", served), training_tokens=[16])
    assert recipe(arm("a", served), arm("b", None), training_tokens=[16]).training_tokens == [16]
