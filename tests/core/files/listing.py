from pathlib import Path


def names(folder: Path) -> list[str]:
    """Return the sorted names of what lies in `folder`, hidden ones included."""
    return sorted(path.name for path in folder.iterdir())
