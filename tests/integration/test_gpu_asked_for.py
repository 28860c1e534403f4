"""A cluster that claims GPUs which PyTorch does not find."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import pictures

CHECKOUT = Path(__file__).parents[2]
ON_RAY = """
import sys
import ray
from jobs import cli
ray.init(num_cpus=2, num_gpus=1, log_to_driver=False, logging_level="ERROR")
arguments = ["caption", *sys.argv[1:], "--runner", "ray"]
print(cli.main(arguments), cli.main([*arguments, "--ray.num_gpus", "2"]))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpus_that_are_not_there_fail_the_job_with_a_sentence(tmp_path: Path, captioner: Path) -> None:
    given = [pictures(tmp_path / "in", 2), "--captioner", captioner, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, *map(str, given)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.endswith("2 2\n")
    said = [line for line in done.stderr.splitlines() if line.startswith("shardtalk")]
    assert len(said) == 2
    assert "1 GPUs for each captioner were asked for, and on" in said[0] and "finds no device cuda" in said[0]
    assert "2 GPUs for each captioner were asked for, and the cluster has 1 in all" in said[1]
    assert not (tmp_path / "out" / "_job.json").exists()
