"""Models, adapters, data and benchmarks by short name or hub id, resumable through huggingface_hub.

Bundled models are copied; everything else goes into the Hugging Face cache (HF_HOME) or into a named folder.
Checking, resuming and locking of downloads are huggingface_hub's.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import new_folder
from pipo_core.recipes.catalog import CATALOG, Entry
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.suggest import did_you_mean

TINY = "tiny"
MODELS = Path("models")


@dataclass(frozen=True)
class Item:
    """One thing to get: its name, where it comes from, where it lies or would lie, and its size.

    `bytes` is what is still to be transferred (None: not known).
    """

    name: str
    source: str
    path: Path | None
    bytes: int | None


def download(
    name: str,
    *,
    to: Path | None = None,
    revision: str | None = None,
    kind: Literal["model", "data"] = "model",
    dry_run: bool = False,
) -> list[Item]:
    """Get what `name` means and return where it lies; with `dry_run` return what would be got.

    `name` is a catalog name, `tiny` (all bundled models) or a hub id, whose `kind` must be told. `to` is a
    folder instead of the cache; bundled models are copied to `to` (default ./models), each into a folder of
    its name.
    Raises MissingInputError when it does not exist or cannot be reached.
    """
    names = [key for key, entry in CATALOG.items() if entry.bundled] if name == TINY else [name]
    if CATALOG.get(names[0], _NOT_BUNDLED).bundled:
        if revision is not None:
            raise UsageError(f"{name} is bundled and has no revisions")
        return [_copy_bundled(each, (to or MODELS) / each, dry_run=dry_run) for each in names]
    entry = CATALOG.get(name) or _hub_entry(name, kind)
    return [_fetch(name, entry, to, revision or entry.revision, dry_run=dry_run)]


_NOT_BUNDLED = Entry("model", "", None, False, "")


def _hub_entry(name: str, kind: Literal["model", "data"]) -> Entry:
    if name.count("/") != 1 or not all(name.split("/")):
        guess = did_you_mean(name, [*CATALOG, TINY])
        raise MissingInputError(f"{name!r} is neither a catalog name nor a hub id{guess}", hint="pipo download --list")
    return Entry(kind, name, None, False, "")


def _copy_bundled(name: str, target: Path, *, dry_run: bool) -> Item:
    source = bundled_model(name)
    files = [file for file in sorted(source.iterdir()) if file.is_file()]
    if not dry_run:
        with new_folder(target) as folder:
            for file in files:
                shutil.copyfile(file, folder / file.name)
    return Item(name, "bundled", target, sum(file.stat().st_size for file in files))


def _fetch(name: str, entry: Entry, to: Path | None, revision: str | None, *, dry_run: bool) -> Item:
    # Imported here: the bundled models need none of it.
    from huggingface_hub import snapshot_download

    patterns = _patterns(entry)
    get: Callable[..., Any] = snapshot_download
    with _hub_errors(name, entry):
        answer = get(
            entry.repo,
            repo_type="model" if entry.kind == "model" else "dataset",
            revision=revision,
            local_dir=to,
            allow_patterns=patterns,
            dry_run=dry_run,
        )
    source = f"https://huggingface.co/{'' if entry.kind == 'model' else 'datasets/'}{entry.repo}"
    if dry_run:
        return Item(name, source, to, sum(file.file_size or 0 for file in answer if file.will_download))
    path = Path(answer) / entry.path
    if not path.exists():
        raise MissingInputError(f"{name}: {entry.repo} no longer has {entry.path}")
    return Item(name, source, path, 0)


def _patterns(entry: Entry) -> list[str] | None:
    """Return what to get of a repository: pickled weights are never loaded, so they are not fetched."""
    if entry.kind == "model":
        safe = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "LICENSE*", "README*")
        return [f"{entry.path}/{pattern}" if entry.path else pattern for pattern in safe]
    return [entry.path] if entry.path else None


@contextmanager
def _hub_errors(name: str, entry: Entry) -> Iterator[None]:
    """Turn huggingface_hub's errors into one line that says what to do."""
    from httpx import HTTPError
    from huggingface_hub import errors

    where = entry.repo
    try:
        yield
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/{where}"
        raise MissingInputError(f"{name}: {where} is gated", hint=f"ask on {page}, then: hf auth login") from error
    except errors.RepositoryNotFoundError as error:
        text = f"{name}: the hub has no repository {where}, or you may not see it"
        raise MissingInputError(text, hint="check the name; hf auth login for private ones") from error
    except errors.RevisionNotFoundError as error:
        raise MissingInputError(f"{name}: {where} has no such revision") from error
    except errors.HFValidationError as error:
        raise MissingInputError(f"{name}: not a hub id", hint="pipo download --list") from error
    except (
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.DryRunError,
        errors.HfHubHTTPError,
    ) as error:
        raise MissingInputError(f"{name}: the hub cannot be reached", hint=_RETRY) from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise MissingInputError(f"{name}: the download broke off", hint=_RETRY) from error


_RETRY = "check the network, HF_HUB_OFFLINE and HF_ENDPOINT; the same command goes on where it stopped"
