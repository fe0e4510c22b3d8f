"""huggingface_hub's errors in one line each, with what to do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pipo_core.errors import MachineError, MissingInputError, PipoError
from pipo_core.hub.cache import open_store
from pipo_core.hub.replies import StrangeReplyError
from pipo_core.recipes.catalog import Named

GO_ON = "the same command goes on where it stopped"
_PASSING = (408, 425, 429)
"""Statuses below 500 that may be gone after a while."""


@contextmanager
def hub_errors(named: Named) -> Iterator[None]:
    """Turn errors of huggingface_hub, the network and the disk in the block into errors of pipo.

    Args:
        named: what the block asks the hub for; named in the messages.

    Raises:
        MissingInputError: if it does not exist, may not be read, or cannot be reached.
        MachineError: if the disk is full or the cache cannot be written.
    """
    from httpx import HTTPError

    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        raise _explained(named, error) from error


def unreachable(error: BaseException) -> bool:
    """Return whether an error means that the hub cannot be reached: offline mode, no connection, or a status 5xx."""
    from httpx import TransportError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    down = isinstance(error, HfHubHTTPError) and error.response.status_code >= 500
    return down or isinstance(error, OfflineModeIsEnabled | TransportError)


def _explained(named: Named, error: Exception) -> PipoError:
    from httpx import TransportError
    from huggingface_hub import constants, errors

    repo, name = named.entry.repo, named.text
    match error:
        case errors.GatedRepoError():
            page = f"{constants.ENDPOINT}/{repo}"
            return MissingInputError(f"{name}: {repo} is gated", hint=f"ask for access on {page}, then: hf auth login")
        case errors.DisabledRepoError():
            return MissingInputError(f"{name}: the hub has disabled {repo}")
        case errors.RepositoryNotFoundError():
            return _not_found(named)
        case errors.RevisionNotFoundError():
            hint = "a branch, a tag, or all 40 digits of a commit"
            return MissingInputError(f"{name}: {repo} has no revision {named.revision}", hint=hint)
        case errors.OfflineModeIsEnabled():
            text = f"{name} is not in the Hugging Face cache, and HF_HUB_OFFLINE forbids fetching it"
            return MissingInputError(text, hint=f"HF_HUB_OFFLINE=0 {named.download_command}")
        case errors.HFValidationError():
            return MissingInputError(f"{name}: not a hub id", hint="pipo download --list")
        case errors.HfHubHTTPError():
            return _answered(named, error.response.status_code)
        case errors.LocalEntryNotFoundError() | errors.FileMetadataError() | TransportError():
            reason = " ".join(str(error.__cause__ or error).split()).partition(". ")[0]
            text = f"{name}: {constants.ENDPOINT} cannot be reached: {reason[:200]}"
            return MissingInputError(text, hint=f"check the network and HF_ENDPOINT; {GO_ON}")
        case StrangeReplyError():
            text = f"{name}: {constants.ENDPOINT} does not answer like a hub: {error}"
            return MissingInputError(text, hint="check HF_ENDPOINT and the proxy")
        case OSError() if error.errno is not None:
            return _disk(named, error)
    text = f"{name}: {constants.ENDPOINT} does not answer like a hub ({type(error).__name__})"
    return MissingInputError(text, hint="check HF_ENDPOINT and the proxy")


_KINDS = {"model": "model", "data": "data set", "benchmark": "data set"}


def _not_found(named: Named) -> MissingInputError:
    from huggingface_hub import constants

    text = f"{named.text}: {constants.ENDPOINT} has no {_KINDS[named.entry.kind]} {named.entry.repo}"
    hint = "check the name; hf auth login for private ones"
    if named.entry.kind == "model":  # on the hub, a data set may have the same name as a model
        hint = f"if it is data: pipo download {named.text} --kind data; otherwise {hint}"
    return MissingInputError(f"{text}, or you may not see it", hint=hint)


def _answered(named: Named, status: int) -> MissingInputError:
    from huggingface_hub import get_token

    name = named.text
    if status == 401 and get_token() is None:
        return _not_found(named)  # without a token, the hub gives the same answer for private and absent repositories
    if status == 401:
        text = f"{name}: the hub rejects the access token"
        return MissingInputError(text, hint="hf auth login, or unset HF_TOKEN")
    if status == 403:
        return MissingInputError(f"{name}: the access token may not read it", hint="hf auth login with another token")
    text = f"{name}: the hub answers with status {status}"
    if status in _PASSING or status >= 500:
        return MissingInputError(text, hint=f"try again later; {GO_ON}")
    return MissingInputError(text, hint="check the name, HF_ENDPOINT and the proxy: the hub does not take the request")


def _disk(named: Named, error: OSError) -> PipoError:
    cache = open_store(named.entry).cache
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"{named.text}: no space is left in {cache}; the bytes received so far are kept"
        return MachineError(text, hint=f"free space, then {GO_ON}; or HF_HOME=DIR for another disk")
    place = f" ({error.filename})" if error.filename else ""
    text = f"{named.text}: the Hugging Face cache {cache} cannot be written: {reason}{place}"
    return MachineError(text, hint=f"HF_HOME=DIR {named.download_command}")
