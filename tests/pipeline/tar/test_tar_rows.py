"""The rows of tars with links, sparse files and damage, wherever a reader begins."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import tar_bytes

from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.readers.reader import read
from pipeline.readers.splitting import split_spans
from pipeline.shards import Shard, Span
from pipeline.tar.headers import MAX_EXTENDED_BYTES
from pipeline.tar.walk import MAX_EXTENDED_HEADERS

BLOCK = 512
Row = dict[str, object]
TEN = [(f"{i:04d}.jpg", bytes([i + 1]) * 700) for i in range(10)]


def shard(path: Path, data: bytes | bytearray) -> Shard:
    path.write_bytes(data)
    return Shard(str(path), "", len(data), 0)


def rows(*spans: Span, options: ReadOptions = DEFAULTS) -> list[Row]:
    return [
        row for table in read(spans, batch_size=3, options=options) for row in table.drop_columns("read_s").to_pylist()
    ]


def found(path: Path, data: bytes | bytearray) -> list[tuple[object, object]]:
    """Returns id and image, or error code, of each row, checked from every first row on."""
    span = Span(shard(path, data))
    whole = rows(span)
    for number, row in enumerate(whole[:-1], start=1):
        assert rows(Span(span.shard, number, int(str(row["next_offset"])))) == whole[number:]
    assert rows(*split_spans([span], min_pieces=99, piece_bytes=1)) == whole
    return [(row["image_id"], row["error_code"] or row["image"]) for row in whole]


def linked(*members: tuple[str, bytes] | tuple[str, bytes, str]) -> bytes:
    """Builds a tar of files (name, data) and links (name, type, target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data, *target in members:
            info = tarfile.TarInfo(name)
            if target:
                info.type, info.linkname = data, target[0]
            info.size = 0 if target else len(data)
            tar.addfile(info, None if target else io.BytesIO(data))
    return buffer.getvalue()


HARD, SYMBOLIC = tarfile.LNKTYPE, tarfile.SYMTYPE
DANGLING = "no_image"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("a.jpg", b"A"), ("b.jpg", HARD, "a.jpg")], [("a", b"A"), ("b", b"A")]),
        ([("d/a.jpg", b"A"), ("d/b.jpg", SYMBOLIC, "a.jpg")], [("d/a", b"A"), ("d/b", b"A")]),
        ([("d/a.jpg", b"A"), ("e/b.jpg", SYMBOLIC, "../d/./a.jpg")], [("d/a", b"A"), ("e/b", b"A")]),
        ([("./a.jpg", b"A"), ("./b.jpg", HARD, "a.jpg")], [("./a", b"A"), ("./b", b"A")]),
        ([("b.jpg", SYMBOLIC, "a.jpg"), ("a.jpg", b"A")], [("b", b"A"), ("a", b"A")]),
        ([("b.jpg", HARD, "a.jpg"), ("a.jpg", b"A")], [("b", b"A"), ("a", b"A")]),
        ([("a.bin", b"A"), ("b.bin", HARD, "a.bin"), ("c.jpg", SYMBOLIC, "b.bin")], [("c", b"A")]),
        ([("a.jpg", b"1"), ("b.jpg", HARD, "a.jpg"), ("a.jpg", b"2")], [("a", b"1"), ("b", b"1"), ("a.jpg", b"2")]),
        ([("a.jpg", b"1"), ("b.jpg", SYMBOLIC, "a.jpg"), ("a.jpg", b"2")], [("a", b"1"), ("b", b"2"), ("a.jpg", b"2")]),
        (
            [("v1/a.jpg", b"A"), ("new", SYMBOLIC, "v1"), ("b.jpg", SYMBOLIC, "new/a.jpg")],
            [("v1/a", b"A"), ("b", b"A")],
        ),
        (
            [("v1/x/a.jpg", b"A"), ("new", SYMBOLIC, "v1"), ("b.jpg", SYMBOLIC, "new/x/a.jpg")],
            [("v1/x/a", b"A"), ("b", b"A")],
        ),
        ([("a.jpg", b"A"), ("a.jpg", HARD, "a.jpg")], [("a", b"A"), ("a.jpg", b"A")]),
        ([("a.jpg", b"A"), ("b.jpg", SYMBOLIC, "c.jpg")], [("a", b"A"), ("b", DANGLING)]),
        ([("a.jpg", SYMBOLIC, "b.jpg"), ("b.jpg", SYMBOLIC, "a.jpg")], [("a", DANGLING), ("b", DANGLING)]),
        ([("a.jpg", SYMBOLIC, "a.jpg")], [("a", DANGLING)]),
        ([("d", tarfile.DIRTYPE, ""), ("a.jpg", SYMBOLIC, "d")], [("a", DANGLING)]),
        (
            [("a.jpg", SYMBOLIC, "/etc/passwd"), ("b.jpg", SYMBOLIC, "../../etc/passwd")],
            [("a", DANGLING), ("b", DANGLING)],
        ),
    ],
)
def test_a_link_is_its_targets_image(members: list[tuple[str, bytes]], expected: object, tmp_path: Path) -> None:
    assert found(tmp_path / "s.tar", linked(*members)) == expected


def test_a_sibling_may_be_a_link(tmp_path: Path) -> None:
    data = linked(("all.txt", b"said"), ("a.jpg", b"A"), ("a.txt", SYMBOLIC, "all.txt"), ("b.jpg", b"B"))
    siblings = [row["siblings"] for row in rows(Span(shard(tmp_path / "s.tar", data)), options=ReadOptions(("txt",)))]
    assert siblings == ['{"txt": "said"}', None]


@pytest.mark.parametrize("form", ["gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_a_sparse_file_is_unpacked(form: str, tmp_path: Path) -> None:
    with (tmp_path / "holes.jpg").open("wb") as file:  # of more parts than a header has room for
        for part in range(30):
            file.seek(65536 * (2 * part + 1))
            file.write(bytes([part + 1]) * 4096)
        file.truncate(5 << 20)
    (tmp_path / "z.jpg").write_bytes(b"Z")
    kind, _, version = form.partition(" ")
    options = [f"--format={kind}", *([f"--sparse-version={version}"] if version else [])]
    command = ["tar", "-S", *options, "-C", tmp_path, "-cf", tmp_path / "s.tar", "holes.jpg", "z.jpg"]
    subprocess.run(command, check=True)
    data = (tmp_path / "s.tar").read_bytes()
    assert len(data) < 1 << 20
    assert found(tmp_path / "s.tar", data) == [("holes", (tmp_path / "holes.jpg").read_bytes()), ("z", b"Z")]
    small = ReadOptions(max_image_bytes=1 << 20)
    assert [row["error_code"] for row in rows(Span(shard(tmp_path / "s.tar", data)), options=small)] == [
        "too_large",
        None,
    ]


def test_what_lies_behind_the_map_of_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "holes.jpg").open("wb") as file:
        for part in range(10):  # four in the header, and six in the block behind it
            file.seek(65536 * part)
            file.write(bytes([part + 1]) * 4096)
    command = ["tar", "-S", "--format=gnu", "-C", tmp_path, "-cf", tmp_path / "s.tar", "holes.jpg"]
    subprocess.run(command, check=True)
    data = bytearray((tmp_path / "s.tar").read_bytes())
    data[512 + 9 * 24 : 512 + 20 * 24] = b'"' * (11 * 24)
    whole = (tmp_path / "holes.jpg").read_bytes()
    assert found(tmp_path / "s.tar", bytes(data)) == [("holes", whole)]
    subprocess.run(["tar", "-C", tmp_path, "-xf", tmp_path / "s.tar"], check=True)
    assert (tmp_path / "holes.jpg").read_bytes() == whole


def sparse(data: bytes, **records: str) -> bytes:
    """Builds a tar of one image of 200 bytes that PAX records describe."""
    info = tarfile.TarInfo("a.jpg")
    info.size = len(data)
    info.pax_headers = {f"GNU.sparse.{name}": value for name, value in records.items()}
    return info.tobuf(tarfile.PAX_FORMAT) + data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0") + bytes(1024)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("0,3", b"abc" + bytes(197)),
        ("197,3", bytes(197) + b"abc"),
        ("0,2,100,1", b"ab" + bytes(98) + b"c" + bytes(99)),
        ("198,3", "corrupt_shard"),
        ("0,4", "corrupt_shard"),
        ("0,2,100,2", "corrupt_shard"),
    ],
)
def test_the_map_of_a_sparse_file_fits_its_size_and_its_data(parts: str, expected: object, tmp_path: Path) -> None:
    assert found(tmp_path / "s.tar", sparse(b"abc", size="200", map=parts)) == [("a", expected)]
    count, lines = parts.count(",") // 2 + 1, parts.replace(",", "\n")
    before = f"{count}\n{lines}\n".encode().ljust(BLOCK, b"\0")
    assert found(tmp_path / "s.tar", sparse(before + b"abc", major="1", minor="0", realsize="200")) == [("a", expected)]


def test_the_limit_of_bytes_is_that_of_a_links_target(tmp_path: Path) -> None:
    data = linked(("a.jpg", b"1234"), ("b.jpg", SYMBOLIC, "a.jpg"), ("c.jpg", b"12345"), ("d.jpg", HARD, "c.jpg"))
    images = rows(Span(shard(tmp_path / "s.tar", data)), options=ReadOptions(max_image_bytes=4))
    assert [row["error_code"] for row in images] == [None, None, "too_large", "too_large"]


def test_an_incremental_backup_has_the_names_that_gnu_tar_gives(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "d.jpg").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"A")
    (folder / "d.jpg" / "b.jpg").write_bytes(b"B")
    (folder / "c.jpg").hardlink_to(folder / "a.jpg")
    (folder / "link.jpg").symlink_to("d.jpg")
    command = ["tar", "-G", "--sort=name", "--label=holiday.jpg", "-C", folder, "-cf", tmp_path / "s.tar", "."]
    subprocess.run(command, check=True)
    images = dict(found(tmp_path / "s.tar", (tmp_path / "s.tar").read_bytes()))
    assert images == {"./a": b"A", "./c": b"A", "./d.jpg/b": b"B", "./link": DANGLING}


def test_the_rest_of_a_file_from_another_volume_says_so(tmp_path: Path) -> None:
    rest = tarfile.TarInfo("a.jpg")
    rest.type, rest.size = b"M", 700
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = SYMBOLIC, "a.jpg"
    data = rest.tobuf(tarfile.GNU_FORMAT) + bytes([7]) * 1024 + link.tobuf(tarfile.GNU_FORMAT) + tar_bytes(TEN[:1])
    assert found(tmp_path / "s.tar", data) == [("a", "truncated_shard"), ("b", "truncated_shard"), ("0000", TEN[0][1])]
    (first, *_) = rows(Span(shard(tmp_path / "s.tar", data)))
    assert "another volume" in str(first["error_message"])


def test_names_as_no_windows_has_them(tmp_path: Path) -> None:
    names = ["a.jpg ", "b.jpg.", "c\\d.jpg", "e\u0301.jpg", "\u00e9.jpg", "f.jpg .", "g. jpg", "h.txt "]
    data = tar_bytes([(name, bytes([i + 1])) for i, name in enumerate(names)], tarfile.PAX_FORMAT)
    ids = [image_id for image_id, _ in found(tmp_path / "s.tar", data)]
    assert ids == ["a", "b", "c\\d", "e\u0301", "\u00e9", "f"]


def test_a_size_in_binary_is_read(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(TEN[:2]))
    data[124:136] = b"\x80" + (700).to_bytes(11)
    data[148:156] = b"%06o\0 " % (8 * 32 + sum(data[:148]) + sum(data[156:BLOCK]))
    assert found(tmp_path / "s.tar", data) == all_but(*range(2, 10))


@pytest.mark.parametrize(
    ("beginning", "what"),
    [
        (b"PK\3\4", "a zip archive; unpack it into a folder"),
        (b"\x1f\x8b\x08", "a compressed file; unpack it first"),
        (b"\xfd7zXZ\0", "a compressed file; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a compressed file; unpack it first"),
        (b"\x89PNG\r\n", "an image; let its name end in"),
        (b"PAR1", "a Parquet file; let its name end in .parquet"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey', "a message of a server"),
        (b"version https://git-lfs.github.com/spec/v1\n", "the pointer of Git LFS"),
    ],
)
@pytest.mark.parametrize("size", [100, 5000])
def test_what_is_no_tar_says_what_it_is(beginning: bytes, what: str, size: int, tmp_path: Path) -> None:
    (row,) = rows(Span(shard(tmp_path / "s.tar", beginning.ljust(size, b"x"))))
    assert row["error_code"] in ("truncated_shard", "corrupt_shard") and what in str(row["error_message"])


def test_a_tar_whose_first_name_begins_like_another_file_is_read_on(tmp_path: Path) -> None:
    data = bytearray(tar_bytes([("PAR1.jpg", b"lost"), *TEN[:2]]))
    data[110] ^= 1
    assert found(tmp_path / "s.tar", data) == [("s.tar@0", "corrupt_shard"), *all_but(*range(2, 10))]


def test_a_sibling_that_is_too_large_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tar.rows.MAX_SIBLING_BYTES", 3)
    data = linked(("a.txt", b"long"), ("a.jpg", b"A"), ("b.jpg", b"B"), ("b.txt", HARD, "a.txt"), ("b.json", b"{}"))
    found = rows(Span(shard(tmp_path / "s.tar", data)), options=ReadOptions(("txt", "json")))
    assert [(row["image"], row["siblings"]) for row in found] == [(b"A", None), (b"B", '{"json": {}}')]
    assert [row["ignored"] for row in found] == ['{"siblings of more than 16 MiB": 1}'] * 2


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE])
def test_a_size_without_data_costs_nothing(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("d")
    info.type, info.size, info.linkname = kind, 4096, "x"
    data = info.tobuf(tarfile.GNU_FORMAT) + tar_bytes(TEN[:2])
    assert found(tmp_path / "s.tar", data) == [("0000", TEN[0][1]), ("0001", TEN[1][1])]


def sized(name: str, kind: bytes, size: int) -> bytes:
    """Builds a header with this size."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, "a.jpg"
    return info.tobuf(tarfile.GNU_FORMAT)


ABC = b"abc".ljust(BLOCK, b"\0")


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (tar_bytes(TEN[:1]), [("0000", TEN[0][1])]),
        (bytes(1024), []),
        (b"", [("s.tar@1024", "truncated_shard")]),
    ],
    ids=["a member", "the end", "nothing"],
)
def test_a_hard_link_may_come_with_its_data(behind: bytes, expected: list[object], tmp_path: Path) -> None:
    assert found(tmp_path / "s.tar", sized("b.jpg", HARD, 3) + ABC + behind) == [("b", b"abc"), *expected]


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_size_of_what_has_no_data_is_believed_if_a_header_is_behind_them(kind: bytes, tmp_path: Path) -> None:
    assert found(tmp_path / "s.tar", sized("d", kind, 3) + ABC + tar_bytes(TEN[:1])) == [("0000", TEN[0][1])]
    assert found(tmp_path / "s.tar", tar_bytes(TEN[:1])[:-1024] + sized("d", kind, 4096) + bytes(1024)) == [
        ("0000", TEN[0][1])
    ]
    zeros = sized("d", kind, 1024) + b"\xff" * BLOCK + tar_bytes({"a.jpg": bytes(1200)})
    assert found(tmp_path / "s.tar", zeros) == [(f"s.tar@{BLOCK}", "corrupt_shard"), ("a", bytes(1200))]


@pytest.mark.parametrize(("name", "data"), [("a.jpg", bytes(BLOCK)), ("a.tar", b"\xff" * BLOCK)])
def test_what_lies_behind_a_size_beyond_the_end_is_read(name: str, data: bytes, tmp_path: Path) -> None:
    whole = sized(name, tarfile.REGTYPE, 1 << 30) + data + tar_bytes(TEN[:1])
    assert found(tmp_path / "s.tar", whole) == [("s.tar@0", "corrupt_shard"), ("0000", TEN[0][1])]


def test_a_member_may_have_as_many_and_as_long_extended_headers_as_are_read(tmp_path: Path) -> None:
    many = sized("x", tarfile.GNUTYPE_LONGNAME, 6) + b"a.jpg\0".ljust(BLOCK, b"\0")
    long = sized("x", tarfile.GNUTYPE_LONGNAME, MAX_EXTENDED_BYTES) + b"a.jpg".ljust(MAX_EXTENDED_BYTES, b"\0")
    image = sized("b.jpg", tarfile.REGTYPE, 3) + ABC + bytes(1024)
    assert found(tmp_path / "s.tar", many * MAX_EXTENDED_HEADERS + image) == [("a", b"abc")]
    assert found(tmp_path / "s.tar", long + image) == [("a", b"abc")]
    assert found(tmp_path / "s.tar", many * (MAX_EXTENDED_HEADERS + 1) + image)[0] == ("s.tar@0", "corrupt_shard")


EACH = 3 * BLOCK  # header and data
WHOLE = tar_bytes(TEN)


def blank(data: bytes, start: int, stop: int) -> bytes:
    return data[:start] + bytes(stop - start) + data[stop:]


def all_but(*lost: int) -> list[tuple[object, object]]:
    return [(name.removesuffix(".jpg"), data) for i, (name, data) in enumerate(TEN) if i not in lost]


@pytest.mark.parametrize("i", [0, 4, 9])
@pytest.mark.parametrize("change", ["zeros", "flip", "size", "garbage", "odd garbage", "page of zeros"])
def test_damage_costs_what_it_covers(change: str, i: int, tmp_path: Path) -> None:
    at, end = i * EACH, 10 * EACH
    too_long = tarfile.TarInfo(TEN[i][0])
    too_long.size = 1 << 40
    data, lost = {
        "zeros": (blank(WHOLE, at, at + BLOCK), EACH),
        "flip": (WHOLE[: at + 3] + b"\xff" + WHOLE[at + 4 :], EACH),
        "size": (WHOLE[:at] + too_long.tobuf(tarfile.GNU_FORMAT) + WHOLE[at + BLOCK :], EACH),
        "garbage": (WHOLE[:at] + b"\xff" * 2 * BLOCK + WHOLE[at:], 2 * BLOCK),
        "odd garbage": (WHOLE[:at] + b"\xff" * 77 + WHOLE[at:], 77),
        "page of zeros": (blank(WHOLE, at, at + EACH), EACH),
    }[change]
    if change == "size" and i == 9:
        lost = len(data) - at  # nobody can tell where it ends
    if change == "page of zeros" and i == 9:
        return  # is what a tar of nine looks like
    expected = all_but(*([] if "garbage" in change else [i]))
    result = found(tmp_path / "s.tar", data)
    code = "truncated_shard" if change == "size" and i == 9 else "corrupt_shard"
    assert result == [*expected[:i], (f"s.tar@{at}", code), *expected[i:]]
    (message,) = [
        row["error_message"]
        for row in rows(Span(Shard(str(tmp_path / "s.tar"), "", len(data), 0)))
        if row["error_code"]
    ]
    assert f"{lost} bytes lost" in str(message) and str(at) in str(message)
    assert end < len(data)


def test_zeros_from_within_a_member_to_the_end_are_told(tmp_path: Path) -> None:
    at = 4 * EACH + 2 * BLOCK
    *images, last = found(tmp_path / "s.tar", blank(WHOLE, at, len(WHOLE)))
    assert images == [*all_but(*range(4, 10)), ("0004", TEN[4][1][:BLOCK] + bytes(700 - BLOCK))]
    assert last == (f"s.tar@{5 * EACH}", "corrupt_shard")


def test_any_padding_ends_a_tar(tmp_path: Path) -> None:
    for count in (BLOCK, 1000, 10_240, 3 << 20):
        assert found(tmp_path / "s.tar", WHOLE[: 10 * EACH] + bytes(count)) == all_but()


@pytest.mark.parametrize(("zeros", "lost"), [(0, BLOCK), (100, BLOCK + 100), (BLOCK, BLOCK), (BLOCK + 1, BLOCK)])
def test_padding_behind_damage_is_not_counted_as_lost(zeros: int, lost: int, tmp_path: Path) -> None:
    """But for what is less than a block, which may be part of anything."""
    data = WHOLE[: 9 * EACH] + b"\xff" * BLOCK + bytes(zeros)
    assert found(tmp_path / "s.tar", data) == [*all_but(9), (f"s.tar@{9 * EACH}", "corrupt_shard")]
    *_, row = rows(Span(shard(tmp_path / "s.tar", data)))
    assert f"; {lost} bytes lost" in str(row["error_message"])


def test_garbage_behind_the_end_is_told(tmp_path: Path) -> None:
    assert found(tmp_path / "s.tar", WHOLE + b"signed") == [*all_but(), (f"s.tar@{10 * EACH}", "corrupt_shard")]


@pytest.mark.parametrize("padding", [2 * BLOCK, 10_240 - 2 * EACH])
def test_a_tar_behind_another_is_read(padding: int, tmp_path: Path) -> None:
    first = tar_bytes(TEN[:2])[: 2 * EACH] + bytes(padding)
    again = [("0000.jpg", TEN[0][1]), ("0001.jpg", TEN[1][1]), *all_but(0, 1)]
    assert found(tmp_path / "s.tar", first + WHOLE) == [*all_but(*range(2, 10)), *again]


def test_a_header_from_before_ustar_is_found(tmp_path: Path) -> None:
    info = tarfile.TarInfo("old.jpg")
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[257:] = bytes(BLOCK - 257)
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    assert found(tmp_path / "s.tar", b"\xff" * BLOCK + bytes(header) + bytes(1024))[1] == ("old", b"")


def test_a_tar_cut_inside_a_tar_in_it_gives_none_of_its_members(tmp_path: Path) -> None:
    data = tar_bytes([TEN[0], ("inner.tar", WHOLE)])
    assert found(tmp_path / "s.tar", data[: 5 * EACH]) == [
        *all_but(*range(1, 10)),
        (f"s.tar@{EACH}", "truncated_shard"),
    ]


def test_ids_are_unique(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "a.jpg",
        "a.jpg",
        "a.png",
        "b.jpg",
        "a.jpg#2.jpg",
        "a.left.jpg",
        "a.right.jpg",
        "c.jpg",
        "a.left.jpg",
    ]
    data = tar_bytes([(name, bytes([i])) for i, name in enumerate(names)])
    ids = [image_id for image_id, _ in found(tmp_path / "s.tar", data)]
    assert ids == ["a", "a.jpg", "a.jpg#2", "a.png", "b", "a.jpg#2.jpg", "a.left", "a.right", "c", "a.left.jpg"]


def test_a_large_sample_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tar.rows.MAX_BUFFERED_BYTES", 1000)
    members = [(f"frame.{i:03}.jpg", bytes([i]) * 400) for i in range(9)]
    expected = [(name.removesuffix(".jpg"), data) for name, data in members]
    assert found(tmp_path / "s.tar", tar_bytes(members)) == expected
