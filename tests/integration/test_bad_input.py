"""Every bad input gives a typed error row, or a message and exit code 2; none ends a job or is ignored."""

import gzip
import os
import struct
import tarfile
import zlib
from pathlib import Path

import pillow_heif
import pytest
from conftest import Run, codes, encoded, jpeg, picture, pictures, rows_of, tar_bytes, tar_of_pictures
from PIL import Image

ALL_ERRORS = ("--max_error_rate", 1)


def png_of_size(width: int, height: int) -> bytes:
    """Makes a PNG whose header claims a size, with hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


BAD = {
    "truncated.jpg": (encoded(picture(1, 400, 300))[:2000], "corrupt_image"),
    "truncated.png": (encoded(picture(1), "PNG")[:-60], "corrupt_image"),
    "damaged.avif": (encoded(picture(1), "AVIF").replace(b"iloc", b"colI"), "corrupt_image"),
    "empty.jpg": (b"", "empty_file"),
    "text.jpg": (b"<html>404 not found</html>", "not_an_image"),
    "zeros.png": (bytes(999), "not_an_image"),
    "bomb.png": (png_of_size(30_000, 30_000), "decompression_bomb"),
    "nearly_bomb.png": (png_of_size(20_000, 8_000), "corrupt_image"),
}


@pytest.mark.filterwarnings("error")
def test_bad_images_are_typed_rows(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    for name, (data, _) in BAD.items():
        (folder / name).write_bytes(data)
    code, said = caption(folder, *ALL_ERRORS)
    assert code == 0
    assert codes(tmp_path / "out") == {name: code for name, (_, code) in BAD.items()} | {"0.jpg": None}
    assert all(row["error_message"] for row in rows_of(tmp_path / "out") if row["error_code"])
    assert "1 captions and 8 errors" in said
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def odd_images() -> dict[str, bytes]:
    frames = [picture(i, 20, 10) for i in range(3)]
    animated = {"save_all": True, "append_images": frames[1:]}
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = picture(1).convert("RGBA")
    alpha.putalpha(90)
    return {
        "cmyk.jpg": encoded(picture(2).convert("CMYK")),
        "grey.jpg": encoded(picture(2).convert("L")),
        "deep.png": encoded(picture(2).convert("I;16"), "PNG"),
        "palette.png": encoded(picture(2).convert("P"), "PNG", transparency=3),
        "bits.png": encoded(picture(2).convert("1"), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "alpha.webp": encoded(alpha, "WEBP"),
        "animated.gif": encoded(frames[0], "GIF", **animated),
        "animated.webp": encoded(frames[0], "WEBP", lossless=True, **animated),
        "first.webp": encoded(frames[0], "WEBP", lossless=True),
        "rotated.jpg": encoded(picture(3, 50, 20), exif=exif),
        "pixel.png": encoded(picture(4, 1, 1), "PNG"),
        "line.png": encoded(picture(4, 3000, 1), "PNG"),
    }


def test_odd_images_are_captioned(tmp_path: Path, caption: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in odd_images().items():
        (folder / name).write_bytes(data)
    assert caption(folder, "--max_error_rate", 0)[0] == 0
    rows = {row["image_id"]: row for row in rows_of(tmp_path / "out")}
    assert rows.keys() == odd_images().keys()
    assert rows["animated.webp"]["caption"] == rows["first.webp"]["caption"]
    assert (rows["rotated.jpg"]["width"], rows["rotated.jpg"]["height"]) == (20, 50)
    assert (rows["pixel.png"]["width"], rows["pixel.png"]["height"]) == (1, 1)


def test_files_that_cannot_be_read_are_rows(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    for name in ("broken.jpg", "broken.tar"):
        (folder / name).symlink_to(folder / "nowhere")
    for name in ("pipe.jpg", "pipe.tar"):
        os.mkfifo(folder / name)
    (folder / "folder.jpg").mkdir()  # is looked into
    (folder / "folder.jpg" / "a.jpg").write_bytes(jpeg(7))
    assert caption(folder, *ALL_ERRORS)[0] == 0
    unreadable = dict.fromkeys(["broken.jpg", "broken.tar", "pipe.jpg", "pipe.tar"], "unreadable")
    assert codes(tmp_path / "out") == unreadable | {"0.jpg": None, "folder.jpg/a.jpg": None}
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_a_tar_may_be_cut_anywhere(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    members = [("a.jpg", jpeg(0)), ("a.txt", b"seen"), ("b.jpg", jpeg(1)), ("c/d.jpg", jpeg(2))]
    whole = tar_bytes(members)
    stops, position = [], 0  # bytes after which each sample has its image
    for name, data in members:
        position += 512 + len(data)
        if name.endswith(".jpg"):
            stops.append(position)
        position += -len(data) % 512
    cuts = range(0, position + 1, 512)
    for cut in cuts:
        (tmp_path / "in" / f"{cut:05}.tar").parent.mkdir(exist_ok=True)
        (tmp_path / "in" / f"{cut:05}.tar").write_bytes(whole[:cut])
    assert len(cuts) > 8
    assert caption(tmp_path / "in", *ALL_ERRORS)[0] == 0
    rows = rows_of(tmp_path / "out")
    for cut in cuts:
        found = [(row["image_id"], row["error_code"]) for row in rows if row["shard"].endswith(f"/{cut:05}.tar")]
        before = [(key, None) for key, stop in zip(["a", "b", "c/d"], stops, strict=True) if stop <= cut]
        *images, (place, code) = found
        assert images == before and code == "truncated_shard"
        assert int(place.removeprefix(f"{cut:05}.tar@")) <= cut
    assert shardtalk("verify", tmp_path / "out", tmp_path / "in")[0] == 0


def test_a_cut_tar_is_the_same_after_any_interruption(tmp_path: Path, caption: Run) -> None:
    tar = tar_of_pictures(tmp_path / "s.tar", 3)
    tar.write_bytes(tar.read_bytes()[:-1600])
    assert caption(tar, "--rows_per_file", 1, "--batch_size", 1)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [row["error_code"] for row in rows] == [None, None, "truncated_shard"]
    for record in sorted((tmp_path / "out" / "_commits").iterdir()):
        record.unlink()
        assert caption(tar)[0] == 0
        assert rows_of(tmp_path / "out") == rows


ODD_TARS = {
    "no_extension.tar": ([("plain", b"x"), ("a.jpg", jpeg(1))], {"a": None}),
    "texts.tar": ([("0.txt", b"x"), ("1.txt", b"x"), ("0.jpg", jpeg(1)), ("1.jpg", jpeg(2))], {"0": None, "1": None}),
    "several.tar": ([("0.left.jpg", jpeg(1)), ("0.right.jpg", jpeg(2))], {"0.left": None, "0.right": None}),
    "forms.tar": ([("a.jpg", jpeg(1)), ("a.png", jpeg(2))], {"a.jpg": None, "a.png": None}),
    "dots.tar": ([("22.05.jpg", jpeg(1)), ("22.06.jpg", jpeg(2))], {"22.05": None, "22.06": None}),
    "mac.tar": ([("._a.jpg", b"x"), ("a.jpg", jpeg(1)), (".DS_Store", b"x"), ("__MACOSX/b.jpg", b"x")], {"a": None}),
    "only_texts.tar": ([("a.txt", b"x")], {"only_texts.tar": "empty_shard"}),
    "case.tar": ([("a.JPG", jpeg(1)), ("b.Jpeg", jpeg(2))], {"a": None, "b": None}),
    "zero.tar": ([("a.jpg", b""), ("b.jpg", jpeg(1))], {"a": "empty_file", "b": None}),
    "name.tar": ([("f\udcff.jpg", jpeg(1))], {"f\\xff": None}),
    "empty.tar": ([], {"empty.tar": "empty_shard"}),
}


@pytest.mark.parametrize("name", ODD_TARS)
def test_odd_tars(name: str, tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    members, expected = ODD_TARS[name]
    (tmp_path / name).write_bytes(tar_bytes(members, tarfile.GNU_FORMAT))
    assert caption(tmp_path / name, *ALL_ERRORS)[0] == 0
    assert codes(tmp_path / "out") == expected
    assert shardtalk("verify", tmp_path / "out", tmp_path / name)[0] == 0


def test_what_is_no_tar_is_one_row(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    (tmp_path / "zipped.tar").write_bytes(gzip.compress(tar_bytes({"a.jpg": jpeg(1)})))
    (tmp_path / "text.tar").write_bytes(b"no tar " * 200)
    assert caption(tmp_path / "zipped.tar", tmp_path / "text.tar", *ALL_ERRORS)[0] == 0
    assert codes(tmp_path / "out") == {"zipped.tar@0": "corrupt_shard", "text.tar@0": "corrupt_shard"}
    assert any("unpack" in row["error_message"] for row in rows_of(tmp_path / "out"))
    assert shardtalk("verify", tmp_path / "out", tmp_path / "zipped.tar", tmp_path / "text.tar")[0] == 0


def test_a_key_may_come_again_across_an_interruption(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes([("a.jpg", jpeg(0)), ("b.jpg", jpeg(1)), ("a.jpg", jpeg(2)), ("c.jpg", jpeg(3))]))
    assert caption(tar, "--rows_per_file", 1, "--batch_size", 1)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [(row["image_id"], row["error_code"]) for row in rows] == [
        ("a", None),
        ("b", None),
        ("a.jpg", None),
        ("c", None),
    ]
    for record in sorted((tmp_path / "out" / "_commits").iterdir()):
        record.unlink()
        assert caption(tar)[0] == 0
        assert rows_of(tmp_path / "out") == rows
    assert shardtalk("verify", tmp_path / "out", tar)[0] == 0


def test_file_names_need_not_be_text(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "f\udcfe", 1)
    (folder / "s\udcff.jpg").write_bytes(jpeg(5))
    (folder / "t\udcff.tar").write_bytes(tar_bytes({"k.jpg": jpeg(6)}))
    assert caption(folder)[0] == 0
    assert codes(tmp_path / "out") == {"0.jpg": None, "s\\xff.jpg": None, "k": None}
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def refused(result: tuple[int, str], *words: str) -> None:
    code, said = result
    assert code == 2
    assert said.count("\n") == 1 and said.startswith("shardtalk ")
    assert all(word in said for word in words), said


def test_inputs_that_are_not_there_are_refused(tmp_path: Path, caption: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    full = tar_of_pictures(tmp_path / "s-0.tar", 1)
    refused(caption(tmp_path / "empty"), "empty holds no images")
    refused(caption(tmp_path / "texts"), "texts holds no images")
    refused(caption(full, tmp_path / "empty"), "empty holds no images")
    refused(caption(tmp_path / "missing"), "missing does not exist")
    refused(caption(tmp_path / "s-{0..1}.tar"), "s-1.tar does not exist")
    refused(caption(tmp_path / "*.webp"), "nothing matches")
    refused(caption(), "no INPUT")
    assert not (tmp_path / "out").exists()


def test_a_glob_takes_what_a_folder_would(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    (folder / "notes.txt").write_text("mine")
    code, said = caption(folder / "*")
    assert code == 0 and "ignored 1 other files: .txt 1" in said
    assert codes(tmp_path / "out") == {"0.jpg": None, "1.jpg": None}


@pytest.mark.parametrize("name", ["s.tar.gz", "s.TGZ"])
def test_compressed_tars_are_refused(name: str, tmp_path: Path, caption: Run) -> None:
    (tmp_path / name).write_bytes(gzip.compress(tar_bytes({"a.jpg": jpeg(1)})))
    refused(caption(tmp_path / name), name, "unpack")


def test_two_images_of_one_id_are_refused(tmp_path: Path, caption: Run) -> None:
    refused(caption(pictures(tmp_path / "a", 1), pictures(tmp_path / "b", 1)), "a/0.jpg", "b/0.jpg")


@pytest.mark.parametrize("inside", ["in", "in/out", "in/deep/er"])
def test_an_output_inside_the_input_is_refused(inside: str, tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    refused(caption(folder, output=tmp_path / inside), "inside the input")
    refused(caption(tmp_path / "{in,other}", output=tmp_path / inside), "inside the input")
    assert [path.name for path in folder.iterdir()] == ["0.jpg"]


def test_an_output_with_other_files_is_refused_and_left_alone(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    refused(caption(folder), "thesis.tex")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    (tmp_path / "out").write_text("mine")
    refused(caption(pictures(tmp_path / "in", 1)), "out")
    refused(shardtalk("verify", tmp_path / "out"), "no output of")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_whose_names_are_not_text_is_refused(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    refused(caption(folder, output=tmp_path / "o\udcff"), "o\\xff")
    refused(shardtalk("verify", tmp_path / "o\udcff"), "o\\xff")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x\udcff").write_text("mine")
    refused(caption(folder), "cannot be the output folder")


def test_captioners_that_are_none_are_refused(tmp_path: Path, captioner: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    refused(caption(folder, "--captioner", "nobody"), "there is no captioner 'nobody'")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "config.json").write_bytes((captioner / "config.json").read_bytes())
    refused(caption(folder, "--captioner", torn), "torn")
    (torn / "config.json").write_text("{")
    refused(caption(folder, "--captioner", torn), "torn")


def test_unknown_options_name_the_choices(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    refused(caption(folder, "--search.beam_sise", 3), "--search.beam_size")
    refused(caption(folder, "--format", "csv"), "parquet", "jsonl")
    refused(caption(folder, "--search.num_candidates", 9), "at most 2")
    refused(caption(folder, "--max_error_rate", 1.5), "[0, 1]")
    refused(caption(folder, "--device", "abacus"), "abacus")
    refused(caption(folder, "--dtype", "int3"), "bfloat16")


def hostile_folder(folder: Path) -> dict[str, str | None]:
    """Writes good images, and files that used to end a job; returns the expected result of each."""
    pictures(folder, 1)
    exif = b"\0\1\2\3garbage"
    turned = Image.Exif()
    turned[0x0112] = 6
    texts = {"emoji.json": b'{"caption": "\\ud83d"}', "deep.json": b"[" * 100_000, "nan.json": b"[NaN]"}
    images = {
        "broken_exif.webp": encoded(picture(1), "WEBP", exif=exif),
        "turned.tif": encoded(picture(1, 100, 60), "TIFF", exif=turned),
        **{name.replace("json", "jpg"): jpeg(i) for i, name in enumerate(texts)},
        "pipe.jpg": jpeg(4),
        "folder.jpg": jpeg(5),
    }
    bad = {"postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nundefinedop\n"}
    for name, data in (texts | images | bad).items():
        (folder / name).write_bytes(data)
    pillow_heif.from_pillow(picture(1, 50, 40)).save(folder / "heic.jpg", format="HEIF")
    os.mkfifo(folder / "pipe.txt")
    (folder / "folder.txt").mkdir()
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(100 << 30)
    errors = {"postscript.jpg": "unsupported_format", "huge.jpg": "too_large"}
    return dict.fromkeys(["0.jpg", "heic.jpg", *images]) | errors


@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def test_one_file_never_ends_a_job(
    runner: str, tmp_path: Path, caption: Run, shardtalk: Run, request: pytest.FixtureRequest
) -> None:
    if runner == "ray":
        request.getfixturevalue("local_ray")
    expected = hostile_folder(tmp_path / "in")
    code, said = caption(tmp_path / "in", *ALL_ERRORS, "--siblings", "txt,json", "--runner", runner)
    assert code == 0, said
    assert codes(tmp_path / "out") == expected
    rows = {row["image_id"]: row for row in rows_of(tmp_path / "out")}
    sizes = {name: (rows[name]["width"], rows[name]["height"]) for name in ("turned.tif", "heic.jpg")}
    assert sizes == {"turned.tif": (60, 100), "heic.jpg": (50, 40)}
    assert rows["emoji.jpg"]["siblings"] == '{"json": {"caption": "\\ud83d"}}'
    assert rows["pipe.jpg"]["siblings"] is rows["folder.jpg"]["siblings"] is None
    assert shardtalk("verify", tmp_path / "out", tmp_path / "in")[0] == 0


def test_a_job_of_another_limit_of_bytes_is_refused(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    assert caption(folder)[0] == 0
    code, said = caption(folder, "--max_image_bytes", 1000)
    assert code == 2 and "max_image_bytes" in said
    code, said = caption(folder, "--max_image_bytes", 0)
    assert code == 2 and "max_image_bytes" in said
