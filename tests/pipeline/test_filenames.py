import json
import subprocess
import sys

import pytest

from pipeline.filenames import EXTENSIONS, for_terminal
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
