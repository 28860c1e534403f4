import io
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from pipeline.datasets.shard_writer import KeyAssigner, ShardWriter, check_image, read_image, stored_image
from pipeline.errors import DataError
from pipeline.schema import ErrorCode
from pipeline.tar.samples import read_samples


def picture(path: Path, width: int, height: int, **options: object) -> Path:
    gradient = Image.linear_gradient("L").resize((width, height))
    Image.merge("RGB", [gradient, gradient.rotate(180), gradient]).save(path, **options)
    return path


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def write(folder: Path, count: int, shard_images: int = 3) -> list[Path]:
    with ShardWriter(folder, "val", shard_images=shard_images) as writer:
        for i in range(count):
            writer.write(f"k{i}", {"jpg": bytes(700 * i), "json": b"{}"})
    return writer.shards


def test_samples_fill_shards_in_order(tmp_path: Path) -> None:
    shards = write(tmp_path, 7)
    assert [shard.name for shard in shards] == ["val-000000.tar", "val-000001.tar", "val-000002.tar"]
    keys = [[s.key for s in read_samples(io.BytesIO(t.read_bytes()), size=t.stat().st_size)] for t in shards]
    assert keys == [["k0", "k1", "k2"], ["k3", "k4", "k5"], ["k6"]]


def test_full_shards_leave_no_empty_one_behind(tmp_path: Path) -> None:
    write(tmp_path, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["val-000000.tar", "val-000001.tar"]


def test_nothing_written_makes_no_folder(tmp_path: Path) -> None:
    assert write(tmp_path / "none", 0) == []
    assert not (tmp_path / "none").exists()


def test_webdataset_reads_what_was_written(tmp_path: Path) -> None:
    name = "fotos/" + "längere_" * 30 + "犬"  # over 100 bytes: a PAX header
    with ShardWriter(tmp_path, "train", shard_images=5) as writer:
        writer.write(name, {"png": b"pixels", "json": b"[1]"})
        writer.write("b", {"jpg": b"", "json": b"[2]"})
    read = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False))
    assert [(s["__key__"], s.get("png"), s["json"]) for s in read] == [(name, b"pixels", b"[1]"), ("b", None, b"[2]")]


def test_same_samples_make_the_same_bytes(tmp_path: Path) -> None:
    first, again = write(tmp_path / "first", 4), write(tmp_path / "again", 4)
    assert [shard.read_bytes() for shard in first] == [shard.read_bytes() for shard in again]


def test_an_exception_drops_the_half_shard_and_keeps_whole_ones(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "val", shard_images=2) as writer:
        for i in range(5):
            writer.write(f"k{i}", {"jpg": b"x"})
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["val-000000.tar", "val-000001.tar"]


def test_a_shard_has_its_final_name_only_when_complete(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "val", shard_images=2) as writer:
        writer.write("a", {"jpg": b"x"})
        assert [path.name for path in tmp_path.iterdir()] == ["val-000000.tar.part"]
    assert [path.name for path in tmp_path.iterdir()] == ["val-000000.tar"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("val2014/COCO_01.jpg", "val2014/COCO_01"),
        ("/a/../b c/x.y.jpg", "a/b_c/x_y"),
        ("犬 é.png", "犬_é"),
        (".hidden", "_hidden"),
        ("no_extension", "no_extension"),
        ("\udc80\n*.jpg", "___"),
        ("../..", "image"),
    ],
)
def test_keys_are_paths_without_what_troubles_tars(path: str, key: str) -> None:
    assert KeyAssigner().assign(path) == key


def test_colliding_keys_are_numbered() -> None:
    keys = KeyAssigner()
    assert [keys.assign(path) for path in ("a.jpg", "a_2.jpg", "a.png", "a.gif")] == ["a", "a_2", "a_3", "a_4"]


def test_a_good_image_passes_and_is_copied(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.JPG", 31, 17)
    check_image(path)
    assert stored_image(path, image_size=0, quality=90) == ("jpg", path.read_bytes())


def broken(folder: Path, kind: str) -> Path:
    path = folder / "x.jpg"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no image")
    elif kind == "folder":
        path.mkdir()
    elif kind in ("truncated", "progressive"):
        whole = picture(path, 640, 480, progressive=kind == "progressive").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "format":
        Image.new("F", (20, 10)).save(folder / "x.x", "SPIDER")
        return folder / "x.x"
    elif kind == "name":
        return folder / "\0.jpg"
    return path


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("missing", ErrorCode.UNREADABLE),
        ("folder", ErrorCode.UNREADABLE),
        ("name", ErrorCode.UNREADABLE),
        ("empty", ErrorCode.EMPTY_FILE),
        ("text", ErrorCode.NOT_AN_IMAGE),
        ("format", ErrorCode.NOT_AN_IMAGE),
        ("truncated", ErrorCode.CORRUPT_IMAGE),
        ("progressive", ErrorCode.CORRUPT_IMAGE),
    ],
)
def test_an_image_that_cannot_be_used_is_a_typed_error(tmp_path: Path, kind: str, code: ErrorCode) -> None:
    with pytest.raises(DataError) as refusal:
        check_image(broken(tmp_path, kind))
    assert refusal.value.code == code


def test_a_name_too_long_for_the_system_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_image(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(("size", "scaled"), [((90, 40), (45, 20)), ((40, 91), (20, 46)), ((400, 31), (258, 20))])
def test_a_larger_image_is_scaled_by_its_shorter_side(
    tmp_path: Path, size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    extension, data = stored_image(picture(tmp_path / "a.png", *size), image_size=20, quality=90)
    assert (extension, opened(data).format, opened(data).size) == ("jpg", "JPEG", scaled)


@pytest.mark.parametrize("image_size", [17, 18, 500])
def test_an_image_is_never_enlarged(tmp_path: Path, image_size: int) -> None:
    path = picture(tmp_path / "a.png", 31, 17)
    assert stored_image(path, image_size=image_size, quality=90) == ("png", path.read_bytes())


def test_a_scaled_jpeg_keeps_its_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = picture(tmp_path / "a.jpg", 160, 80, exif=exif)
    scaled = opened(stored_image(path, image_size=16, quality=90)[1])
    assert scaled.size == (32, 16)
    assert scaled.getexif()[0x0112] == 6


def test_transparency_becomes_white_when_scaled(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 70)).save(tmp_path / "a.png")
    scaled = opened(stored_image(tmp_path / "a.png", image_size=10, quality=90)[1])
    assert scaled.getpixel((5, 7)) == (255, 255, 255)


def test_a_better_quality_takes_more_bytes(tmp_path: Path) -> None:
    Image.effect_noise((120, 90), 80).save(tmp_path / "a.png")
    coarse, fine = (stored_image(tmp_path / "a.png", image_size=45, quality=quality)[1] for quality in (10, 95))
    assert len(coarse) < len(fine)


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_name_without_an_images_extension_gets_that_of_its_format(tmp_path: Path, kind: str, extension: str) -> None:
    path = picture(tmp_path / "photo.json", 9, 6, format=kind)
    check_image(path)
    assert stored_image(path, image_size=0, quality=90) == (extension, path.read_bytes())


def test_an_image_too_long_for_jpeg_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (66_000, 4)).save(path)
    assert stored_image(path, image_size=3, quality=90)[0] == "jpg"
    Image.new("L", (100_000, 4)).save(path)
    assert stored_image(path, image_size=3, quality=90) == ("png", path.read_bytes())
