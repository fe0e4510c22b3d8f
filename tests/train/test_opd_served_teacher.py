"""Distillations whose teacher is behind a URL: they train as with the teacher here, and stop where servers do."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pipo_core.engine.teacher_servers import check_teacher_servers
from pipo_core.engine.torch_opening import TorchOpener
from pipo_core.errors import CheckpointError, MachineError, PipoError, UsageError
from pipo_core.files import read_object, write_json
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.recipes.common import RemoteSettings, TorchSettings
from pipo_core.recipes.methods import Decoding, MethodName
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.train.opd import run_distill
from pipo_core.train.worker.opd_examples import Question, collate_rollouts
from pipo_core.train.worker.opd_served_teacher import ServedTeacher, collate_targets
from tests.engine.scripted_server import Answer, ScriptedServer, scripted
from tests.serve.running import running
from tests.train.trainings import PAD, differing, distill_recipe, some_rollouts, train_here, weights

VOCABULARY = 264
SGLANG = {"/model_info": (200, {"model_path": "/m"})}


@contextmanager
def serving(ckpt: Path, method: MethodName = "regular", max_length: int = 512) -> Iterator[str]:
    """Serve a checkpoint by pipo's own server."""
    settings = TorchSettings(batch=4, device="cpu", precision="fp32", threads=1, max_length=max_length)
    with running(TorchOpener().open(ckpt, Decoding(method), settings)) as (_, address):
        yield address.removesuffix("/v1")


def remote(*urls: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "remote", "urls": list(urls), "patience_s": 0.3, **changes}


def served_recipe(student: Path, rows: Path, *urls: str, **changes: Any) -> DistillRecipe:
    settings = distill_recipe(student, student, rows, **changes).model_dump()
    return DistillRecipe.model_validate({**settings, "teacher": None, "teacher_engine": remote(*urls)})


class SGLangTeacher(ScriptedServer):
    """Answers ``/generate`` in SGLang's form, with a model's own log-probabilities."""

    def __init__(self, ckpt: Path) -> None:
        super().__init__(post=self._answer, get=SGLANG)
        self._model: Qwen3_5ForCausalPIPO = load_checkpoint(ckpt)
        self.dies_after: int | None = None

    @torch.no_grad()
    def _answer(self, path: str, body: Any) -> Answer:
        if self.dies_after is not None and len(self.asked) > self.dies_after:
            return None
        assert path == "/generate"
        ids = body["input_ids"]
        scores = self._model.forward_regular(torch.tensor([ids]))[0].log_softmax(-1)
        written = int(scores[-1].argmax())
        meta: dict[str, Any] = {"finish_reason": {"type": "length"}, "prompt_tokens": len(ids)}
        if body.get("return_logprob"):
            assert body["logprob_start_len"] == 0
            best = [row.topk(body.get("top_logprobs_num", 1)) for row in scores]
            tops = [[[v, i, None] for v, i in zip(b.values.tolist(), b.indices.tolist(), strict=True)] for b in best]
            own = [[float(row[token]), token, None] for row, token in zip(scores, [*ids[1:], written], strict=True)]
            meta |= {"input_token_logprobs": [[None, ids[0], None], *own[:-1]], "output_token_logprobs": own[-1:]}
            meta |= {"input_top_logprobs": [None, *tops[:-1]], "output_top_logprobs": tops[-1:]}
        if body.get("return_text_in_logprobs"):
            from tests.train.trainings import TOKENIZER

            for entry in meta["input_token_logprobs"]:
                entry[2] = TOKENIZER.decode([entry[1]])
        return 200, {"text": "", "output_ids": [written], "meta_info": meta}


@pytest.mark.parametrize("kind", ["pipo", "sglang"])
def test_what_servers_list_at_each_position_is_the_models_own(
    student: Path, teacher: Path, rows: Path, kind: str
) -> None:
    with ExitStack() as stack:
        if kind == "pipo":
            url = stack.enter_context(serving(teacher))
        else:
            url = stack.enter_context(scripted(SGLangTeacher(teacher))).url
        recipe = served_recipe(student, rows, url, kl={"top_k": 5})
        assert recipe.teacher_engine is not None
        reader = ServedTeacher(recipe, recipe.teacher_engine, VOCABULARY)
        rollouts = some_rollouts()
        found = collate_targets(reader.read([Question(1, (1,)), Question(2, (2,))], rollouts))
    batch = collate_rollouts(rollouts, PAD)
    model = load_checkpoint(teacher)
    ids, logprobs = found["teacher_ids"], found["teacher_logprobs"]
    assert ids.shape == logprobs.shape == (*batch.input_ids.shape, 6)
    with torch.no_grad():
        for row, rollout in enumerate(rollouts):
            for place in range(len(rollout.input_ids)):
                text = batch.input_ids[row, : place + 1][~batch.pads[row, : place + 1]]
                expected = model.forward_regular(text[None])[0, -1].log_softmax(-1)
                assert ids[row, place, :5].tolist() == expected.topk(5).indices.tolist()
                assert (logprobs[row, place] - expected[ids[row, place]]).abs().max() < 1e-4
                behind = batch.input_ids[row, place + 1 :][~batch.pads[row, place + 1 :]]
                if len(behind):
                    assert ids[row, place, 5] == behind[0]


def test_a_teacher_that_lists_every_token_teaches_as_the_one_here(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"kl": {"top_k": VOCABULARY}, "max_steps": 3, "optimizer": {"learning_rate": 1e-2}}
    here = train_here(distill_recipe(student, teacher, rows, **changes), tmp_path / "here")
    with serving(teacher) as one, scripted(SGLangTeacher(teacher)) as other:
        for name, urls in (("pipo", [one]), ("sglang", [other.url])):
            there = train_here(served_recipe(student, rows, *urls, **changes), tmp_path / name)
            logs = [[event for event in events if event["event"] == "log"] for events in (here, there)]
            for mine, theirs in zip(*logs, strict=True):
                for loss in ("loss", "backbone_loss", "mtp_loss", "confidence_loss", "confidence_target_mean"):
                    assert theirs[loss] == pytest.approx(mine[loss], rel=1e-4), loss
                parts = ("rollout", "teacher", "student")
                assert sum(theirs[f"{part}_share"] for part in parts) == pytest.approx(1, abs=1e-3)
                assert theirs["teacher_share"] > 0
            made = [weights(tmp_path / folder / "model") for folder in ("here", name)]
            assert all((made[0][key] - made[1][key]).abs().max() < 1e-5 for key in made[0])
    assert differing(made[1], weights(student)), "it learned nothing"


def test_all_answers_of_a_step_are_read_together_by_all_servers(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    with scripted(SGLangTeacher(teacher)) as one, scripted(SGLangTeacher(teacher)) as other:
        settings = served_recipe(student, rows, one.url, other.url, kl={"top_k": 3}, max_steps=2)
        train_here(settings, tmp_path)
        scored = [[body for _, body in server.asked if body.get("top_logprobs_num") == 3] for server in (one, other)]
    # Two steps of four answers, and the check before.
    assert sum(map(len, scored)) == 2 * 4 + 1
    assert all(scored)


def test_processes_ask_each_for_its_own_answers(student: Path, teacher: Path, rows: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"kl": {"top_k": VOCABULARY}, "max_steps": 2, "batch": {}}
    changes["launch"] = {"threads": 1, "processes": 2}
    made = []
    with scripted(SGLangTeacher(teacher)) as server:
        for name, settings in (
            ("here", distill_recipe(student, teacher, rows, **changes)),
            ("there", served_recipe(student, rows, server.url, **changes)),
        ):
            (tmp_path / name).mkdir()
            run_distill(settings, tmp_path / name, made_by="test")
            made.append(weights(tmp_path / name / "model"))
    assert all((made[0][name] - made[1][name]).abs().max() < 1e-5 for name in made[0])


def test_a_teacher_that_is_gone_ends_the_training_which_then_goes_on(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    server = SGLangTeacher(teacher)
    server.dies_after = 3 + 4  # the check, and four answers
    with scripted(server):
        settings = served_recipe(student, rows, server.url, max_steps=2)
        with pytest.raises(PipoError, match=r"could not read the answer to the question of line \d+: no server has"):
            run_distill(settings, tmp_path, made_by="test")
        server.dies_after = None
        summary = run_distill(settings, tmp_path, made_by="test")
    assert (summary["resumed_from_step"], summary["steps"]) == (1, 2)


def checked(student: Path, url: str, *, top_k: int = 4, longest: int = 100) -> None:
    settings = RemoteSettings.model_validate(remote(url))
    check_teacher_servers(settings, student, top_k=top_k, longest=longest)


def test_servers_that_cannot_teach_are_refused_before_anything_is_loaded(
    student: Path, teacher: Path, tmp_path: Path
) -> None:
    with serving(teacher, max_length=200) as url:
        checked(student, url)
        with pytest.raises(UsageError, match=r"cannot be asked for answers of 300 tokens: .* context"):
            checked(student, url, longest=300)
        with pytest.raises(UsageError, match=r"cannot be asked for kl.top_k=5000: .*logprobs"):
            checked(student, url, top_k=5000)
        other = tmp_path / "other"
        other.mkdir()
        for file in student.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        tokenizer = read_object(other / "tokenizer.json")
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        write_json(other / "tokenizer.json", tokenizer)
        with pytest.raises(CheckpointError, match=r"cannot teach this student: token \d+, '[ab]', is '[ab]' there"):
            checked(other, url)
    with serving(student, "pipo") as url, pytest.raises(UsageError, match="does not tell the log-probabilities"):
        checked(student, url)
    with pytest.raises(MachineError, match="cannot be reached"):
        checked(student, "http://127.0.0.1:9")


def test_a_teacher_with_more_rows_is_refused(student: Path, teacher: Path, rows: Path) -> None:
    with scripted(SGLangTeacher(teacher)) as server:
        recipe = served_recipe(student, rows, server.url)
        assert recipe.teacher_engine is not None
        reader = ServedTeacher(recipe, recipe.teacher_engine, 30)
        with pytest.raises(PipoError, match="LM head has more rows than the student's 30"):
            reader.read([Question(1, (1,)), Question(2, (2,))], some_rollouts())
