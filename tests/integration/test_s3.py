"""Input, output and captioner on an object store, over HTTP: moto's server, or any store by `make test-s3`."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, jpeg, pictures, rows_of, tar_bytes
from faulty_store import faulty_store
from pyarrow import dataset
from pyarrow.fs import FileSelector, FileType
from s3_store import Bucket

from pipeline.errors import InputError
from pipeline.inputs.listing import list_inputs
from pipeline.storage import s3_client
from pipeline.storage.filesystems import filesystem
from pipeline.storage.folder import Folder


def table_bytes(rows: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"key": list(rows), "image": list(rows.values())}), buffer, row_group_size=2)
    return buffer.getvalue()


INPUT = {
    "in/a.jpg": jpeg(0),
    "in/b/50% off?#+ü.jpg": jpeg(1),
    "in/b/'\"<>&;=:@$,~*!()[{1..2}] \\.jpg": jpeg(2),
    "in/empty.jpg": b"",
    "in/notes.txt": b"mine",
    "in/s-0.tar": tar_bytes({"k0.jpg": jpeg(3), "k1.jpg": jpeg(4), "k1.txt": b"said"}),
    "in/cut.tar": tar_bytes({"c0.jpg": jpeg(5), "c1.jpg": jpeg(6)})[:-2000],
}
TABLES = {"tables/t.parquet": table_bytes({f"p{i}": jpeg(i) for i in range(5)})}


def captions_of(output: Path | str) -> dict[tuple[str, int], tuple[str, str]]:
    rows = rows_of(output)
    found = {(row["image_id"], row["index"]): (row["caption"], row["error_code"]) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_rows_are_those_of_the_same_files_here(
    form: str, bucket: Bucket, tmp_path: Path, caption: Run, shardtalk: Run
) -> None:
    bucket.put(INPUT | TABLES | {"in/": b"", "in/folder/": b""})  # two markers of folders, as consoles make them
    for name, data in (INPUT | TABLES).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    there, out = (f"{bucket.url}/in", f"{bucket.url}/tables"), f"{bucket.url}/out"
    code, said = caption(*there, "--format", form, "--vis_json", True, output=out)
    assert code == 0 and "ignored 1 other files: .txt 1" in said
    assert caption(tmp_path / "in", tmp_path / "tables", "--format", form, output=tmp_path / "here")[0] == 0
    assert captions_of(out) == captions_of(tmp_path / "here") and len(rows_of(out)) == 13
    assert shardtalk("verify", out, *there)[0] == 0
    code, said = shardtalk("status", out)
    assert code == 0 and said.startswith("complete\n13 rows, 2 of them errors")
    written = bucket.contents()
    assert len(json.loads(written["out/_exports/vis.json"])) == 11
    assert not any(os.environ["AWS_SECRET_ACCESS_KEY"].encode() in data for data in written.values())


def test_a_half_done_job_goes_on(bucket: Bucket, caption: Run, shardtalk: Run) -> None:
    bucket.put({"in/s.tar": tar_bytes({f"k{i}.jpg": jpeg(i) for i in range(9)})})
    job = (f"{bucket.url}/in", "--batch_size", 2, "--rows_per_file", 2)
    assert caption(*job, output=f"{bucket.url}/out")[0] == 0
    whole = bucket.contents()
    records = sorted(key for key in whole if key.endswith(".commit"))
    assert len(records) == 5
    bucket.delete([records[1], records[3], "out/_manifest.json"])
    assert shardtalk("verify", f"{bucket.url}/out")[0] == 1
    assert shardtalk("status", f"{bucket.url}/out")[1].startswith("stopped\n")
    code, said = caption(*job, output=f"{bucket.url}/out")
    assert code == 0 and "9 captions and 0 errors" in said
    assert shardtalk("verify", f"{bucket.url}/out", f"{bucket.url}/in")[0] == 0
    after = bucket.contents()
    kept = [record.replace("_commits/", "").replace(".commit", ".parquet") for record in records[::2]]
    assert all(after[part] == whole[part] for part in kept)
    assert sum(key.endswith(".parquet") for key in after) == len(records)


def test_a_captioner_is_fetched_once(
    bucket: Bucket, tmp_path: Path, captioner: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket.put({f"zoo/tiny/{file.name}": file.read_bytes() for file in captioner.iterdir()})
    folder = pictures(tmp_path / "in", 3)
    assert caption(folder, output=tmp_path / "here")[0] == 0
    for output in ("first", "second"):
        assert caption(folder, "--captioner", f"{bucket.url}/zoo/tiny/", output=tmp_path / output)[0] == 0
        assert rows_of(tmp_path / output) == rows_of(tmp_path / "here")
    (copy,) = (tmp_path / "cache").rglob("model.safetensors")
    assert (copy.parent / "config.json").read_bytes() == (captioner / "config.json").read_bytes()
    assert json.loads((tmp_path / "first" / "_job.json").read_text())["captioner"]["name"] == "tiny"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*.tar", ["in/a.tar", "in/b.tar"]),
        ("in/[b-z].tar", ["in/b.tar"]),
        ("*/*/?.tar", ["in/deep/c.tar"]),
        ("in/**/*.tar", ["in/a.tar", "in/b.tar", "in/deep/c.tar"]),
        ("in/d**", []),
        ("in/deep/**", ["in/deep/c.tar"]),
        ("in/{b,a}.tar", ["in/b.tar", "in/a.tar"]),
    ],
)
def test_wildcards_and_braces_name_keys(pattern: str, expected: list[str], bucket: Bucket) -> None:
    tar = tar_bytes({"k.jpg": jpeg(0)})
    bucket.put(dict.fromkeys(["in/a.tar", "in/b.tar", "in/deep/c.tar", "other.tar", "in/notes.txt"], tar))
    if expected:
        found = [shard.path for shard in list_inputs([f"{bucket.url}/{pattern}"]).shards]
        assert found == [f"{bucket.url}/{key}" for key in expected]
    else:
        with pytest.raises(InputError, match="nothing matches"):
            list_inputs([f"{bucket.url}/{pattern}"])


def test_a_file_may_be_larger_than_a_range(
    bucket: Bucket, tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.filesystems.RANGE_BYTES", 1000)
    files = TABLES | {"in/s.tar": tar_bytes({f"k{i}.jpg": jpeg(i) for i in range(9)})}
    bucket.put(files)
    for name, data in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    there = (f"{bucket.url}/in", f"{bucket.url}/tables")
    assert caption(*there)[0] == caption(tmp_path / "in", tmp_path / "tables", output=tmp_path / "here")[0] == 0
    assert captions_of(tmp_path / "out") == captions_of(tmp_path / "here") and len(rows_of(tmp_path / "out")) == 14
    assert shardtalk("verify", tmp_path / "out", *there)[0] == 0


def test_a_listing_may_have_many_pages(bucket: Bucket) -> None:
    names = [f"in/{i:04}.jpg" for i in range(1001)]  # a page has 1000
    bucket.put(dict.fromkeys(names, b""))
    urls = [f"{bucket.url}/{name}" for name in names]
    assert [shard.path for shard in list_inputs([f"{bucket.url}/in"]).shards] == urls
    assert [f"s3://{key}" for key in s3_client.keys_below(f"{bucket.name}/in")] == urls  # as `verify` lists them


def test_a_key_is_no_path(bucket: Bucket, caption: Run, tmp_path: Path) -> None:
    keys = ["in//b.jpg", "in/./e.jpg", "in/a.jpg", "in/c/../d.jpg", "in/ü+%41?#&=.jpg"]
    bucket.put({key: jpeg(i) for i, key in enumerate(keys)})
    assert caption(f"{bucket.url}/in")[0] == 0
    found = [(row["shard"], row["error_code"]) for row in rows_of(tmp_path / "out")]
    assert sorted(found) == sorted((f"{bucket.url}/{key}", None) for key in keys)


def test_a_write_that_fails_leaves_the_old_file(bucket: Bucket) -> None:
    folder = Folder(f"{bucket.url}/out")
    folder.write("f", b"old")
    with pytest.raises(ZeroDivisionError), folder.writer("f") as file:
        file.write(b"half of the ne")
        raise ZeroDivisionError
    assert folder.read("f") == b"old"


def test_what_is_not_there_is_refused_in_one_line(bucket: Bucket, tmp_path: Path, caption: Run) -> None:
    nobodys = f"{bucket.url}-nobodys"
    for given, expected in {
        f"{bucket.url}/nothing": f"there is no {bucket.url}/nothing",
        f"{nobodys}/in": f"{nobodys}/in",
    }.items():
        code, said = caption(given)
        assert code == 2 and expected in said and said.count("\n") == 1, said
    for given in (f"{bucket.url}/zoo/none", f"{nobodys}/zoo/none"):
        code, said = caption(pictures(tmp_path / "in", 1), "--captioner", given)
        assert code == 2 and "captioner" in said and "none" in said and said.count("\n") == 1, said
    code, said = caption(pictures(tmp_path / "in", 1), output=f"{nobodys}/out")
    assert code == 2 and f"{nobodys}/out" in said and said.count("\n") == 1, said


def test_wrong_credentials_are_refused_in_one_line_without_them(
    bucket: Bucket, tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, url = pictures(tmp_path / "in", 1), bucket.url
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
        wrong.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from here on moto asks who we are
        answers = [
            caption(f"{url}/in"),
            caption(here, "--captioner", f"{url}/zoo/tiny"),
            caption(here, output=f"{url}/out"),
            shardtalk("verify", f"{url}/out"),
            shardtalk("status", f"{url}/out"),
        ]
    for code, said in answers:
        assert code == 2 and url in said and "the store answers" in said and said.count("\n") == 1, said
        assert "a-wrong-secret" not in said


def test_credentials_in_a_url_are_refused_and_not_repeated(tmp_path: Path, caption: Run) -> None:
    here = pictures(tmp_path / "in", 1)
    for url in ("s3://key:secret@bucket/in", "s3://key:sec/ret@bucket/in"):
        for said in (caption(url), caption(here, output=url), caption(here, "--captioner", url)):
            assert (
                said[0] == 2
                and said[1].count("\n") == 1
                and not {"sec", "ret", "key"} & set(re.findall(r"\w+", said[1]))
            ), said


def conditions(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Uses the store as it is, and behind a proxy that drops conditions, which invalidates signatures."""
    yield "as it is"
    if "S3_TEST_ENDPOINT" in os.environ:
        return
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], "blind", share=1) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        yield "blind"


def test_a_file_is_created_once_where_the_store_can(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in conditions(monkeypatch):
        folder = Folder(f"{bucket.url}/{kind}")
        created = folder.create("f", b"mine")
        assert folder.exists("f") == created
        if kind == "blind" or "S3_TEST_ENDPOINT" not in os.environ:
            assert created == (kind != "blind")
        if created:
            with pytest.raises(FileExistsError):
                folder.create("f", b"another's")
            assert folder.create("f", b"mine")  # as if the answer before had been lost
            assert folder.read("f") == b"mine"


def test_a_file_is_replaced_if_it_is_still_what_it_was(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in conditions(monkeypatch):
        folder = Folder(f"{bucket.url}/{kind}")
        assert folder.version("f") is None
        folder.replace("f", b"first", None)
        version = folder.version("f")
        folder.replace("f", b"second", version)
        assert folder.read("f") == b"second" and folder.version("f") not in (None, version)
        for stale in (version, None):
            with pytest.raises(FileExistsError):
                folder.replace("f", b"third", stale)
        assert folder.read("f") == b"second"
        folder.remove("f")
        with pytest.raises(FileExistsError):
            folder.replace("f", b"third", version)
        assert folder.names() == []


def test_libraries_get_a_filesystem_of_pyarrows(bucket: Bucket) -> None:
    bucket.put(TABLES | {"tables/deep/u.parquet": table_bytes({"u": jpeg(0)})})
    system, path = pickle.loads(pickle.dumps(filesystem(f"{bucket.url}/tables")))
    assert dataset.dataset(path, filesystem=system).count_rows() == 6
    system.copy_file(f"{path}/t.parquet", f"{path}/copy.parquet")
    with system.open_output_stream(f"{path}/deep/v") as file:
        file.write(b"written")
    with system.open_input_stream(f"{path}/deep/v") as file:
        assert file.read() == b"written"
    system.move(f"{path}/deep/v", f"{path}/w")
    system.create_dir(f"{path}/new")
    found = system.get_file_info(FileSelector(path))
    assert {(info.base_name, info.type) for info in found} == {
        ("copy.parquet", FileType.File),
        ("t.parquet", FileType.File),
        ("w", FileType.File),
        ("deep", FileType.Directory),
    }
    system.delete_dir(f"{path}/deep")
    assert sorted(bucket.keys()) == ["tables/copy.parquet", "tables/t.parquet", "tables/w"]
    with pytest.raises(FileNotFoundError):
        system.open_input_file(f"{path}/deep/v")
