from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.storage.paths import normalize_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("file:///in/a.tar", "/in/a.tar"),
        ("FILE://localhost/in/*.tar", "/in/*.tar"),
        ("file:///in/a%20b", "/in/a b"),
        ("s3://bucket/in/../out", "s3://bucket/in/../out"),
        ("in/a..b", "in/a..b"),
        ("relative", "relative"),
        ("/nowhere/x/../in", "/nowhere/in"),
        ("/nowhere/x/../s-{0..3}.tar", "/nowhere/s-{0..3}.tar"),
    ],
)
def test_other_ways_to_write_a_path(name: str, expected: str) -> None:
    assert normalize_path(name) == expected


def test_a_percent_sign_of_a_files_own_name_stays(tmp_path: Path) -> None:
    (tmp_path / "a%20b").write_text("")
    assert normalize_path(f"file://{tmp_path}/a%20b") == f"{tmp_path}/a%20b"


def test_the_folder_above_a_link_is_that_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    assert normalize_path(f"{tmp_path}/link/../in") == f"{tmp_path}/real/in"


def test_a_file_on_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match="another machine"):
        normalize_path("file://server/in")
