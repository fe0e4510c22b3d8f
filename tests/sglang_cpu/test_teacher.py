"""A distillation's teacher on SGLang: it tells the log-probabilities that the torch engine computes."""

from contextlib import closing

import pytest

from pipo_core.engine import open_engine
from pipo_core.engine.teacher_servers import check_teacher_servers, open_teacher_servers, scoring_request
from pipo_core.errors import UsageError
from pipo_core.recipes.common import RemoteSettings, TorchSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding
from tests.sglang_cpu.conftest import Prompts, running

POOLS = ("--max-mamba-cache-size", "64", "--max-total-tokens", "4096")
"""Without them the server takes half of the machine's memory."""
TEACHER, STUDENT = bundled_model("tiny-teacher"), bundled_model("tiny-student")


def test_a_server_lists_the_teacher_s_likeliest_tokens(prompts: Prompts) -> None:
    torch_settings = TorchSettings(batch=8, device="cpu", precision="fp32", threads=1)
    asked = [scoring_request(str(number), ids, 32) for number, ids in enumerate(prompts[:8])]
    with closing(open_engine(TEACHER, Decoding("regular"), torch_settings)) as engine:
        expected = {completion.id: completion for completion in engine.generate(asked)}
    with running(TEACHER, Decoding("regular"), *POOLS) as url:
        settings = RemoteSettings(kind="remote", urls=[url])
        check_teacher_servers(settings, STUDENT, top_k=32, longest=600)
        with pytest.raises(UsageError, match="cannot be asked for answers of 5,000 tokens"):
            check_teacher_servers(settings, STUDENT, top_k=32, longest=5000)
        with closing(open_teacher_servers(settings, STUDENT)) as engine:
            found = {completion.id: completion for completion in engine.generate(asked)}
    for name, reference in expected.items():
        scores = [*(found[name].prompt_scores or ()), *(found[name].scores or ())]
        own = [*(reference.prompt_scores or ()), *(reference.scores or ())]
        assert len(scores) == len(own) == len(prompts[int(name)])
        for one, other in zip(scores, own, strict=True):
            assert one.token == other.token
            assert one.logprob == pytest.approx(other.logprob, abs=2e-4)
            told, listed = dict(one.top), dict(other.top)
            assert len(told) == len(listed) == 32
            for token in told.keys() & listed.keys():
                assert told[token] == pytest.approx(listed[token], abs=2e-4)
            # Tokens that are as unlikely as the last one may change places with it.
            assert max((told[token] for token in told.keys() - listed.keys()), default=-99) <= other.top[-1][1] + 2e-4
