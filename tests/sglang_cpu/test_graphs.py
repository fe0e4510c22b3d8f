"""Decode steps through SGLang's own graph runner, which pads batches to recorded sizes and replays.

There are no CUDA graphs on a CPU: `torch_cpu/graphs.py` keeps functions in their place. All else is SGLang's: the input
buffers, the padding, the order of recording, replaying and sampling. Batches larger than any recording run eagerly in
between. `test_pair_graph.py` has replays without Python.
"""

import io
import re
from pathlib import Path

import pytest

from pipo_core.errors import MachineError
from pipo_core.recipes.methods import Decoding
from tests.sglang_cpu.conftest import HARD_FLAGS, RETRACTING, Client, Prompts, Reference, assert_equal, running

pytestmark = pytest.mark.slow  # each test starts a server of its own

SIZES = (1, 2, 4, 7)
GRAPHS = ("--enable-torch-compile", "--cuda-graph-bs-decode", *map(str, SIZES))  # without the former, none on a CPU


@pytest.mark.parametrize("pair_graph", ["0", "1"])
def test_answers_are_the_torch_engine_s(
    ckpt: Path, reference: Reference, prompts: Prompts, ends: frozenset[int], pair_graph: str
) -> None:
    variables = {**RETRACTING, "TORCH_CPU_GRAPHS": "1", "PIPO_PAIR_GRAPH": pair_graph}
    printed = io.StringIO()
    with running(ckpt, Decoding("pipo", 0.5), *HARD_FLAGS, *GRAPHS, variables=variables, echo=printed) as url:
        client = Client(url)
        for tau in (0.0, 0.4):
            assert_equal(client.generate_all(prompts, tau), reference.answers(prompts, tau), ends)
        expected = reference.answers(prompts[:5], 0.4, presence_penalty=1.5)
        assert_equal(client.generate_all(prompts[:5], 0.4, presence_penalty=1.5), expected, ends)
    replayed = re.findall(r"first replay of ShapeKey\(size=(\d+), .*variant_label=([^,]+),", printed.getvalue())
    backbone = {int(size) for size, variant in replayed if variant == "None"}
    pairs = {int(size) for size, variant in replayed if variant == "'pipo pair phase'"}
    assert len(backbone) > 2
    assert pairs == (backbone if pair_graph == "1" else set())


def test_a_wish_that_makes_no_sense_ends_the_start(ckpt: Path) -> None:
    with (
        pytest.raises(MachineError, match="PIPO_PAIR_GRAPH = 'yes' is neither 0 nor 1"),
        running(ckpt, Decoding("pipo", 0.5), variables={"PIPO_PAIR_GRAPH": "yes"}),
    ):
        pass
