"""Servers of SGLang's that answer for a student in training: its weights are handed to them as files."""

import concurrent.futures
from dataclasses import replace
from pathlib import Path
from typing import Literal

import httpx

from pipo_core.engine.dialects import SGLangDialect
from pipo_core.engine.remote import RemoteEngine
from pipo_core.engine.remote_opening import RemoteOpener, SGLangOpener, served_models
from pipo_core.errors import MachineError, UsageError
from pipo_core.recipes.common import RemoteSettings, SGLangSettings
from pipo_core.recipes.methods import PAIRS, Decoding
from pipo_core.text import one_line

_DTYPE = "--dtype"


def check_student_servers(settings: SGLangSettings | RemoteSettings) -> None:
    """Check that SGLang can be started, or that the servers answer and are SGLang's.

    Raises:
        MachineError: if SGLang is not installed in the tested version, or a server cannot be reached.
        UsageError: if a flag is one of pipo's own, a key's variable is not set, or a server cannot take weights.
    """
    if isinstance(settings, SGLangSettings):
        SGLangOpener().check(settings)
        return
    others = [url for url, served in served_models(settings).items() if not served.is_sglang]
    if others:
        raise UsageError(
            f"{others[0]} is not a server of SGLang's, so it takes no weights and records no drafts",
            hint="pipo serve --engine sglang",
        )


class StudentServers:
    """Answers with the weights that were handed over last, and refuses answers that were written with others.

    Attributes:
        engine: asks the servers.
    """

    def __init__(self, engine: RemoteEngine) -> None:
        """Speak to servers through an engine that `open_student_servers` opened."""
        self.engine = engine

    def load(self, folder: Path, version: str) -> None:
        """Have every server load the weights in a folder, and forget the prefixes that it has cached.

        Args:
            folder: a checkpoint that the servers can read under this path.
            version: a name for these weights, which no others have.

        Raises:
            MachineError: naming the server that did not load them.
        """
        body = {"model_path": str(folder.absolute()), "weight_version": version, "flush_cache": True}
        with self.engine.client() as client, concurrent.futures.ThreadPoolExecutor(len(self.engine.urls)) as pool:
            for refusal in pool.map(lambda url: _refusal(client, url, body), self.engine.urls):
                if refusal is not None:
                    raise self.engine.failure() or refusal

    def expect(self, version: str) -> None:
        """Take only answers that were written with the weights of this version."""
        dialect = self.engine.dialect
        assert isinstance(dialect, SGLangDialect)  # noqa: S101 - `check_student_servers` lets no others pass
        self.engine.dialect = replace(dialect, weights=version)


def open_student_servers(
    ckpt: Path, tau: float, settings: SGLangSettings | RemoteSettings, *, dtype: Literal["float32", "bfloat16"]
) -> StudentServers:
    """Return the servers that settings name, or start one.

    Args:
        ckpt: a checkpoint of the student, from which a server is started; any weights will do.
        tau: confidence threshold of every request.
        settings: of the servers.
        dtype: number format that a server computes in if its flags name none. SGLang's own choice depends on the
            checkpoint, and is fp16 for one in fp32.

    Raises:
        PipoError: as `check_student_servers`, and if a server does not start.
    """
    check_student_servers(settings)
    decoding = Decoding(PAIRS.name, tau)
    if isinstance(settings, RemoteSettings):
        return StudentServers(RemoteOpener().open(ckpt, decoding, settings))
    if not any(flag.partition("=")[0] == _DTYPE for flag in settings.flags):
        settings = settings.model_copy(update={"flags": [*settings.flags, _DTYPE, dtype]})
    return StudentServers(SGLangOpener().open(ckpt, decoding, settings))


def _refusal(client: httpx.Client, url: str, body: dict[str, object]) -> MachineError | None:
    """Return why a server did not load weights; None if it did."""
    try:
        answer = client.post(f"{url}/update_weights_from_disk", json=body)
    except httpx.HTTPError as error:
        said = str(error) or type(error).__name__
    else:
        if answer.is_success:
            return None
        said = f"status {answer.status_code}: {answer.text}"
    hint = f"it must be able to read {body['model_path']}"
    return MachineError(f"{url} did not load the student's weights: {one_line(said)[:300]}", hint=hint)
