import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.parsing import parse


@dataclass(frozen=True)
class Inner:
    """A section."""

    batch_images: int = 3
    """Images per step."""

    mirror: bool = False
    """Whether to."""

    def __post_init__(self) -> None:
        if self.batch_images < 1:
            raise ConfigError(f"batch_images is {self.batch_images}; give at least 1")


@dataclass(frozen=True)
class Outer:
    """A job."""

    inputs: list[str] = field(default_factory=list)
    """What to read."""
    num_val: int = 0
    """Images to validate on."""
    file_name: str = "a"
    """A name."""
    dry: bool = False
    """Whether to do nothing."""
    inner: Inner = field(default_factory=Inner)
    """A section."""
    speaker: list[str] | str = "one"
    """One or more."""


def parsed(*argv: str) -> Outer:
    return parse(Outer, list(argv), prog="test", positional="inputs")


@pytest.mark.parametrize(
    "argv", [("--num-val", "7"), ("--num_val", "7"), ("--num-val=7",), ("--num_val=7",)], ids=" ".join
)
def test_options_take_dashes_as_underscores(argv: tuple[str, ...]) -> None:
    assert parsed(*argv, "x").num_val == 7


def test_options_of_a_section_take_dashes_too() -> None:
    assert parsed("--inner.batch-images", "5", "x").inner == Inner(batch_images=5)


@pytest.mark.parametrize(
    ("argv", "dry", "mirror"),
    [
        (("--dry", "x"), True, False),
        (("x", "--dry"), True, False),
        (("--dry", "--inner.mirror", "x"), True, True),
        (("--dry", "false", "--inner.mirror", "true", "x"), False, True),
        (("--dry=false", "x", "--inner.mirror=true"), False, True),
    ],
)
def test_a_flag_without_a_value_is_true(argv: tuple[str, ...], dry: bool, mirror: bool) -> None:
    assert parsed(*argv) == Outer(inputs=["x"], dry=dry, inner=Inner(mirror=mirror))


def test_dashes_of_values_and_positionals_stay() -> None:
    config = parsed("--file-name=a-b--c", "in-put", "-")
    assert config == Outer(inputs=["in-put", "-"], file_name="a-b--c")


def test_what_follows_a_double_dash_is_no_option() -> None:
    assert parsed("--num-val", "7", "--", "--a-b").inputs == ["--a-b"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "c.yaml"
    path.write_text("inputs: [from-file]\nnum_val: 4\ninner:\n  batch_images: 6\n", encoding="utf-8")
    return str(path)


def test_the_file_may_say_it_all(file: str) -> None:
    assert parsed("--config", file) == Outer(["from-file"], num_val=4, inner=Inner(6))


@pytest.mark.parametrize("front", [True, False])
def test_the_command_line_wins_over_the_file_wherever_it_stands(front: bool, file: str) -> None:
    mine, config = ["x", "--num-val", "5"], ["--config", file]
    assert parsed(*(config + mine if front else mine + config)) == Outer(["x"], num_val=5, inner=Inner(6))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--num-vall", "7", "x"], "did you mean --num_val"),
        (["--num-val", "seven", "x"], "num_val"),
        (["--inner.batch-images", "0", "x"], "batch_images is 0; give at least 1"),
        ([], "no INPUT given"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed(*argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parsed("x").num_val = 1  # type: ignore[misc]


@dataclass(frozen=True)
class Speed:
    """How fast."""

    rate: float = 1.0
    """A second."""


@dataclass(frozen=True)
class Part:
    """A part."""

    name: str = "first"
    """Its name."""
    size: int = 1
    """Its size."""
    hot: bool = False
    """Whether it is hot."""
    speed: Speed = field(default_factory=Speed)
    """How fast."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigError(f"part {self.name} needs size ≥ 0")


@dataclass(frozen=True)
class Whole:
    """Parts."""

    parts: list[Part] = field(default_factory=lambda: [Part(), Part(name="second", size=2)])
    """In their order."""


def whole(*argv: str) -> list[Part]:
    return parse(Whole, list(argv), prog="shardtalk whole").parts


def test_an_entry_of_a_list_is_changed_by_its_name_or_place() -> None:
    assert whole() == [Part(), Part(name="second", size=2)]
    assert whole("--parts.second.size", "7", "--parts.0.speed.rate=2e-3", "--parts.first.hot") == [
        Part(hot=True, speed=Speed(rate=0.002)),
        Part(name="second", size=7),
    ]


def test_the_command_line_changes_a_list_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("parts: [{name: a, size: 3}, {name: b, speed: {rate: 5}}]")
    found = whole("--parts.b.size", "4", "--config", str(tmp_path / "c.yaml"))
    assert found == [Part(name="a", size=3), Part(name="b", size=4, speed=Speed(rate=5.0))]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--parts.third.size=1", "there is no 'third' among the parts: first, second"),
        ("--parts.first.sise=1", "did you mean --parts.NAME.size"),
        ("--parts.first.speed.rat=1", "does not accept option 'rat'"),
        ("--parts.first.size.x=1", "unrecognized arguments: --parts.first.size.x"),
        ("--parts.first.size=many", "Expected a <class 'int'>. Got value: many"),
        ("--parts.first.size=-1", "part first needs size ≥ 0"),
    ],
)
def test_a_mistake_in_an_entry_is_one_line(option: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        whole(option)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert said.startswith("shardtalk whole: error: ") and reason in said


def test_help_names_the_entries_that_are_there_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        whole("--help")
    assert "default: first, second)" in capsys.readouterr().out


def test_an_option_of_which_there_may_be_several_is_gathered(tmp_path: Path) -> None:
    assert parsed("x").speaker == "one"
    assert parsed("x", "--speaker", "a b").speaker == "a b"
    found = parsed("--speaker=a", "x", "y", "--num_val", "3", "--speaker", "b")
    assert found == Outer(["x", "y"], num_val=3, speaker=["a", "b"])
    (tmp_path / "c.yaml").write_text("speaker: [a, b]\n")
    assert parsed("x", "--config", str(tmp_path / "c.yaml")).speaker == ["a", "b"]
    assert parsed("x", "--speaker", "c", "--config", str(tmp_path / "c.yaml")).speaker == "c"
    assert parsed("--", "--speaker", "--speaker").inputs == ["--speaker", "--speaker"]
