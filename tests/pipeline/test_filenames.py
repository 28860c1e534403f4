import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.filenames import EXTENSIONS, for_terminal, normalize_path
from pipeline.images.formats import FORMATS


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("Grüße 犬.jpg", "Grüße 犬.jpg"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred\x9b0m\x7f", "\\x1b[31mred\\x9b0m\\x7f"),
        ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("f\udcff.jpg", "f\\xff.jpg"),
        ("", ""),
    ],
)
def test_what_a_terminal_gets(name: str, shown: str) -> None:
    assert for_terminal(name) == shown


def test_no_extension_of_a_format_that_is_decoded_is_left_out() -> None:
    code = "import json; from PIL import Image; Image.init(); print(json.dumps(Image.registered_extensions()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    known = {extension.removeprefix(".") for extension, form in json.loads(done.stdout).items() if form in FORMATS}
    assert "jpg" in known and known - EXTENSIONS == set()


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
