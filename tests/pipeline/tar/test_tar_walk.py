"""The walk over tars, compared with `tarfile` and `webdataset`, and on every kind of damage."""

import gzip
import io
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import webdataset
from conftest import tar_bytes

from pipeline.errors import DataError
from pipeline.tar.damage import find_header
from pipeline.tar.headers import BLOCK
from pipeline.tar.samples import Sample, read_samples, split_name

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
MEMBERS = [("a.jpg", bytes(700)), ("a.json", b"{}"), ("b.jpg", b"x" * 512), ("c/d.jpg", b""), ("c/d.txt", b"y" * 1025)]


def read(data: bytes, offset: int = 0) -> Iterator[Sample]:
    file = io.BytesIO(data)
    file.seek(offset)
    return read_samples(file, size=len(data), offset=offset)


def read_until_damage(data: bytes) -> tuple[list[Sample], str]:
    """Returns the samples before the damage, and its error code."""
    found: list[Sample] = []
    with pytest.raises(DataError) as raised:
        found.extend(read(data))  # keeps what came before the exception
    return found, raised.value.code


def header(name: str = "a.jpg", size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


class Asked(io.BytesIO):
    """A file that records the largest number of bytes requested at once."""

    most = 0

    def read(self, count: int | None = -1, /) -> bytes:
        self.most = max(self.most, count or 0)
        return super().read(count)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("a.jpg", "a", "jpg"),
        ("a.JPeG", "a", "jpeg"),
        ("b.c/a.seg.PNG", "b.c/a", "seg.png"),
        ("README", "README", ""),
        ("b/.hidden", "b/.hidden", ""),
        ("b/.hidden.jpg", "b/.hidden", "jpg"),
        ("..a.tar.gz", "..a", "tar.gz"),
        ("naïve ज्ञ.jpg", "naïve ज्ञ", "jpg"),
        ("a\udcff.jpg", "a\\xff", "jpg"),
    ],
)
def test_a_key_ends_at_the_first_dot_of_the_last_part(name: str, key: str, extension: str) -> None:
    assert split_name(name) == (key, extension)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_names_and_bytes_are_those_that_tarfile_reads(form: int) -> None:
    folder = "f" * 90
    names = ["short.jpg", f"{folder}/{'b' * 90}.jpg", "naïve ज्ञान.png", "bytes\udcff.gif"]
    if form != tarfile.USTAR_FORMAT:  # which has room for 255 bytes
        names += [f"{folder}/{folder}/{folder}/{'c' * 200}.webp", "é" * 300 + ".jpg"]
    data = tar_bytes([(name, bytes([i]) * (511 + i)) for i, name in enumerate(names)], form)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(split_name(member.name), tar.extractfile(member).read()) for member in tar]
    assert [((s.key, extension), content) for s in read(data) for extension, content in s.files.items()] == expected
    assert len(expected) == len(names)


def test_members_that_share_a_key_are_one_sample() -> None:
    found = [(sample.key, sample.files) for sample in read(tar_bytes(MEMBERS))]
    assert found == [
        ("a", {"jpg": bytes(700), "json": b"{}"}),
        ("b", {"jpg": b"x" * 512}),
        ("c/d", {"jpg": b"", "txt": b"y" * 1025}),
    ]


def test_a_repeated_extension_begins_another_sample() -> None:
    found = list(read(tar_bytes([("a.jpg", b"1"), ("a.json", b"2"), ("a.JPG", b"3")])))
    assert [(sample.key, sample.files) for sample in found] == [
        ("a", {"jpg": b"1", "json": b"2"}),
        ("a", {"jpg": b"3"}),
    ]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_folders_and_devices_are_passed_over(form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, kind in [
            ("folder", tarfile.DIRTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
            ("device.jpg", tarfile.CHRTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "k" * 99
            tar.addfile(info)
            long_link = tarfile.TarInfo(f"{name}-long")
            long_link.type, long_link.linkname = kind, "k" * (120 if form != tarfile.USTAR_FORMAT else 60)
            tar.addfile(long_link)
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert [(sample.key, sample.files) for sample in read(buffer.getvalue())] == [("a", {"jpg": b"abc"})]


def test_a_member_that_is_not_wanted_is_named_and_not_read() -> None:
    data = tar_bytes(MEMBERS)
    found = read_samples(io.BytesIO(data), size=len(data), wanted=lambda extension: extension == "json")
    assert [sample.files for sample in found] == [
        {"jpg": None, "json": b"{}"},
        {"jpg": None},
        {"jpg": None, "txt": None},
    ]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_reading_on_from_a_stop_gives_the_rest(form: int) -> None:
    data = tar_bytes([*MEMBERS, ("long" * 20 + "/é" + "x" * 60 + ".jpg", b"z")], form)
    whole = list(read(data))
    assert [sample.start for sample in whole] == [0, *(sample.stop for sample in whole[:-1])]
    for i, sample in enumerate(whole, start=1):
        assert list(read(data, sample.stop)) == whole[i:]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_cut_tar_gives_its_whole_samples_and_then_says_so(form: int) -> None:
    data = tar_bytes([*MEMBERS[:3], ("é" + "x" * 40 + "/" + "y" * 80 + ".jpg", b"z" * 600)], form)
    whole, end = list(read(data)), len(data) - 2 * BLOCK
    for cut in sorted({*range(0, len(data), BLOCK), *range(1, len(data), 97)}):
        if cut >= end + BLOCK:  # the second zero block holds nothing
            assert list(read(data[:cut])) == whole
            continue
        found, code = read_until_damage(data[:cut])
        complete = [sample for sample in whole if sample.stop <= cut]
        assert found[: len(complete)] == complete, cut
        assert code == "truncated_shard", cut


def test_a_sample_that_is_cut_between_its_members_comes_before_the_error() -> None:
    found, code = read_until_damage(tar_bytes(MEMBERS)[: 3 * BLOCK])
    assert [sample.files for sample in found] == [{"jpg": bytes(700)}]
    assert code == "truncated_shard"


def test_random_bytes_are_corrupt() -> None:
    generator = random.Random(0)
    for count in (512, 513, 5000):
        assert read_until_damage(generator.randbytes(count)) == ([], "corrupt_shard")


def test_damage_in_the_middle_keeps_what_came_before() -> None:
    data = bytearray(tar_bytes(MEMBERS))
    data[5 * BLOCK + 150] ^= 1  # in the checksum of b.jpg's header
    found, code = read_until_damage(bytes(data))
    assert [sample.key for sample in found] == ["a"]
    assert code == "corrupt_shard"


def test_any_flipped_byte_is_read_or_a_data_error() -> None:
    generator, intact = random.Random(1), tar_bytes(MEMBERS, tarfile.PAX_FORMAT)
    for _ in range(300):
        data = bytearray(intact)
        data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            found = list(read(bytes(data)))
        except DataError as error:
            assert error.code in ("corrupt_shard", "truncated_shard")
        else:
            assert len(found) <= len(MEMBERS)


def test_a_compressed_tar_is_told_apart() -> None:
    with pytest.raises(DataError, match="not a tar but a compressed file; unpack it first") as raised:
        list(read(gzip.compress(tar_bytes([("a.jpg", random.Random(0).randbytes(2000))]))))
    assert raised.value.code == "corrupt_shard"


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 9999, 0), (1, 9999, 1536), (1536, 1537, 1536), (1, 1536, None), (1537, 9999, None)],
)
def test_the_first_header_of_a_range_is_found(start: int, stop: int, expected: int | None) -> None:
    data = header("a.jpg", size=900) + padded(b"x" * 900) + header("b.jpg") + bytes(1024)
    assert find_header(io.BytesIO(data), start=start, stop=stop) == expected


def test_a_header_is_found_at_any_byte_and_one_from_before_ustar_in_steps_of_a_block() -> None:
    for block, found in ((header(), [700, 700]), (header_from_before_ustar(), [None, 700])):
        data = b"x" * 700 + block + bytes(1024)
        assert [find_header(io.BytesIO(data), start=start, stop=len(data)) for start in (0, 700 % BLOCK)] == found


def header_from_before_ustar() -> bytes:
    old = bytearray(header("old.jpg"))
    old[257:] = bytes(BLOCK - 257)
    old[148:156] = b"%06o\0 " % (256 + sum(old[:148]) + sum(old[156:]))
    return bytes(old)


@pytest.mark.parametrize("start", [0, 1, 511])
def test_a_header_from_before_ustar_is_found_at_every_block(start: int) -> None:
    for blocks in range(1, 40):
        data = b"x" * (start + blocks * BLOCK) + header_from_before_ustar() + b"x" * BLOCK
        assert find_header(io.BytesIO(data), start=start, stop=len(data)) == start + blocks * BLOCK


@pytest.mark.parametrize("blocks", [8, 100, 3000])
def test_a_header_far_behind_is_found(blocks: int) -> None:
    data = b"\xff" * (blocks * BLOCK + 77) + header() + bytes(1024)
    assert find_header(io.BytesIO(data), start=0, stop=len(data)) == blocks * BLOCK + 77


def test_a_tar_of_nothing_but_its_end_has_no_samples() -> None:
    assert list(read(tar_bytes([]))) == []


def test_no_bytes_are_a_truncated_tar() -> None:
    assert read_until_damage(b"") == ([], "truncated_shard")


@pytest.mark.parametrize(
    "records",
    [
        b"x path=a\n",
        b"99 path=a.jpg\n",
        b"0 path=a.jpg\n",
        b"-14 path=a.jpg\n",
        b"7 path=",
        b"14 pathXa.jpg\n",
        b"no spaces at all",
        b"9" * 30 + b" path=a\n",
        b"13 size=abcd\n",
        b"16 size=-100000\n",
        b"\xff\xfe path=a\n",
    ],
)
def test_a_malformed_pax_record_costs_no_member(records: bytes) -> None:
    data = header(size=len(records), kind=tarfile.XHDTYPE) + padded(records) + header("b.jpg") + bytes(1024)
    assert [sample.key for sample in read(data)] == ["b"]


def test_records_before_a_malformed_one_count() -> None:
    records = b"14 path=a.jpg\n12 size=x"
    data = header(size=len(records), kind=tarfile.XHDTYPE) + padded(records) + header("b", size=3) + padded(b"abc")
    assert [sample.files for sample in read(data + bytes(1024))] == [{"jpg": b"abc"}]


def test_a_long_name_without_its_member_is_corrupt() -> None:
    data = header(size=5, kind=tarfile.GNUTYPE_LONGNAME) + padded(b"a.jpg") + bytes(1024)
    assert read_until_damage(data) == ([], "corrupt_shard")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (header(size=1 << 60), "truncated_shard"),
        (header(size=1 << 60, kind=tarfile.GNUTYPE_LONGNAME), "truncated_shard"),
        (
            header(size=28, kind=tarfile.XHDTYPE) + padded(b"28 size=9223372036854775807\n") + header(),
            "truncated_shard",
        ),
        (header(size=2 << 20, kind=tarfile.XHDTYPE) + bytes(3 << 20), "corrupt_shard"),
    ],
    ids=["member", "long name", "pax size", "pax header"],
)
def test_an_absurd_size_costs_no_memory(data: bytes, code: str) -> None:
    file = Asked(data)
    with pytest.raises(DataError) as raised:
        list(read_samples(file, size=len(data)))
    assert raised.value.code == code
    assert file.most <= 1 << 20


def test_negative_size_is_corrupt() -> None:
    assert read_until_damage(header(size=-512) + bytes(1024))[1] == "corrupt_shard"


def test_a_pax_size_overrides_the_header_s() -> None:
    records = b"10 size=3\n"
    data = header(size=len(records), kind=tarfile.XHDTYPE) + padded(records) + header(size=0) + padded(b"abc")
    assert [sample.files for sample in read(data + bytes(1024))] == [{"jpg": b"abc"}]


def test_a_sparse_member_is_not_lost() -> None:
    sparse = header("sparse.jpg", size=3, kind=tarfile.GNUTYPE_SPARSE) + padded(b"abc")
    assert [sample.key for sample in read(sparse + header("b.jpg") + bytes(1024))] == ["sparse", "b"]


def test_keys_are_those_that_webdataset_reads(tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with webdataset.TarWriter(str(shard)) as writer:
        for key in ("k0", "folder.with.dots/k1", "naïve", "long" * 40):
            writer.write({"__key__": key, "jpg": b"\xff\xd8" * 333, "json": {"caption": key}, "seg.png": b"p"})
    theirs = list(webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False))
    ours = list(read(shard.read_bytes()))
    assert [sample.key for sample in ours] == [sample["__key__"] for sample in theirs]
    assert [sample.files for sample in ours] == [
        {name: data for name, data in sample.items() if not name.startswith("__")} for sample in theirs
    ]
