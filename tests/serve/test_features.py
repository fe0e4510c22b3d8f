"""The torch engine's server, feature by feature."""

import pytest
from openai import OpenAI

from tests.features import FEATURES, TOOL_TEMPLATE, Feature, Server
from tests.serve.conftest import MODEL, Start


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    service, address = start()
    service.tokenizer.chat_template = TOOL_TEMPLATE
    return Server(OpenAI(base_url=address, api_key="unused", max_retries=0), MODEL)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_is_as_the_table_says(server: Server, feature: Feature) -> None:
    feature.confirm(server, feature.torch)
