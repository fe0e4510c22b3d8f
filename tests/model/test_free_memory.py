from pathlib import Path

import torch

from pipo_core.model.free_memory import cgroup_free, free_bytes


def test_free_memory_is_what_the_control_group_leaves(tmp_path: Path) -> None:
    assert cgroup_free(tmp_path) == 2**62
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 200000\n")
    assert cgroup_free(tmp_path) == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup_free(tmp_path) == 2**62
    old = tmp_path / "old" / "memory"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("1000000\n")
    (old / "memory.usage_in_bytes").write_text("700000\n")
    (old / "memory.stat").write_text("cache 1\ntotal_inactive_file 100000\n")
    assert cgroup_free(tmp_path / "old") == 400_000
    assert 0 < free_bytes(torch.device("cpu")) < 2**50
