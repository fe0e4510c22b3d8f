"""The torch engine's server, feature by feature."""

from pathlib import Path

import pytest
from openai import OpenAI

from tests.features import FEATURES, TOOL_TEMPLATE, Feature, Server, table
from tests.serve.conftest import Start
from tests.serve.running import MODEL


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    service, address = start()
    service.tokenizer.chat_template = TOOL_TEMPLATE
    return Server(OpenAI(base_url=address, api_key="unused", max_retries=0), MODEL, service.live.end_ids)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_is_as_the_table_says(server: Server, feature: Feature) -> None:
    feature.confirm(server, feature.torch)


def test_the_table_is_in_the_docs() -> None:
    page = Path(__file__).parents[2] / "docs" / "serving.md"
    assert table() in page.read_text(encoding="utf-8")
