import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from galleries import COLOURS, captioned, failed, gallery, images, output, picture, tar
from PIL import Image

from configs.errors import ConfigError
from configs.gallery import GalleryConfig
from jobs.gallery import GROUP, run
from pipeline.errors import OutputError
from pipeline.output.commit_log import CommitLog
from pipeline.output.writer import PartWriter
from pipeline.schema import CAPTIONED
from pipeline.storage.folder import Folder

HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028"


def script(page: Path, name: str = "data.js") -> list[Any]:
    text = (page.with_name(f"{page.stem}_files") / name).read_text(encoding="ascii")
    call, _, arguments = text.rstrip().removesuffix(");").partition("(")
    assert call in ("gallery.show", "gallery.detail")
    return list(json.loads(f"[{arguments}]"))


def rows_of(page: Path) -> dict[str, list[Any]]:
    """Reads the page's rows by image_id: the fields of `jobs.gallery.INDEX`, has a picture, and its number."""
    return {row[0]: [*row[1:], number] for number, row in enumerate(script(page)[1])}


def thumbnail_of(page: Path, image_id: str) -> Image.Image:
    *_, has_picture, number = rows_of(page)[image_id]
    assert has_picture
    return Image.open(page.with_name(f"{page.stem}_files") / f"thumbnails/{number // GROUP:03}/{number:06}.jpg")


def colour_of(page: Path, image_id: str) -> str:
    """Returns the nearest of COLOURS."""
    found = thumbnail_of(page, image_id).getpixel((0, 0))
    near = {name: Image.new("RGB", (1, 1), name).getpixel((0, 0)) for name in COLOURS}
    return min(near, key=lambda name: sum(abs(a - b) for a, b in zip(near[name], found, strict=True)))  # type: ignore


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_every_row_is_on_the_page(tmp_path: Path, form: str) -> None:
    page = gallery(output(tmp_path, [*images(tmp_path, 3), failed("x.jpg", tmp_path / "x.jpg")], form))
    rows = rows_of(page)
    shard = {name: str(tmp_path / name) for name in rows}
    assert {name: row[:9] for name, row in rows.items()} == {
        **{f"{i}.jpg": [shard[f"{i}.jpg"], 0, f"dog {i}", -3.5, 3, None, None, None, 1] for i in range(3)},
        "x.jpg": [shard["x.jpg"], 0, None, None, None, None, "corrupt_image", "7 bytes", 0],
    }
    assert [colour_of(page, f"{i}.jpg") for i in range(3)] == COLOURS[:3]


def test_details_are_those_of_the_row_at_the_same_place(tmp_path: Path) -> None:
    candidates = [{"caption": "a dog", "log_prob": -3.5}, {"caption": "a cat", "log_prob": -4.25}]
    page = gallery(output(tmp_path, [*images(tmp_path, 2), captioned("z", "/z.jpg", candidates=candidates)]))
    start, details = script(page, "data-000.js")
    assert start == 0
    assert details[rows_of(page)["z"][-1]] == [40, 30, [["a dog", -3.5], ["a cat", -4.25]]]


def test_a_tar_gives_each_row_its_own_picture(tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar", COLOURS)
    page = gallery(output(tmp_path, [captioned(str(i), path, i) for i in (4, 1, 2)]))
    assert {i: colour_of(page, i) for i in "124"} == {"1": "lime", "2": "blue", "4": "black"}


def test_a_parquet_file_gives_each_row_its_own_picture(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [picture(colour) for colour in COLOURS]}), path, row_group_size=2)
    page = gallery(output(tmp_path, [captioned(str(i), path, i) for i in (4, 1, 2)]))
    assert {i: colour_of(page, i) for i in "124"} == {"1": "lime", "2": "blue", "4": "black"}


def test_a_cut_tar_gives_the_pictures_before_the_cut(tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar", COLOURS)
    with tarfile.open(path) as file:
        cut = file.getmember("2.jpg").offset_data + 10
    path.write_bytes(path.read_bytes()[:cut])
    rows = rows_of(gallery(output(tmp_path, [captioned(str(i), path, i) for i in range(5)])))
    assert [rows[str(i)][-2] for i in range(5)] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_thumbnails_keep_their_shape_and_stand_upright(form: str, tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (120, 60), "red"), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", form, exif=exif)
    page = gallery(output(tmp_path, [captioned("a", tmp_path / "a.jpg")]), thumbnail_size=32)
    assert thumbnail_of(page, "a").size == (16, 32)


def test_damaged_exif_costs_no_thumbnail(tmp_path: Path) -> None:
    Image.new("RGB", (120, 60), "red").save(tmp_path / "a.jpg", "WEBP", exif=b"\0\1\2\3garbage")
    page = gallery(output(tmp_path, [captioned("a", tmp_path / "a.jpg")]), thumbnail_size=32)
    assert thumbnail_of(page, "a").size == (32, 16)


def test_a_source_that_is_gone_or_broken_is_a_row_without_a_picture(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    shards: list[Path | str] = ["/no/such.jpg", tmp_path / "text.jpg", "/no/such.tar", tmp_path, "nonsense://x/a.jpg"]
    rows = rows_of(gallery(output(tmp_path, [captioned(str(i), shard) for i, shard in enumerate(shards)])))
    assert [rows[str(i)][-2] for i in range(len(shards))] == [0] * len(shards)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_a_file_name_that_is_not_utf8_finds_its_picture(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    Path(path).write_bytes(picture("blue"))
    assert colour_of(gallery(output(tmp_path, [captioned("a", path)])), "a") == "blue"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    row = captioned(HOSTILE, f"/{HOSTILE}", caption=HOSTILE)
    page = gallery(output(tmp_path, [row, failed("x", "/x", code=HOSTILE)]))
    for file in (page.with_name("index_files") / name for name in ("data.js", "data-000.js")):
        assert not set(file.read_text(encoding="ascii")) & set("<>&")
    assert rows_of(page)[HOSTILE][:3] == [f"/{HOSTILE}", 0, HOSTILE]
    assert "onerror" not in page.read_text(encoding="utf-8")


def test_the_page_links_a_folder_of_any_name(tmp_path: Path) -> None:
    page = gallery(output(tmp_path, images(tmp_path, 1)), page=str(tmp_path / 'new/a"<b> 1#?.html'))
    assert 'src="./a%22%3Cb%3E%201%23%3F_files/data.js"' in page.read_text(encoding="utf-8")
    assert (page.parent / 'a"<b> 1#?_files/gallery.js').exists()


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    page = gallery(output(tmp_path, [captioned("a", "/a", log_prob=float("-inf"))]))
    assert rows_of(page)["a"][3] is None


def test_a_confidence_is_shown_where_the_output_has_one(tmp_path: Path) -> None:
    page = gallery(output(tmp_path, [captioned("a", "/a", confidence=0.25), captioned("b", "/b")]))
    assert [rows_of(page)[name][5] for name in "ab"] == [0.25, None]
    assert script(page)[0]["has_confidence"]
    assert not script(gallery(output(tmp_path, [captioned("a", "/a")])))[0]["has_confidence"]


def test_a_confidence_in_words_is_another_column(tmp_path: Path) -> None:
    out = output(tmp_path, [captioned("a", "/a")])
    part = pq.read_table(out / "part-0.parquet")
    pq.write_table(part.append_column("confidence", pa.array(["high"])), out / "part-0.parquet")
    assert not script(gallery(out))[0]["has_confidence"]


def test_the_page_of_another_output_has_decisions_of_its_own(tmp_path: Path) -> None:
    outs = [output(folder, [captioned("a", "/a")]) for folder in (tmp_path / "1", tmp_path / "2")]
    ids = [script(gallery(out))[0]["id"] for out in (*outs, outs[0])]
    assert ids[0] == ids[2] != ids[1]


def test_a_large_output_is_sampled_by_seed(tmp_path: Path) -> None:
    rows = [captioned(str(i), f"/{i}.jpg") for i in range(50)]
    output(tmp_path, rows[:30])
    out = output(tmp_path, [*rows[30:], failed("x", "/x")], name="part-1")
    samples = [set(rows_of(gallery(out, max_images=7, seed=seed))) for seed in (0, 0, 1)]
    assert [len(sample) for sample in samples] == [7, 7, 7]
    assert samples[0] == samples[1] != samples[2]
    summary = script(out / "_gallery" / "index.html")[0]
    assert summary["total"] == 51
    assert summary["errors"] == {"corrupt_image": 1}


def test_rows_without_a_commit_record_are_not_shown(tmp_path: Path) -> None:
    out = tmp_path / "out"
    part_writer = PartWriter(Folder(str(out)), CommitLog(), file_format="parquet")
    row = captioned("a", "/a.jpg") | {"shard_id": "5", "next_offset": 9, "last": True}
    part_writer.write(pa.Table.from_pylist([row], schema=CAPTIONED))
    part_writer.commit()
    output(tmp_path, [captioned("b", "/b.jpg")])
    assert set(rows_of(gallery(out))) == {"a"}


def test_the_manifest_tells_of_the_job(tmp_path: Path) -> None:
    out = output(tmp_path, images(tmp_path, 2))
    manifest = {"totals": {"rows": 2}, "captioner": {"name": "mine"}, "run": {"images_per_s": 5.5}}
    (out / "_manifest.json").write_text(json.dumps(manifest))
    summary = script(gallery(out))[0]
    assert (summary["captioner"], summary["images_per_s"], summary["finished"]) == ("mine", 5.5, True)


def test_a_job_without_a_manifest_is_unfinished(tmp_path: Path) -> None:
    out = output(tmp_path, images(tmp_path, 2))
    (out / "_job.json").write_text('{"captioner": {"name": "mine"}}')
    summary = script(gallery(out))[0]
    assert (summary["captioner"], summary["images_per_s"], summary["finished"]) == ("mine", None, False)


def test_a_second_page_keeps_nothing_of_the_first(tmp_path: Path) -> None:
    page = gallery(output(tmp_path, images(tmp_path, 5)))
    keep = page.with_name("index_files") / "thumbnails" / "mine.txt"
    keep.write_text("")
    gallery(output(tmp_path, images(tmp_path, 2)))
    assert len(list(page.with_name("index_files").rglob("*.jpg"))) == 2
    assert keep.exists()


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_an_output_without_good_parts_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "part-0.parquet").write_bytes(content)
    with pytest.raises(OutputError, match="part-0" if content else "holds no rows"):
        run(GalleryConfig(output=str(tmp_path)))
    assert not (tmp_path / "_gallery").exists()


def test_a_page_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    out = output(tmp_path, images(tmp_path, 1))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the page"):
        run(GalleryConfig(output=str(out), page=str(tmp_path / "file" / "x.html")))


@pytest.mark.parametrize(
    "options", [{"thumbnail_size": 0}, {"max_images": 0}, {"seed": -1}, {"page": "s3://b/x.html"}, {"output": "s3://b"}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        GalleryConfig(**{"output": "out"} | options)


def test_the_command_prints_where_the_page_is(tmp_path: Path) -> None:
    out = output(tmp_path, images(tmp_path, 3))
    command = [sys.executable, "-m", "jobs.cli", "gallery", str(out), "--max-images=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == f"{out / '_gallery' / 'index.html'}\n"
    assert "3 captions and 0 errors, a sample of 2 shown" in done.stderr
