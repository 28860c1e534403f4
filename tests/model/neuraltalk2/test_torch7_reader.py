"""Torch7 files: written by Torch, other valid ones, and invalid ones."""

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch7_files import CHECKPOINTS, FIXTURES, Code, Obj, Storage, Tensor, dumps

from model.errors import CheckpointError
from model.neuraltalk2 import torch7_reader
from model.neuraltalk2.torch7_reader import read
from model.neuraltalk2.torch7_values import LuaFunction, LuaTable

FORMS: dict[str, dict[str, Any]] = {"binary": {}, "ascii": {"text": True}, "32 bits": {"long_bytes": 4}}
Loads = Callable[[object], Any]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> dict[str, Any]:
    return FORMS[request.param]


@pytest.fixture
def loads(tmp_path: Path, form: dict[str, Any]) -> Loads:
    """Writes a value in one of the encodings, and reads it."""

    def through_a_file(value: object) -> Any:
        (tmp_path / "x.t7").write_bytes(dumps(value, **form))
        return read(tmp_path / "x.t7")

    return through_a_file


def read_bytes(data: bytes, folder: Path) -> Any:
    path = folder / "x.t7"
    path.write_bytes(data)
    return read(path)


def refused(data: bytes, folder: Path) -> tuple[int, str]:
    """Returns the offset that the error names, and its text."""
    with pytest.raises(CheckpointError) as raised:
        read_bytes(data, folder)
    found = re.search(r"at byte (\d+), ", str(raised.value))
    assert found, raised.value
    return int(found[1]), str(raised.value)


@pytest.mark.parametrize("name", ["A.t7", "A_ascii.t7", "D_cuda.t7"])
def test_weights_are_those_that_torch_reads(name: str) -> None:
    protos = read(CHECKPOINTS / name).get("protos")  # type: ignore[union-attr]
    layers = protos.get("cnn").get("modules").sequence()
    nodes = [node.get("data") for node in protos.get("lm").get("core").get("forwardnodes").sequence()]
    named = {node.get("annotations").get("name"): node.get("module") for node in nodes if node.get("annotations")}
    named["lookup_table"] = protos.get("lm").get("lookup_table")
    expected = np.load(FIXTURES / "weights" / "A.npz")
    assert len(expected.files) == 21
    for key in expected.files:
        part, place, *_, kind = key.split(".")
        owner = layers[int(place) - 1] if part == "cnn" else named[place]
        np.testing.assert_array_equal(owner.get(kind), expected[key])


def test_both_forms_of_a_checkpoint_hold_the_same() -> None:
    binary, text = (read(CHECKPOINTS / name) for name in ("A.t7", "A_ascii.t7"))
    seen = set()

    def compare(one: Any, other: Any) -> None:
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
        elif isinstance(one, LuaTable):
            if id(one) in seen:
                return
            seen.add(id(one))
            assert (one.class_name, list(one.fields), len(one.others)) == (
                other.class_name,
                list(other.fields),
                len(other.others),
            )
            for key in one.fields:
                compare(one.fields[key], other.fields[key])
            for number in one.items:
                compare(one.items[number], other.items[number])
        else:
            assert one == other

    compare(binary, text)
    assert len(seen) > 100


@pytest.mark.parametrize("value", [None, True, False, 0.0, -2.5, 1e300, "", "dog", "naïve\nज्ञान", float("inf")])
def test_plain_values(value: object, loads: Loads) -> None:
    found = loads(value)
    assert found == value
    assert type(found) is type(value)


def test_bytes_that_are_no_utf8_survive(loads: Loads) -> None:
    assert loads(b"\xff\x00a").encode(errors="surrogateescape") == b"\xff\x00a"


def test_tables_have_keys_of_every_kind(loads: Loads) -> None:
    table = loads({"a": 1, 1: "one", 2: "two", 4: "four", 0.5: "half", Obj("nn.Key", {}): "object"})
    assert table.fields == {"a": 1.0}
    assert table.sequence() == ["one", "two"]
    assert (table.items[4], table.items[0.5]) == ("four", "half")
    ((key, value),) = table.others
    assert (key.class_name, value) == ("nn.Key", "object")


def test_true_is_not_one(loads: Loads) -> None:
    table = loads({True: "truth"})
    assert (table.items, table.others) == ({}, [(True, "truth")])


@pytest.mark.parametrize("prefix", ["", "Cuda"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_tensors_of_every_type(kind: str, prefix: str, loads: Loads) -> None:
    values = np.array([[1, 10, 65], [0, 32, 127]], f"<{kind}")
    if kind[0] == "f":
        values = values / values.dtype.type(-3)
    found = loads(Tensor(values.reshape(-1), (2, 3), (3, 1), prefix=prefix))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_not_a_number_is_a_number(loads: Loads) -> None:
    np.testing.assert_array_equal(loads(np.array([np.nan, -np.inf, np.inf, 3])), [np.nan, -np.inf, np.inf, 3])


def test_views_share_their_storage(loads: Loads) -> None:
    storage = np.arange(24, dtype=np.float32)
    table = loads(
        {
            "rows": Tensor(storage, (2, 3), (3, 1), offset=4),
            "transposed": Tensor(storage, (3, 2), (1, 3), offset=4),
            "repeated": Tensor(storage, (5, 2), (0, 1), offset=22),
            "none": Tensor(None, (), ()),
        }
    )
    rows, transposed, repeated = (table.get(name) for name in ("rows", "transposed", "repeated"))
    np.testing.assert_array_equal(rows, [[4, 5, 6], [7, 8, 9]])
    np.testing.assert_array_equal(transposed, rows.T)
    np.testing.assert_array_equal(repeated, [[22, 23]] * 5)
    assert np.shares_memory(rows, transposed)
    assert table.get("none").shape == (0,)


def test_a_storage_stands_alone(loads: Loads) -> None:
    assert loads({"size": Storage([-1, 7])}).get("size").tolist() == [-1, 7]
    assert loads(Storage([])).tolist() == []


def test_an_object_seen_before_is_the_same(loads: Loads) -> None:
    shared, tensor = {"x": 1}, np.ones(2)
    table = loads({1: shared, 2: shared, 3: tensor, 4: tensor, 5: Obj("nn.A", {"of": shared})})
    one, two, three, four, five = table.sequence()
    assert one is two is five.get("of")
    assert three is four


def test_a_table_may_hold_itself(loads: Loads) -> None:
    node: dict[str, Any] = {"name": "n"}
    node["children"] = {1: node}
    found = loads(node)
    assert found.get("children").items[1] is found


@pytest.mark.parametrize("tag", [6, 7, 8])
def test_functions_are_skipped(tag: int, loads: Loads) -> None:
    shared = {"x": 1}
    code = Code(b"\x1bLJ\x01 os.execute('touch ran')\n", {1: shared}, tag)
    table = loads({1: code, 2: code, 3: shared, 4: "after"})
    assert isinstance(table.items[1], LuaFunction)
    assert table.items[3].get("x") == 1
    assert table.items[4] == "after"


def test_objects_are_plain_records(loads: Loads) -> None:
    found = loads(Obj("cudnn.SpatialConvolution", {"kW": 3, 1: "x"}))
    assert (found.class_name, found.get("kW"), found.sequence()) == ("cudnn.SpatialConvolution", 3.0, ["x"])
    assert loads(Obj("nn.Old", {"a": 1}, version="")).class_name == "nn.Old"  # from before there were versions


def test_nesting_needs_no_recursion(loads: Loads) -> None:
    value: dict[str, Any] = {}
    writable = 200  # the writer is recursive
    for _ in range(writable):
        value = {"in": value}
    found = loads(value)
    for _ in range(writable):
        found = found.get("in")
    assert found.fields == {}


def nested(levels: int) -> bytes:
    return b"".join(struct.pack("<iiiid", 3, i + 1, 1, 1, 1.0) for i in range(levels)) + struct.pack("<i", 0)


def test_deep_nesting_ends_in_an_error(tmp_path: Path) -> None:
    assert isinstance(read_bytes(nested(torch7_reader.MAX_DEPTH), tmp_path), LuaTable)
    offset, said = refused(nested(torch7_reader.MAX_DEPTH + 1000), tmp_path)
    assert "nested deeper" in said
    assert offset < 24 * (torch7_reader.MAX_DEPTH + 2)


def test_too_many_values_end_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch7_reader, "MAX_VALUES", 99)
    assert len(read_bytes(dumps(dict.fromkeys(range(49))), tmp_path).items) == 49
    assert "more than 99 values" in refused(dumps(dict.fromkeys(range(50))), tmp_path)[1]


SAMPLE = {
    "opt": {"id": "x", "flag": True, 1: 2.5},
    "cnn": Obj("nn.Linear", {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "size": Storage([3, 4])}),
    "f": Code(b"code", {}),
    "byte": np.arange(5, dtype=np.uint8),
}


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, form: dict[str, Any]) -> None:
    whole = dumps(SAMPLE, **form)
    for size in range(len(whole)):
        offset, _ = refused(whole[:size], tmp_path)
        assert offset <= size


def test_what_follows_the_object_is_refused(tmp_path: Path, form: dict[str, Any]) -> None:
    whole = dumps(SAMPLE, **form)
    offset, said = refused(whole + b"xyz", tmp_path)
    assert "3 bytes follow" in said and offset == len(whole)


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def longs(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def name(text: str) -> bytes:
    return ints(len(text)) + text.encode()


def tensor(sizes: list[int], strides: list[int], offset: int, storage: bytes, kind: str = "Float") -> bytes:
    head = ints(4, 1) + name("V 1") + name(f"torch.{kind}Tensor") + ints(len(sizes))
    return head + longs(*sizes, *strides, offset) + storage


def storage(count: int, data: bytes, kind: str = "Float", index: int = 2) -> bytes:
    return ints(4, index) + name("V 1") + name(f"torch.{kind}Storage") + longs(count) + data


FOUR = storage(4, bytes(16))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04" + bytes(30), "a zip file begins; unpack it"),
        (b"\x89HDF\r\n\x1a\n", "no type of value"),
        (ints(9), "9 is no type"),
        (ints(-1), "-1 is no type"),
        (ints(2, -5), "-5 of something"),
        (ints(2, 1 << 30), "bytes should follow"),
        (ints(5, 2), "2 is no boolean"),
        (ints(3, 1, 1 << 30), "bytes should follow"),
        (ints(3, 1, -1), "-1 of something"),
        (ints(3, 1, 1, 0, 0), "None is the key"),
        (ints(3, 1, 1, 1) + struct.pack("<d", float("nan")) + ints(0), "nan is the key"),
        (ints(6, 1 << 30), "bytes should follow"),
        (ints(4, 1) + name("V 1") + name("torch.Generator") + bytes(99), "class 'torch.Generator' is not known"),
        (ints(4, 1) + name("V 1") + name("nn.X") + ints(0), "'nn.X' holds no table"),
        (ints(4, 1) + name("V 1") + name("nn.X") + ints(4, 1), "'nn.X' holds no table"),
        (ints(3, 1, 1, 5, 1, 4, 1), "object 1 is of type 3 and referred to as of type 4"),
        (tensor([1 << 40], [1], 1, FOUR), "beyond its storage of 4"),
        (tensor([5], [1], 1, FOUR), "beyond its storage of 4"),
        (tensor([2], [1], 4, FOUR), "beyond its storage of 4"),
        (tensor([2, 2], [3, 1], 1, FOUR), "beyond its storage of 4"),
        (tensor([1 << 20, 1 << 20], [0, 0], 1, FOUR), "beyond its storage of 4"),
        (tensor([2], [-1], 2, FOUR), "strides"),
        (tensor([-2], [1], 1, FOUR), "strides"),
        (tensor([2], [1], 0, FOUR), "strides"),
        (tensor([2], [1], 1, ints(0)), "beyond its storage of 0"),
        (tensor([2], [1], 1, ints(4, 1)) + name("V 1") + name("nn.X"), "storage is of class 'nn.X'"),
        (tensor([2], [1], 1, ints(3, 2, 0)), "storage is of type 3"),
        (tensor([2], [1], 1, storage(2, bytes(16), "Double")), "object 2 is no storage of this tensor's elements"),
        (tensor([2], [1], 1, storage(1 << 60, b"")), "bytes should follow"),
        (tensor([2], [1], 1, storage(-1, b"")), "-1 of something"),
        (tensor([1] * 65, [1] * 65, 1, FOUR), "65 dimensions"),
        (ints(4, 1) + name("V 1") + name("torch.FloatTensor") + ints(-1), "-1 dimensions"),
        (b"1\nabc\n", "no numbers"),
        (b"3\n1\n1000000\n", "bytes should follow"),
        (b"2\n3\nabcd\n", "a line should end here"),
        (b"1\n1 2\n", "a line with one number"),
        (b"1\n" + b"1" * 999, "a line with one number"),
        (b"4\n1\n3\nV 1\n19\ntorch.DoubleStorage\n3\n1 2\n", "bytes should follow"),
        (b"4\n1\n3\nV 1\n19\ntorch.DoubleStorage\n3\n1 2 3 4\n", "3 numbers should stand here"),
        (b"4\n1\n3\nV 1\n19\ntorch.DoubleStorage\n3\n1 " + b"2" * 99 + b"\n", "no number"),
        (b"4\n1\n3\nV 1\n17\ntorch.LongStorage\n2\n1 1.5\n", "no numbers"),
        (b"4\n1\n3\nV 1\n17\ntorch.LongStorage\n1\n99999999999999999999\n", "no numbers"),
    ],
)
def test_damage_is_named(data: bytes, reason: str, tmp_path: Path) -> None:
    offset, said = refused(data, tmp_path)
    assert reason in said
    assert offset <= len(data)


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(b"", tmp_path)[0] == 0
    with pytest.raises(CheckpointError, match=r"nothing\.t7 cannot be read"):
        read(tmp_path / "nothing.t7")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["A.t7", "A_ascii.t7", "sample", "sample of 32 bits"])
def test_damaged_files_end_in_an_error_or_are_read_in_little_memory(name: str, tmp_path: Path) -> None:
    whole = (
        (CHECKPOINTS / name).read_bytes()
        if name.endswith("t7")
        else dumps(SAMPLE, long_bytes=4 if name.endswith("bits") else 8)
    )
    structure = len(whole) if name.startswith("sample") else 20_000  # later bytes are mostly weights
    random = np.random.default_rng(7)
    errors = 0
    tracemalloc.start()
    for _ in range(50 if name.endswith("t7") else 400):
        damaged = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            place = random.integers(structure)
            damaged[place] = random.choice([random.integers(256), 0, 255, damaged[place] ^ 1, 0x31])
        if random.integers(4) == 0:
            start, length = random.integers(structure), random.integers(1, 40)
            del damaged[start : start + length]
        try:
            read_bytes(bytes(damaged), tmp_path)
        except CheckpointError:
            errors += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert errors > 10
    assert peak < 32 << 20


def test_a_large_tensor_is_in_memory_once(tmp_path: Path) -> None:
    values = np.arange(2_000_000, dtype=np.float32)
    (tmp_path / "x.t7").write_bytes(dumps({"weight": values.reshape(1000, 2000)}))
    tracemalloc.start()
    found = read(tmp_path / "x.t7")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.get("weight").reshape(-1), values)  # type: ignore[union-attr]
    assert peak < values.nbytes + (1 << 20)
