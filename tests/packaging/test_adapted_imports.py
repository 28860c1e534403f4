"""The build adapts import statements, and leaves all other lines unchanged."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from hatch_build import adapted


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("from model.captioner import Captioner", "from shardtalk.model.captioner import Captioner"),
        ("if x:\n    from  jobs import (\n  cli,\n)", "if x:\n    from  shardtalk.jobs import (\n  cli,\n)"),
        ("import configs", "from shardtalk import configs"),
        ("import model.errors as errors", "import shardtalk.model.errors as errors"),
        ("é = 1; from pipeline import io", "é = 1; from shardtalk.pipeline import io"),
        ("from models.x import y", "from models.x import y"),
        ("from . import model", "from . import model"),
        ("from shardtalk.outputs import read", "from shardtalk.outputs import read"),
        ('"""from model import x"""\r\n', '"""from model import x"""\r\n'),
    ],
)
def test_our_packages_get_a_prefix_in_imports_only(written: str, expected: str) -> None:
    assert adapted(written, "m.py") == expected


@pytest.mark.parametrize("statement", ["import model.captioner", "import os, model"])
def test_imports_that_would_bind_another_name_are_refused(statement: str) -> None:
    with pytest.raises(ValueError, match=r"m.py:2: .*import by `from`"):
        adapted(f"\n{statement}\n", "m.py")
