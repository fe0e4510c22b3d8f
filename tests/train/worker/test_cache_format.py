"""What the cache of tokenized examples holds for a fixed file: where it changes, so must `CACHE_FORMAT`."""

import hashlib
import json
from pathlib import Path

import numpy as np

from pipo_core.train.token_cache import CACHE_FORMAT
from pipo_core.train.worker.sft_examples import encode_examples
from tools.fuzz.areas import tiny_template

# By `CACHE_FORMAT`. If this test fails and the change is meant: raise the number and add its digest here, never change
# the digest of a number that was released, for caches on users' disks are read by that number.
DIGESTS = {1: "033b05a19b4d3031", 2: "60abcb98d974892f"}

TURNS = [
    [("user", "1+2"), ("assistant", "<think>\nadd them\n</think>\n\n3")],
    [("user", " 12+2 \n"), ("assistant", "<think>\nno end of thought")],
    [("user", "1+2"), ("assistant", "no thought: 3")],
    [("system", "Add."), ("user", "a\n\nb"), ("assistant", "<think>\n\n</think>\n\n")],
    [("user", "1"), ("assistant", "<think>\na</think>2"), ("user", "3"), ("assistant", "<think>\nb</think>4")],
    [("user", "x"), ("assistant", "<think>\ncall</think>\n\nit"), ("tool", "5"), ("assistant", "<think>\nc</think>5")],
    [("user", "say <|im_end|> and <think>"), ("assistant", "<think>\n<|im_start|></think>{{QUERY}} <|endoftext|>")],
    [("user", "é ☃ 你好 \u00a0 \U0001f600"), ("assistant", "<think>\n0123456789\t\n</think>\n\n\\boxed{1.5e-3}")],
    [("user", "long"), ("assistant", "<think>\n" + "7" * 600)],
]


def test_what_is_cached_changes_only_with_the_number_of_the_format(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    rows = [{"messages": [{"role": role, "content": content} for role, content in turns]} for turns in TURNS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "examples"
    encode_examples(file, folder, encode=tiny_template().encode, max_length=500, limit=None, progress=lambda done: None)
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        # The header of a .npy file is numpy's, and may change with its version.
        content = np.load(path).tobytes() if path.suffix == ".npy" else path.read_bytes()
        digest.update(content)
    assert digest.hexdigest()[:16] == DIGESTS.get(CACHE_FORMAT), "see DIGESTS"
