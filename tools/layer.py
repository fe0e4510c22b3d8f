"""Puts the environment that runs it on top of another one: what is not in it is taken from there.

``.venv-two/bin/python -m tools.layer .venv`` writes two ``.pth`` files, which Python reads when it starts: one adds the
packages of the lower environment behind the upper one's own, the other lets torchvision be imported on a CPU
(`torch_cpu.torchvision_ops`).
"""

import sys
import sysconfig
from pathlib import Path


def main(lower: Path) -> None:
    """Write the files."""
    upper = Path(sysconfig.get_path("purelib"))
    relative = upper.relative_to(sys.prefix)
    below = (lower / relative).absolute()
    if not below.is_dir():
        sys.exit(f"{lower} is no environment of this version of Python: it has no {relative}")
    # addsitedir, not a plain line: it also reads the .pth files there, such as pipo's own.
    (upper / "layer.pth").write_text(f"import site; site.addsitedir({str(below)!r})\n")
    (upper / "torch_cpu.pth").write_text(
        "import importlib.util; importlib.util.find_spec('torch_cpu') and __import__('torch_cpu.torchvision_ops')\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
