import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.loading.command import Command
from configs.loading.parsing import parse


@dataclass(frozen=True)
class Inner:
    """A section."""

    size: int = 3
    """Number of things."""
    mirror: bool = False
    """Mirror the things."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size is {self.size}; give at least 1")


@dataclass(frozen=True)
class Part(Inner):
    """A part."""

    name: str = "first"
    """Name of the part."""
    inner: Inner = field(default_factory=lambda: Inner(size=9))
    """The inside of the part."""


@dataclass(frozen=True)
class Outer:
    """A job.

    It does nothing.
    """

    output: str
    """Folder for nothing."""
    inputs: list[str] = field(default_factory=list)
    """What to read."""
    num_val: int = 0
    """Number of images to validate on."""
    rate: float = 0.5
    """Share of the rest."""
    kind: Literal["", "big", "small"] = ""
    """Kind of job."""
    dry: bool = False
    """Do nothing."""
    words: list[str] = field(default_factory=lambda: ["one"])
    """Words to keep."""
    weights: list[float] = field(default_factory=list)
    """Weights of the words."""
    inner: Inner = field(default_factory=Inner)
    """A section."""
    parts: list[Part] = field(default_factory=lambda: [Part(), Part(name="second-part", size=2)])
    """Parts, in their order."""


COMMAND = Command(
    "test", "", "", positional="inputs", metavar="INPUT…", main=("num_val",), examples=("photos --output out",)
)


def parsed(*argv: str) -> Outer:
    return parse(Outer, ["--output", "out", *argv], COMMAND)


def written(folder: Path, text: str) -> str:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    return str(folder / "c.yaml")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("x", "--num-val", "7"), {"num_val": 7}),
        (("--num_val=7", "x"), {"num_val": 7}),
        (("x", "--inner.size", "5"), {"inner": Inner(size=5)}),
        (("--dry", "x"), {"dry": True}),
        (("--dry", "false", "x"), {"dry": False}),
        (
            ("--inner.mirror=true", "--dry", "--rate", "1e-3", "x"),
            {"inner": Inner(mirror=True), "dry": True, "rate": 1e-3},
        ),
        (("--kind", "big", "x"), {"kind": "big"}),
        (("--words", "a,b", "x"), {"words": ["a", "b"]}),
        (("--words=a", "x", "--words", "b-c"), {"words": ["a", "b-c"]}),
        (("--weights", "0.7,3", "x"), {"weights": [0.7, 3.0]}),
        (("a-b", "-", "c,d", "--", "--e"), {"inputs": ["a-b", "-", "c,d", "--e"]}),
    ],
    ids=" ".join,
)
def test_the_command_line_fills_the_configuration(argv: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert parsed(*argv) == Outer(**{"output": "out", "inputs": ["x"]} | expected)


@pytest.mark.parametrize("front", [True, False])
def test_the_command_line_wins_over_the_file_wherever_it_stands(front: bool, tmp_path: Path) -> None:
    file = [
        "--config",
        written(tmp_path, "inputs: [f]\nnum_val: 4\nrate: 1\nwords: a\ninner: {size: 6, mirror: true}\n"),
    ]
    mine = ["--num-val", "5", "--inner.size", "7"]
    expected = Outer("out", ["f"], num_val=5, rate=1.0, words=["a"], inner=Inner(size=7, mirror=True))
    assert parsed(*(file + mine if front else mine + file)) == expected


def test_an_entry_of_a_list_is_changed_by_its_name() -> None:
    found = parsed("x", "--parts.second-part.size", "7", "--parts.first.inner.mirror", "--parts.first.size=4").parts
    assert found == [Part(size=4, inner=Inner(size=9, mirror=True)), Part(name="second-part", size=7)]


def test_a_list_in_a_file_replaces_the_default_and_the_command_line_changes_it(tmp_path: Path) -> None:
    file = written(tmp_path, "parts: [{name: a, size: 3}, {name: b, inner: {mirror: true}}]")
    found = parsed("x", "--parts.b.size", "4", "--config", file).parts
    assert found == [Part(name="a", size=3), Part(name="b", size=4, inner=Inner(size=9, mirror=True))]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--num-vall", "7"], "there is no option --num-vall; did you mean --num_val?"),
        (["--sise", "7"], "there is no option --sise"),
        (["-o", "y"], "there is no option -o; did you mean --output?"),
        (["--num-val", "seven"], "num_val is 'seven'; it must be a valid integer"),
        (["--rate", "x"], "rate is 'x'; it must be a valid number"),
        (["--dry=maybe"], "dry is 'maybe'; it must be a valid boolean"),
        (["--kind", "huge"], "argument --kind: invalid choice: 'huge'"),
        (["--inner.size", "0"], "size is 0; give at least 1"),
        (["--inner", "5"], "there is no option --inner; did you mean --inner.size or --inner.mirror?"),
        (["--num-val"], "argument --num_val: expected one argument"),
        (["--num-val", "--dry"], "argument --num_val: expected one argument"),
        (["--parts.third.size=1"], "--parts.third.size: parts has first, second_part, and no third"),
        (["--parts.third-part.sise", "1"], "--parts.third-part.sise: parts has first, second_part, and no third-part"),
        (["--parts.second-part.sise=1"], "no option --parts.second-part.sise; did you mean --parts.second-part.size"),
        (["--parts.first.sise=1"], "did you mean --parts.first.size"),
        (["--parts.first.inner.x=1"], "there is no option --parts.first.inner.x"),
        (["--iner.size=1"], "there is no option --iner.size; did you mean --inner.size?"),
        (["--inner.size.x.y=1"], "there is no option --inner.size.x.y"),
        (["--a.b.c=1"], "there is no option --a.b.c"),
        (["--parts=a"], "there is no option --parts; did you mean --parts.first.size"),
        (["--parts.first.size=many"], "parts.first.size is 'many'; it must be a valid integer"),
    ],
)
def test_a_mistake_is_named(argv: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parsed("x", *argv)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "c.yaml is empty; it must hold options"),
        ("- a\n", "c.yaml holds ['a']; it must hold options"),
        ("num_val: 3\n  rate: [1\n", 'c.yaml", line 2'),
        ("num_vall: 3\n", "there is no option --num_vall; did you mean --num_val?"),
        ("inner: 3\n", "inner is 3, but it has options of its own, such as inner.size"),
        ("words: {a: b}\n", "words is {'a': 'b'}; it must be a valid string"),
        ("kind: huge\n", "kind is 'huge'; it must be '', 'big' or 'small'"),
        ("parts: [{name: a, sise: 3}]\n", "there is no option --parts.a.sise; did you mean --parts.a.size"),
        ("parts: [{name: a-b, sise: 3}]\n", "there is no option --parts.a-b.sise; did you mean --parts.a-b.size"),
        ("parts: [{name: a-b, size: many}]\n", "parts.a-b.size is 'many'; it must be a valid integer"),
        ("parts: [{size: 0}]\n", "size is 0; give at least 1"),
        ("num_val: 1.5\n", "num_val is 1.5; it must be a valid integer"),
    ],
)
def test_a_mistake_in_a_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        parsed("x", "--config", written(tmp_path, text))
    assert said in str(raised.value)


def test_what_must_be_given_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="`--output FOLDER` is missing"):
        parse(Outer, ["x"], COMMAND)
    with pytest.raises(ConfigError, match="`--output FOLDER` is missing"):
        parse(Outer, ["x", "--output", ""], COMMAND)
    with pytest.raises(ConfigError, match="no INPUT… given; an example is: shardtalk test photos --output out"):
        parsed()
    with pytest.raises(ConfigError, match="INPUT… is an empty text"):
        parsed("")


def test_a_path_with_a_space_that_has_lost_its_quotes_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    with pytest.raises(ConfigError, match="put quotes around it"):
        parsed(f"{tmp_path}/my", "photos")


@given(st.lists(st.text("abinerstpz.-_=,0/", max_size=12).map("--".__add__) | st.text(max_size=5), max_size=4))
@settings(suppress_health_check=list(HealthCheck), deadline=None)
def test_whatever_is_given_is_parsed_or_a_mistake(argv: list[str]) -> None:
    with contextlib.suppress(ConfigError, SystemExit):
        parsed(*argv)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parsed("x").num_val = 1  # type: ignore[misc]


def helped(capsys: pytest.CaptureFixture[str], option: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parsed(option)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_describes_the_main_options_and_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    said = helped(capsys, "--help")
    assert said.startswith("usage: shardtalk test INPUT… --output FOLDER [options]\n\nA job.\n\nIt does nothing.\n")
    assert "examples:\n  shardtalk test photos --output out\n" in said
    assert "--num_val N\n      Number of images to validate on. Default: 0.\n" in said
    assert "words, weights, inner.size" in said and "Mirror the things." not in said


def test_all_options_are_described_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    said = helped(capsys, "--help-all")
    assert "--kind {big,small}\n      Kind of job.\n" in said
    assert "--parts.NAME.inner.size N\n      Number of things. Default: 9.\n" in said
    assert "--parts.NAME.mirror [true|false]\n      Mirror the things. Default: false.\n" in said
