from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from configs.caption import CaptionConfig
from configs.errors import ConfigError
from configs.loading.building import build
from configs.optimizer import Optimizer
from configs.search import Search
from configs.stage import Stage
from configs.train import TrainConfig


def test_values_may_be_objects_of_python() -> None:
    given = {"output": Path("out"), "inputs": ("a", Path("b")), "captioner": Path("c"), "search": Search(beam_size=3)}
    expected = CaptionConfig(output="out", inputs=["a", "b"], captioner=["c"], search=Search(beam_size=3))
    assert build(CaptionConfig, MappingProxyType(given)) == expected


def test_a_section_that_is_given_in_part_has_the_rest_of_its_default() -> None:
    stages = [{"name": "a", "cnn": {"beta1": "0.5"}}, Stage(name="b", epochs=2)]
    built = build(TrainConfig, {"data": "d", "output": "o", "stages": stages}).stages
    assert built == [Stage(name="a", cnn=Optimizer(learning_rate=0.0, beta1=0.5)), Stage(name="b", epochs=2)]


def test_what_is_given_is_not_changed() -> None:
    given: dict[str, Any] = {"output": "o", "inputs": "a", "search": {"beam_size": "3"}}
    build(CaptionConfig, given)
    assert given == {"output": "o", "inputs": "a", "search": {"beam_size": "3"}}


@pytest.mark.parametrize("value", [None, True, [1], {"a": 1}, "", "3.5"])
def test_a_value_of_another_type_is_a_mistake(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^search.beam_size is "):
        build(CaptionConfig, {"output": "o", "search": {"beam_size": value}})
