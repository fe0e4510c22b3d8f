from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.local_hub import LocalHub, serving
from tests.hub.samples import RecordingReporter


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """A hub of this test, which huggingface_hub takes for the real one, and an empty cache."""
    with serving() as made:
        template = made.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        # huggingface_hub reads its environment when it is imported.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield made


@pytest.fixture
def recording() -> RecordingReporter:
    return RecordingReporter()
