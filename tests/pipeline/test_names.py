import pytest

from pipeline.names import for_terminal


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
