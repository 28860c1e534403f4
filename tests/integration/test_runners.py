"""Both runners give the same rows, whatever the size of batches and parts."""

import tarfile
from pathlib import Path

import pytest
from conftest import Run, assert_same, jpeg, pictures, rows_of, tar_bytes, tar_of_pictures
from tolerances import same_log_prob

from cluster.connect import Resources
from configs.verify import VerifyConfig
from jobs.verify import run as verify
from pipeline.inference import actor_startup
from pipeline.readers import splitting

KEPT = ("--siblings", "txt")


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Inputs of 24 rows: a folder, a tar, a truncated tar and an unusual one, with good and bad images."""
    folder = pictures(tmp_path / "in", 7)
    (folder / "bad.jpg").write_bytes(jpeg(3)[:400])
    (folder / "link.jpg").symlink_to("nowhere")
    cut = tar_of_pictures(tmp_path / "cut.tar", 3, first=20)
    cut.write_bytes(cut.read_bytes()[:-1600])
    return [folder, tar_of_pictures(tmp_path / "s.tar", 5, first=10), cut, odd_tar(tmp_path / "odd.tar")]


def odd_tar(path: Path) -> Path:
    """Writes a tar with a repeated key, two images in a sample, a damaged header, and a link."""
    names = ["a.jpg", "a.jpg", "a.txt", "b.left.jpg", "b.right.jpg", "lost.jpg", "d.jpg"]
    data = tar_bytes([(name, b"said" if name == "a.txt" else jpeg(i)) for i, name in enumerate(names)])
    link = tarfile.TarInfo("e.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "b.left.jpg"
    at = data.index(b"lost.jpg")
    path.write_bytes(data[:at] + bytes(512) + data[at + 512 : -1024] + link.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


@pytest.fixture
def reference(inputs: list[Path], caption: Run, tmp_path: Path) -> list[dict[str, object]]:
    assert caption(*inputs, *KEPT, "--batch_size", 3, output=tmp_path / "reference")[0] == 0
    rows = rows_of(tmp_path / "reference")
    assert len(rows) == 24
    assert '{"txt": "said"}' in {row["siblings"] for row in rows}
    assert len({row["caption"] for row in rows}) > 4  # so that a row which got another's caption is found out
    return rows


@pytest.mark.parametrize(
    ("batch_size", "rows_per_file", "form"),
    [(1, 1, "jsonl"), (1, 4, "parquet"), (3, 5, "jsonl"), (32, 10_000, "parquet")],
)
def test_batches_and_fragments_change_nothing(  # noqa: PLR0917
    batch_size: int,
    rows_per_file: int,
    form: str,
    inputs: list[Path],
    reference: list[dict[str, object]],
    caption: Run,
    tmp_path: Path,
) -> None:
    cuts = ("--batch_size", batch_size, "--rows_per_file", rows_per_file, "--format", form)
    assert caption(*reversed(inputs), *KEPT, *cuts)[0] == 0
    assert_same(rows_of(tmp_path / "out"), reference)


@pytest.mark.parametrize("piece_bytes", [splitting.PIECE_BYTES, 3000])
def test_ray_gives_the_local_runners_rows(  # noqa: PLR0917
    piece_bytes: int,
    local_ray: Resources,
    inputs: list[Path],
    reference: list[dict[str, object]],
    caption: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(splitting, "PIECE_BYTES", piece_bytes)
    code, said = caption(
        *inputs, *KEPT, "--runner", "ray", "--batch_size", 3, "--ray.max_actors", 1, "--rows_per_file", 6
    )
    assert code == 0, said
    assert_same(rows_of(tmp_path / "out"), reference)
    assert verify(VerifyConfig([str(tmp_path / "out"), *map(str, inputs)])) == 0


def test_ray_finishes_what_the_local_runner_began(
    local_ray: Resources, inputs: list[Path], reference: list[dict[str, object]], caption: Run, tmp_path: Path
) -> None:
    assert caption(*inputs, *KEPT, "--batch_size", 1, "--rows_per_file", 2)[0] == 0
    for record in sorted((tmp_path / "out" / "_commits").iterdir())[::2]:
        record.unlink()
    code, said = caption(*inputs, *KEPT, "--runner", "ray", "--batch_size", 2, "--ray.max_actors", 1)
    assert code == 0, said
    assert_same(rows_of(tmp_path / "out"), reference)


def test_a_job_on_ray_says_that_it_waits_for_captioners(
    local_ray: Resources, caption: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_startup, "POLL_S", 0.01)
    code, said = caption(pictures(tmp_path / "in", 2), "--runner", "ray", "--ray.max_actors", 1)
    assert code == 0 and "shardtalk caption: 0 of 1 captioners up, waiting for the cluster\n" in said
    assert said.splitlines()[0].endswith("; device cpu; ray runner")


def test_ray_asked_to_caption_nothing_more_is_not_needed(inputs: list[Path], caption: Run) -> None:
    assert caption(*inputs)[0] == 0
    assert caption(*inputs, "--runner", "ray", "--ray.address", "127.0.0.1:1")[0] == 0


def test_both_runners_give_an_ensembles_rows(  # noqa: PLR0917
    local_ray: Resources,
    inputs: list[Path],
    captioner: Path,
    second_captioner: Path,
    caption: Run,
    tmp_path: Path,
) -> None:
    asked = ("--captioner", captioner, "--captioner", second_captioner, "--weights", "0.7,0.3")
    asked += ("--search.num_candidates", 2, "--rerank.by", "consensus", "--search.token_probs", "--batch_size", 3)
    assert caption(*inputs, *asked, output=tmp_path / "reference")[0] == 0
    code, said = caption(*inputs, *asked, "--runner", "ray", "--ray.max_actors", 1)
    assert code == 0, said
    ours, theirs = rows_of(tmp_path / "out"), rows_of(tmp_path / "reference")
    for row, other in zip(ours, theirs, strict=True):
        assert row.pop("token_probs") == same_log_prob(other.pop("token_probs"))  # of p, less than of log p
    assert_same(ours, theirs)
    assert len({row["caption"] for row in ours}) > 4
