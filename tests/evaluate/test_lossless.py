"""What an evaluation says of an arm that claims to be lossless, before it asks anything."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipo_core.engine import Engine, Engines
from pipo_core.errors import PipoError
from pipo_core.evaluate.lossless import PROOFS, read_proofs
from pipo_core.evaluate.runner import run_eval, run_regrade
from pipo_core.evaluate.table import tables
from pipo_core.files import read_json
from pipo_core.recipes.common import EngineSettings
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding

WORDS = "chain: 4 of 4 greedy answers equal regular decoding's."
CKPT = str(bundled_model("tiny-student"))


def recipe(*arms: dict[str, Any], **changes: Any) -> EvalRecipe:
    values = {
        "problems": {"count": 5, "seed": 1},
        "samples": 1,
        "budget": {"tokens": 6},
        "arms": [{"name": "plain", "method": "regular", "ckpt": CKPT}, *arms],
        "engine": {"threads": 1, "device": "cpu", "precision": "fp32"},
    }
    return EvalRecipe.model_validate({**values, **changes})


CHAIN = {"name": "chain", "method": "eagle", "ckpt": CKPT, "drafts": 2}


class Opening:
    """Opens real engines and remembers which; `lies` has eagle write its drafts unverified."""

    def __init__(self, lies: bool = False) -> None:
        self.opened: list[str] = []
        self._lies = lies
        self._engines = Engines()

    def __call__(self, ckpt: Path | None, decoding: Decoding, settings: EngineSettings) -> Engine:
        self.opened.append(decoding.method)
        if self._lies and decoding.method == "eagle":
            decoding = replace(decoding, method="mtp", drafts=None)
        return self._engines.open(ckpt, decoding, settings)


def test_the_proof_comes_first_stands_under_the_table_and_is_made_once(tmp_path: Path) -> None:
    opening = Opening()
    results = run_eval(recipe(CHAIN), tmp_path, open_engine=opening)
    assert opening.opened == ["eagle", "regular", "regular", "eagle"]
    (suite,) = results["suites"]
    (proof,) = suite["lossless"]
    assert (proof["label"], proof["checked"], proof["equal"], proof["words"]) == ("chain", True, 4, WORDS)
    assert tables(results)[0].note.endswith(f" {WORDS}")
    assert read_json(tmp_path / "results.json") == results
    again = Opening()
    assert run_eval(recipe(CHAIN), tmp_path, open_engine=again)["suites"][0]["lossless"] == [proof]
    assert again.opened == []
    assert run_regrade(recipe(CHAIN), tmp_path)["suites"][0]["lossless"] == [proof]
    # A damaged proof is none.
    (tmp_path / PROOFS).write_text((tmp_path / PROOFS).read_text().replace('"equal": 4', '"equal": 3'))
    assert read_proofs(tmp_path) == {}
    assert run_eval(recipe(CHAIN), tmp_path, open_engine=again)["suites"][0]["lossless"] == [proof]
    assert again.opened == ["eagle", "regular"]


def test_an_arm_that_is_not_lossless_ends_the_evaluation_before_it_asks(tmp_path: Path) -> None:
    opening = Opening(lies=True)
    with pytest.raises(PipoError, match=r"chain is not lossless: token \d+ of its greedy answer \d"):
        run_eval(recipe(CHAIN), tmp_path, open_engine=opening)
    assert opening.opened == ["eagle", "regular"]
    assert list(tmp_path.iterdir()) == []


def test_without_such_an_arm_nothing_is_proven(tmp_path: Path) -> None:
    opening = Opening()
    results = run_eval(recipe(), tmp_path, open_engine=opening)
    assert opening.opened == ["regular"]
    assert results["suites"][0]["lossless"] == []
    assert not (tmp_path / PROOFS).exists()


def test_the_claim_of_a_server_is_not_checked(opener: Any, checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    away = {"kind": "remote", "urls": ["http://127.0.0.1:9"]}
    arm = {"name": "away", "method": "eagle", "ckpt": checkpoint("away"), "engine": away}
    plain = {"name": "plain", "method": "regular", "ckpt": checkpoint("plain")}
    results = run_eval(recipe(arms=[plain, arm], problems={"count": 30, "seed": 1}), tmp_path, open_engine=opener())
    assert tables(results)[0].note.endswith("away: not checked to be lossless, because a server answers for it.")
