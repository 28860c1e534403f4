"""Real-world Parquet files and lists of paths and URLs."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, codes, jpeg, pictures, rows_of
from web_server import IMAGES, Misbehaving

from cluster.connect import Resources

ALL_ERRORS = ("--max_error_rate", 1)


def test_paths_in_a_table_are_read_and_lead_nowhere_else(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder, outside = pictures(tmp_path / "in", 2), pictures(tmp_path / "else", 1)
    (folder / "link.jpg").symlink_to(outside / "0.jpg")
    good = ["0.jpg", "./1.jpg", f"{folder}/0.jpg", "x/../1.jpg"]
    (folder / "x").mkdir()
    bad = [
        "../else/0.jpg",
        "link.jpg",
        f"{outside}/0.jpg",
        "/etc/passwd",
        "gone.jpg",
        "x",
        "a\0b.jpg",
        f"file://{outside}/0.jpg",
    ]
    table = pa.table({"image": [{"bytes": None, "path": path} for path in [*good, *bad]]})
    pq.write_table(table, folder / "t.parquet")
    assert caption(folder / "t.parquet", *ALL_ERRORS)[0] == 0
    assert codes(tmp_path / "out") == dict.fromkeys(good) | dict.fromkeys(bad, "unreadable")
    assert shardtalk("verify", tmp_path / "out", folder / "t.parquet")[0] == 0
    allowed = ("--images_root", tmp_path, "--image_column", "image.path")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "else/0.jpg"}]}), folder / "u.parquet")
    assert caption(folder / "u.parquet", *allowed, output=tmp_path / "other")[0] == 0
    assert codes(tmp_path / "other") == {"else/0.jpg": None}
    assert shardtalk("verify", tmp_path / "other", folder / "u.parquet")[0] == 0


def test_a_column_is_chosen(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    pq.write_table(pa.table({"before": [jpeg(0)], "after": [jpeg(1)], "name": ["n"]}), tmp_path / "t.parquet")
    assert caption(tmp_path / "t.parquet", *ALL_ERRORS, output=tmp_path / "asked")[0] == 0
    (row,) = rows_of(tmp_path / "asked")
    assert row["error_code"] == "no_image" and "--image_column takes one of before, after" in row["error_message"]
    assert caption(tmp_path / "t.parquet", "--image_column", "after", "--key_column", "name")[0] == 0
    assert codes(tmp_path / "out") == {"n": None}
    assert shardtalk("verify", tmp_path / "out", tmp_path / "t.parquet")[0] == 0
    code, said = caption(tmp_path / "t.parquet", "--image_column", "before", "--key_column", "name")
    assert code == 2 and "image_column was 'after' and is 'before'" in said


def odd_tables() -> dict[str, tuple[pa.Table, list[str | None]]]:
    bad_text = pa.StringArray.from_buffers(2, *pa.array([b"ok", b"\xff\xfe"]).buffers()[1:])
    two = [pa.array([jpeg(1)]), pa.array([jpeg(2)])]
    return {
        "bad_utf8": (pa.table({"image": [jpeg(0), jpeg(1)], "key": bad_text}), [None, None]),
        "same_name": (pa.Table.from_arrays(two, names=["image", "image"]), ["no_image"]),
        "same_other": (pa.Table.from_arrays([two[0], two[1], two[1]], names=["image", "x", "x"]), [None]),
        "no_columns": (pa.table({}), ["no_image"]),
        "no_rows": (pa.table({"image": pa.array([], pa.binary())}), ["empty_shard"]),
        "null": (pa.table({"image": pa.array([None, jpeg(1), b""], pa.binary())}), ["no_image", None, "empty_file"]),
        "id_zero": (pa.table({"image": [jpeg(0), jpeg(1)], "id": [7, 0]}), [None, None]),
    }


@pytest.mark.parametrize("name", odd_tables())
def test_odd_tables_are_rows(name: str, tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    table, expected = odd_tables()[name]
    pq.write_table(table, tmp_path / "t.parquet")
    assert caption(tmp_path / "t.parquet", *ALL_ERRORS)[0] == 0
    assert [row["error_code"] for row in rows_of(tmp_path / "out")] == expected
    assert shardtalk("verify", tmp_path / "out", tmp_path / "t.parquet")[0] == 0


def test_a_list_of_lists_is_the_same_after_any_interruption(tmp_path: Path, caption: Run) -> None:
    images = [[jpeg(0), jpeg(1)], [], [jpeg(2), None, jpeg(3)]]
    pq.write_table(pa.table({"images": images}), tmp_path / "t.parquet", row_group_size=2)
    assert caption(tmp_path / "t.parquet", "--rows_per_file", 1, "--batch_size", 1, *ALL_ERRORS)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [row["error_code"] for row in rows] == [None, None, "no_image", None, "no_image", None]
    for record in sorted((tmp_path / "out" / "_commits").iterdir()):
        record.unlink()
        assert caption(tmp_path / "t.parquet", *ALL_ERRORS)[0] == 0
        assert rows_of(tmp_path / "out") == rows


def written(path: Path, locations: list[str]) -> Path:
    """Writes a list in the format of the path's extension."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({"file_name": location, "text": "t"}) for location in locations]
    elif path.suffix == ".csv":
        lines = ["text,file_name", *(f"t,{location}" for location in locations)]
    else:
        lines = locations
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("name", ["l.txt", "l.csv", "l.jsonl"])
def test_a_list_is_an_input(name: str, tmp_path: Path, caption: Run, shardtalk: Run, web_server: str) -> None:
    pictures(tmp_path / "in", 2)
    IMAGES["/good.jpg"] = IMAGES["/busy.jpg"] = jpeg(3)
    good = [
        "in/0.jpg",
        f"{tmp_path}/in/1.jpg",
        f"{web_server}/good.jpg",
        f"{web_server}/busy.jpg",
        f"{web_server}/moved.jpg",
    ]
    bad = ["gone.jpg", "in", f"{web_server}/404.jpg", f"{web_server}/torn.jpg", "nosuch://b/a.jpg", "in/s.tar"]
    given = written(tmp_path / name, [*good, *bad])
    code, said = caption(given, *ALL_ERRORS, "--rows_per_file", 3, "--batch_size", 3)
    assert code == 0, said
    rows = rows_of(tmp_path / "out")
    assert [row["image_id"] for row in rows] == [*good, *bad]
    assert [row["error_code"] for row in rows] == [None] * 5 + ["unreadable"] * 6
    assert shardtalk("verify", tmp_path / "out", given)[0] == 0
    asked = Misbehaving.asked["/good.jpg"]
    sorted((tmp_path / "out" / "_commits").iterdir())[-1].unlink()
    assert caption(given, *ALL_ERRORS)[0] == 0
    assert rows_of(tmp_path / "out") == rows
    assert Misbehaving.asked["/good.jpg"] - asked <= 2  # `moved` leads there, too


def test_a_list_of_standard_input(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "in", 3)
    monkeypatch.chdir(tmp_path)

    def piped(text: str, *command: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return caption("-") if not command else shardtalk(*command)

    assert piped("in/0.jpg\nin/2.jpg\n")[0] == 0
    assert codes(tmp_path / "out") == {"in/0.jpg": None, "in/2.jpg": None}
    assert piped("in/0.jpg\nin/2.jpg\n", "verify", tmp_path / "out", "-")[0] == 0
    code, said = piped("in/0.jpg\n")
    assert code == 2 and "has changed" in said
    code, said = piped("")
    assert code == 2 and "standard input, but it is empty" in said


def test_an_image_of_the_web_is_an_input(tmp_path: Path, caption: Run, shardtalk: Run, web_server: str) -> None:
    IMAGES["/good.jpg?size=3"] = jpeg(3)
    given = [f"{web_server}/good.jpg?size=3", f"{web_server}/404.png"]
    assert caption(*given, *ALL_ERRORS)[0] == 0
    assert codes(tmp_path / "out") == {given[0]: None, given[1]: "unreadable"}
    assert shardtalk("verify", tmp_path / "out", *given)[0] == 0
    code, said = caption(f"{web_server}/video.mp4", output=tmp_path / "other")
    assert code == 2 and "ffmpeg" in said


def test_both_runners_give_the_rows_of_a_list(
    tmp_path: Path, caption: Run, web_server: str, local_ray: Resources
) -> None:
    IMAGES["/good.jpg"] = jpeg(3)
    pictures(tmp_path, 4)
    given = written(tmp_path / "l.csv", ["0.jpg", f"{web_server}/good.jpg", "gone.jpg", "3.jpg"])
    assert caption(given, *ALL_ERRORS)[0] == 0
    assert caption(given, *ALL_ERRORS, "--runner", "ray", output=tmp_path / "ray")[0] == 0
    assert codes(tmp_path / "ray") == codes(tmp_path / "out")
