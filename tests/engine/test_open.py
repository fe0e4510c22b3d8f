"""Opening an engine with a reduced draft vocabulary."""

import shutil
from pathlib import Path

import pytest

from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request, open_engine
from pipo_core.errors import CheckpointError
from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.model.checkpoint import write_draft_vocab
from pipo_core.recipes.common import EngineSettings
from pipo_core.recipes.locate import bundled_model

FEW = EngineSettings(device="cpu", draft_vocab=6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "model"
    return save_checkpoint(
        load_checkpoint(bundled_model("tiny-student")), folder, tokenizer_from=bundled_model("tiny-student")
    )


def test_a_checkpoint_without_the_record_is_refused_for_pipo_alone(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no draft_vocab\.json"):
        open_engine(checkpoint, "pipo", 0.0, FEW)
    open_engine(checkpoint, "regular", None, FEW)


def test_drafts_come_from_the_record(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    write_draft_vocab(folder, [40, 41, 42, 43, 44], 100)
    request = Request("a", (30, 31, 32), SamplingParams(temperature=0.0), 24, None, frozenset(), ignore_end=True)
    (few,) = open_engine(folder, "pipo", 0.0, FEW).generate([request])
    (full,) = open_engine(folder, "pipo", 0.0, EngineSettings(device="cpu")).generate([request])
    ends = open_engine(folder, "pipo", 0.0, FEW).end_ids
    assert {*few.token_ids[1::2]} <= {40, 41, 42, 43, 44, *ends}
    assert not {*full.token_ids[1::2]} <= {40, 41, 42, 43, 44, *ends}
