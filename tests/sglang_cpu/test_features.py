"""SGLang's server with a pair model, feature by feature."""

import pytest
from openai import OpenAI

from tests.features import FEATURES, Feature, Server
from tests.sglang_cpu.conftest import Client


@pytest.fixture(scope="module")
def server(client: Client, ends: frozenset[int]) -> Server:
    return Server(OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0, timeout=300), "model", ends)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_is_as_the_table_says(server: Server, feature: Feature) -> None:
    feature.confirm(server, feature.sglang)
