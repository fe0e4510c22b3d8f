"""`pipo serve` as a process: what several rooms' tests wait for."""

import re
import subprocess


def served_address(process: "subprocess.Popen[str]") -> str:
    """Wait until a server says how to ask it, and return its address; its standard error must be a pipe."""
    assert process.stderr is not None
    said = ""
    while (line := process.stderr.readline()) and not line.startswith("try:"):
        said += line
    address = re.search(r"address: (\S+)", said)
    assert address is not None, said + process.stderr.read()
    return address[1]
