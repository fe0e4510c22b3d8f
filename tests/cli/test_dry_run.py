import json
from pathlib import Path

import pytest

from pipo_core.model.frequent_tokens import FrequentTokens, write_draft_vocab
from tests.cli.calls import ROW, Calls, pipo
from tests.tiny import make_model


def test_dry_run_shows_the_plan_even_without_the_model(calls: Calls) -> None:
    code, out, _ = pipo("train", "sft", "--dry-run")
    assert code == 3
    assert "cannot start" in out
    assert "learning_rate: 0.0001" in out
    assert "outputs/sft-4b/train" in out
    assert calls.recipes == []
    assert not Path("outputs").exists()


def test_dry_run_estimates_memory_though_the_model_is_not_there(calls: Calls) -> None:
    plan = json.loads(pipo("train", "sft", "--dry-run", "--json")[1])
    memory = plan["memory"]
    assert memory.pop("total") == sum(memory.values()) - memory["positions"]
    assert memory["positions"] == 40_960  # 65,535 tokens with a quarter of the pairs split
    text = pipo("train", "sft", "--dry-run")[1]
    assert "at rows of 65,535 tokens (weights 9.1," in text
    assert "flash-linear-attention" in text
    assert "at most 8,388,480" in text


def test_dry_run_counts_the_steps(calls: Calls) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text(ROW * 9)
    code, out, _ = pipo("train", "train.yaml", "--dry-run", "--json", "precision=fp32")
    plan = json.loads(out)
    assert code == 0
    assert plan["action"] == "start"
    command = plan["work"].pop("command")
    assert command.endswith(f" -m pipo_core.train.worker {Path('outputs/train/train/job.json').absolute()}")
    # The model folder holds no configuration, so there is no estimate of memory.
    tokens = f"at most {4 * plan['recipe']['data']['max_length']:,}"
    assert plan["work"] == {"rows a step": 4, "rows": 9, "steps": "at most 9", "tokens a step": tokens}
    assert plan["inputs"]["data.train"]["path"] == str(Path("rows.jsonl").absolute())
    plan = json.loads(pipo("train", "train.yaml", "--dry-run", "--json", "data.limit=4")[1])
    assert plan["work"]["steps"] == "at most 3"
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        ("{kind: remote, urls: ['http://127.0.0.1:9']}", "127.0.0.1:9 cannot be reached"),
        ("{kind: remote, urls: ['http://127.0.0.1:9'], api_key_env: NOT_SET}", "NOT_SET holds no API key"),
        ("{kind: sglang}", "SGLang is not installed"),
        ("{kind: sglang, flags: [--port, '9']}", "--port is given by pipo's own options"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "bench"])
def test_dry_run_says_that_an_engine_is_not_there(calls: Calls, command: str, engine: str, complaint: str) -> None:
    code, out, _ = pipo(command, "--ckpt", "tiny-student", "--dry-run", "--json", f"engine={engine}")
    plan = json.loads(out)
    assert (code, plan["action"]) == (plan["exit_code"], "cannot start")
    assert complaint in plan["reasons"][0]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["rollout.engine.kind=sglang"], "SGLang is not installed"),
        (["rollout.engine={kind: sglang, flags: [--host, x]}"], "--host is given by pipo's own options"),
        (["rollout.engine={kind: remote, urls: ['http://127.0.0.1:9']}"], "127.0.0.1:9 cannot be reached"),
        (["teacher_engine={kind: remote, urls: ['http://127.0.0.1:9']}"], "127.0.0.1:9 cannot be reached"),
    ],
)
def test_dry_run_says_that_the_rollouts_engine_is_not_there(calls: Calls, overrides: list[str], complaint: str) -> None:
    Path("rows.jsonl").write_text(ROW)
    Path("distill.yaml").write_text(
        "kind: distill\nmodel: tiny-student\nteacher: tiny-teacher\ndata: {train: rows.jsonl}\nmax_steps: 1\n"
    )
    code, out, _ = pipo("distill", "distill.yaml", "--dry-run", "--json", *overrides)
    plan = json.loads(out)
    assert (code, plan["action"]) == (plan["exit_code"], "cannot start")
    assert any(complaint in reason for reason in plan["reasons"])


@pytest.mark.parametrize("command", ["train", "distill"])
def test_dry_run_refuses_a_draft_vocabulary_that_the_model_cannot_have(
    calls: Calls, tmp_path: Path, command: str
) -> None:
    Path("rows.jsonl").write_text(ROW)
    model = make_model(tmp_path / "pair", layout="pipo")
    write_draft_vocab(model, FrequentTokens([1, 2, 3], [3, 2, 1]))
    of_kind = {
        "train": "data: {train: rows.jsonl}\n",
        "distill": f"teacher: {make_model(tmp_path / 'base')}\nrollout: {{slots: 4}}\n"
        "data: {train: rows.jsonl, max_prompt: 64}\n",
    }
    Path("own.yaml").write_text(f"kind: {command}\nmodel: {model}\n{of_kind[command]}max_steps: 1\nprecision: fp32\n")
    for size, complaint in ((1, "has no room for the 2 ids"), (300, "larger than the model's, which has 264 ids")):
        code, out, _ = pipo(command, "own.yaml", "--dry-run", "--json", f"draft_vocab={size}")
        plan = json.loads(out)
        assert (code, plan["action"]) == (2, "cannot start")
        assert f"a draft vocabulary of {size} " in plan["reasons"][0]
        assert complaint in plan["reasons"][0]
    assert pipo(command, "own.yaml", "--dry-run", "draft_vocab=9")[0] == 0


def test_dry_run_counts_as_the_training_does_not_by_another_formula(calls: Calls) -> None:
    Path("rows.jsonl").write_text(ROW * 10)
    words = ["batch.per_device=5", "epochs=1.5", "launch.processes=2", "batch.accumulation=1"]
    out = pipo("train", "train.yaml", "--dry-run", *words)[1]
    assert "at most 2" in out
    assert "torch.distributed.run" in out


def test_dry_run_says_what_the_machine_lacks(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text(ROW)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("pipo_core.train.plan.importlib.util.find_spec", lambda name: name == "swift" or None)
    code, out, _ = pipo("train", "train.yaml", "--dry-run", "--json", "launch.deepspeed=zero2")
    plan = json.loads(out)
    assert (code, plan["action"]) == (4, "cannot start")
    assert plan["reasons"] == ["launch.deepspeed needs DeepSpeed", "precision: bf16 needs a GPU, and there is none"]
    assert plan["next"] == 'in the checkout of pipo: pip install -c constraints.txt -e ".[deepspeed]"'
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    out = pipo("train", "train.yaml", "--dry-run", "--json", "launch.processes=4")[1]
    assert json.loads(out)["reasons"] == ["launch.processes: 4 need a GPU each, and there are 2"]


def test_dry_run_counts_the_trials_of_every_table(calls: Calls) -> None:
    arms = "arms=[{name: a, method: regular, ckpt: x/y}, {name: b, method: pipo, ckpt: x/y, acceptance: [0.5, 1]}]"
    tables = [
        "prompt_tokens=[8, 16]",
        "trials=4",
        "warmup=1",
        "concurrency=[1, 2]",
        "concurrent_trials=5",
        "users={context: [8, 9, 10], requests: [1, 2], trials: 2}",
        "equal_memory={gib: 1, context: [8], trials: 6}",
    ]
    work = json.loads(pipo("bench", "bench.yaml", arms, *tables, "--dry-run", "--json")[1])["work"]
    assert work == {
        "trials": 3 * 2 * (1 + 4),
        "trials of throughput": 3 * 2 * (1 + 5),
        "trials by users": 3 * 3 * 2 * (1 + 2),
        "trials at equal memory": 3 * 1 * (1 + 6),
    }
    only = [
        "prompt_tokens=[]",
        "users={context: [8], requests: [1]}",
        "equal_memory={gib: 1, context: [8], measured: false}",
    ]
    work = json.loads(pipo("bench", "bench.yaml", *only, "--dry-run", "--json")[1])["work"]
    assert work == {"trials by users": 4}


def test_dry_run_names_a_bad_row(calls: Calls) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text("{}\n")
    out = pipo("train", "train.yaml", "--dry-run", "--json")[1]
    plan = json.loads(out)
    assert plan["action"] == "cannot start"
    assert "rows.jsonl:1" in plan["reasons"][0]


def test_a_shipped_recipe_says_which_folder_is_missing_and_how_to_make_it(calls: Calls) -> None:
    plan = json.loads(pipo("train", "tiny/sft", "--dry-run", "--json")[1])
    assert plan["reasons"] == ["data.train: outputs/tiny-data/build does not exist (there is no folder outputs)"]
    assert plan["next"] == "run the commands at the top of the recipe first: pipo recipes show tiny/sft.yaml"
    plan = json.loads(pipo("train", "tiny/sft", "--dry-run", "--json", "data.train=outputs/foo")[1])
    assert plan["next"] is None


def test_a_start_that_cannot_succeed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = pipo("train", "tiny/sft.yaml")
    assert code == 3
    assert "pipo recipes show tiny/sft.yaml" in err
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_pipeline_changes_nothing(calls: Calls) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text("{}\n")
    code, out, _ = pipo("run", "all.yaml", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["stages"][0] | {"recipe": ""} == {
        "stage": "one",
        "kind": "train",
        "action": "start",
        "because": "",
        "recipe": "",
        "takes": {},
    }
    assert "one" in pipo("run", "all.yaml", "--dry-run")[1]
    assert not Path("outputs").exists()


def test_dry_run_of_a_rollout_checks_the_problems(calls: Calls) -> None:
    words = [
        "rollout",
        "tiny/rollout",
        "problems.source=./problems.jsonl",
        "problems.count=null",
        "--dry-run",
        "--json",
    ]
    for answer, code in (('"2"', 0), ("null", 3), ('{"tests": []}', 3)):
        Path("problems.jsonl").write_text(f'{{"question": "1+1", "answer": {answer}}}\n')
        found, out, err = pipo(*words)
        assert found == code, err
        plan = json.loads(out)
        assert (plan["action"] == "cannot start") is (code == 3)
        assert all("problems.jsonl:" in reason for reason in plan["reasons"])


ROLLOUT = (
    "kind: rollout\nmodel: tiny-teacher\nbudget: {tokens: 9}\n"
    "problems: {source: p.jsonl, columns: {question: prompt, answer: reward.truth}}\n"
)


def test_dry_run_of_a_rollout_counts_the_problems_of_the_shard(calls: Calls) -> None:
    Path("rollout.yaml").write_text(ROLLOUT)
    rows = [{"prompt": f"What is {n}?", "reward": {"truth": n}, "other": 1} for n in range(30)]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plans = [
        json.loads(pipo("rollout", "rollout.yaml", "--dry-run", "--json", "shard.count=3", f"shard.index={index}")[1])
        for index in range(3)
    ]
    assert [plan["folder"] for plan in plans] == [f"outputs/rollout/rollout-{index}-of-3" for index in range(3)]
    assert sum(plan["work"]["problems"] for plan in plans) == 30
    assert all(plan["work"]["answers"] == 4 * plan["work"]["problems"] for plan in plans)


def test_dry_run_of_a_rollout_names_a_column_that_is_not_there(calls: Calls) -> None:
    Path("rollout.yaml").write_text(ROLLOUT)
    Path("p.jsonl").write_text('{"prompt": "?", "reward": {"truths": 1}}\n')
    code, out, _ = pipo("rollout", "rollout.yaml", "--dry-run", "--json")
    assert code == 3
    (reason,) = json.loads(out)["reasons"]
    assert reason.endswith("p.jsonl:1: there is no column 'reward.truth' (did you mean 'reward.truths'?)")


def test_dry_run_of_the_shipped_rollouts_names_the_downloads(calls: Calls) -> None:
    code, out, _ = pipo("rollout", "math", "--dry-run", "--json", "model=tiny-teacher")
    assert (code, json.loads(out)["next"]) == (3, "pipo download dapo-math")
    code, out, _ = pipo("rollout", "code", "--dry-run", "--json")
    assert (code, json.loads(out)["next"]) == (3, "pipo download qwen3.5-9b")


def test_a_shape_that_nobody_knows_is_told_in_the_dry_run(calls: Calls) -> None:
    code, out, _ = pipo("bench", "bench/cpu", "random_weights=qwen3.5-5b", "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, plan["action"]) == (2, "cannot start")
    assert "no shape is called 'qwen3.5-5b'" in plan["reasons"][0]
