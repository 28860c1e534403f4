"""Input and output on an object store, over HTTP, by a server of moto's on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from conftest import Run, jpeg, pictures, rows_of, tar_bytes
from moto.server import ThreadedMotoServer

SECRET = "not-to-be-written-anywhere"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a new bucket; the environment says how to reach it, as it does for users."""
    monkeypatch.setattr("pipeline.lease.SETTLING_S", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    yield "s3://photos"
    for entry in client.list_objects_v2(Bucket="photos").get("Contents", []):
        client.delete_object(Bucket="photos", Key=entry["Key"])
    client.delete_bucket(Bucket="photos")


def put(files: dict[str, bytes]) -> None:
    for key, data in files.items():
        boto3.client("s3").put_object(Bucket="photos", Key=key, Body=data)


def contents() -> dict[str, bytes]:
    client = boto3.client("s3")
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="photos")["Contents"]]
    return {key: client.get_object(Bucket="photos", Key=key)["Body"].read() for key in keys}


INPUT = {
    "in/a.jpg": jpeg(0),
    "in/b/50% off?#+ü.jpg": jpeg(1),
    "in/empty.jpg": b"",
    "in/notes.txt": b"mine",
    "in/s-0.tar": tar_bytes({"k0.jpg": jpeg(2), "k1.jpg": jpeg(3), "k1.txt": b"said"}),
    "in/cut.tar": tar_bytes({"c0.jpg": jpeg(4), "c1.jpg": jpeg(5)})[:-2000],
}


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_rows_are_those_of_the_same_files_here(
    form: str, bucket: str, tmp_path: Path, caption: Run, shardtalk: Run
) -> None:
    put(INPUT)
    for name, data in INPUT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    code, said = caption(f"{bucket}/in", "--format", form, "--vis_json", True, output=f"{bucket}/out")
    assert code == 0 and "ignored 1 other files: .txt 1" in said
    assert caption(tmp_path / "in", "--format", form, output=tmp_path / "here")[0] == 0
    there, here = (
        {(row["image_id"], row["index"]): (row["caption"], row["error_code"]) for row in rows_of(output)}
        for output in (f"{bucket}/out", tmp_path / "here")
    )
    assert there == here and len(here) == 7
    assert shardtalk("verify", f"{bucket}/out", f"{bucket}/in")[0] == 0
    assert len(json.loads(contents()["out/_exports/vis.json"])) == 5
    assert not any(SECRET.encode() in data for data in contents().values())


def test_a_half_done_job_goes_on(bucket: str, caption: Run, shardtalk: Run) -> None:
    put({"in/s.tar": tar_bytes({f"k{i}.jpg": jpeg(i) for i in range(9)})})
    job = (f"{bucket}/in", "--batch_images", 2, "--fragment_rows", 2)
    assert caption(*job, output=f"{bucket}/out")[0] == 0
    whole = contents()
    records = sorted(key for key in whole if "_commits" in key)
    assert len(records) == 5
    for key in (records[1], records[3], "out/_manifest.json"):
        boto3.client("s3").delete_object(Bucket="photos", Key=key)
    assert shardtalk("verify", f"{bucket}/out")[0] == 1
    code, said = caption(*job, output=f"{bucket}/out")
    assert code == 0 and "9 captions and 0 errors" in said
    assert shardtalk("verify", f"{bucket}/out", f"{bucket}/in")[0] == 0
    parts = {key for key in whole if "part-" in key and "_commits" not in key}
    assert all(contents()[key] == whole[key] for key in parts)


def test_a_captioner_is_fetched_once(
    bucket: str, tmp_path: Path, captioner: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put({f"zoo/tiny/{file.name}": file.read_bytes() for file in captioner.iterdir()})
    folder = pictures(tmp_path / "in", 3)
    assert caption(folder, output=tmp_path / "here")[0] == 0
    for output in ("first", "second"):
        assert caption(folder, "--captioner", f"{bucket}/zoo/tiny/", output=tmp_path / output)[0] == 0
        assert rows_of(tmp_path / output) == rows_of(tmp_path / "here")
    (copy,) = (tmp_path / "cache").rglob("model.safetensors")
    assert (copy.parent / "config.json").read_bytes() == (captioner / "config.json").read_bytes()
    assert json.loads((tmp_path / "first" / "_job.json").read_text())["captioner"]["name"] == "tiny"


def test_what_is_not_there_is_refused_in_one_line(bucket: str, tmp_path: Path, caption: Run) -> None:
    for given, expected in {
        f"{bucket}/nothing": "there is no s3://photos/nothing",
        "s3://nobodys/in": "s3://nobodys/in",
    }.items():
        code, said = caption(given)
        assert code == 2 and expected in said and said.count("\n") == 1, said
    for given in (f"{bucket}/zoo/none", "s3://nobodys/zoo/none"):
        code, said = caption(pictures(tmp_path / "in", 1), "--captioner", given)
        assert code == 2 and "captioner" in said and "none" in said and said.count("\n") == 1, said
    code, said = caption(pictures(tmp_path / "in", 1), output="s3://nobodys/out")
    assert code == 2 and "s3://nobodys/out" in said and said.count("\n") == 1, said
