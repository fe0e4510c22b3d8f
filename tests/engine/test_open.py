"""Opening an engine with a reduced draft vocabulary."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request, open_engine
from pipo_core.errors import CheckpointError, UsageError
from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.model.frequent_tokens import FrequentTokens, write_draft_vocab
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding

CPU = TorchSettings(device="cpu")
FEW = Decoding("pipo", tau=0.0, draft_vocab=6)
ALL = Decoding("pipo", tau=0.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "model"
    return save_checkpoint(
        load_checkpoint(bundled_model("tiny-student")), folder, tokenizer_from=bundled_model("tiny-student")
    )


def test_a_checkpoint_without_the_record_is_refused_where_it_is_needed(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no draft_vocab\.json"):
        open_engine(checkpoint, FEW, CPU)
    open_engine(checkpoint, ALL, CPU)
    with pytest.raises(UsageError, match="regular has no drafts"):
        open_engine(checkpoint, Decoding("regular", drafts=6), CPU)


def test_drafts_come_from_the_record(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    write_draft_vocab(folder, FrequentTokens([40, 41, 42, 43, 44], [60, 20, 10, 9, 1]))
    request = Request("a", (30, 31, 32), SamplingParams(temperature=0.0), 24, None, frozenset(), ignore_end=True)
    (few,) = open_engine(folder, FEW, CPU).generate([request])
    (full,) = open_engine(folder, ALL, CPU).generate([request])
    ends = open_engine(folder, FEW, CPU).end_ids
    assert {*few.token_ids[1::2]} <= {40, 41, 42, 43, 44, *ends}
    assert not {*full.token_ids[1::2]} <= {40, 41, 42, 43, 44, *ends}


def test_a_draft_vocabulary_that_leaves_much_out_is_told(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    write_draft_vocab(folder, FrequentTokens(list(range(40, 60)), [1000] * 3 + [1] * 17))
    open_engine(folder, replace(FEW, draft_vocab=18), CPU)  # 2 of 3,017 tokens
    assert not caplog.text
    open_engine(folder, replace(FEW, draft_vocab=3), CPU)
    assert "a draft vocabulary of 3 leaves out 0.6 % of the training set's tokens" in caplog.text
    assert "draft_vocab=3" in caplog.text


def test_a_gate_that_knows_the_draft_vocabulary_needs_no_warning(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    write_draft_vocab(folder, FrequentTokens(list(range(40, 60)), [1000] * 3 + [1] * 17, gate=4))
    for size in (4, 5):  # what is outside of 5 is outside of 4, too
        open_engine(folder, replace(FEW, draft_vocab=size), CPU)
    assert not caplog.text
    open_engine(folder, replace(FEW, draft_vocab=3), CPU)
    assert "the gate was not trained to know" in caplog.text
