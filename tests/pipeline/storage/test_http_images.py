"""Images from a web server with faults."""

import pytest
from web_server import BODY, Misbehaving

from pipeline.errors import DataError
from pipeline.storage import http_images


@pytest.mark.parametrize("kind", ["good", "busy", "cut", "reset", "moved"])
def test_what_passes_is_tried_again(web_server: str, kind: str) -> None:
    assert http_images.get(f"{web_server}/{kind}.jpg") == BODY


@pytest.mark.parametrize(
    ("kind", "message", "times"),
    [
        ("404", "HTTP status 404", 1),
        ("204", "HTTP status 204", 1),
        ("500", "HTTP status 500, after 4 attempts", 4),
        ("torn", "after 4 attempts", 4),
        ("later", "HTTP status 429, after 1 attempts", 1),
        ("circle", "redirected more than 5 times", 6),
        ("file", "not a URL of http", 1),
    ],
)
def test_what_stays_is_unreadable(web_server: str, kind: str, message: str, times: int) -> None:
    with pytest.raises(DataError, match=message) as raised:
        http_images.get(f"{web_server}/{kind}.jpg")
    assert raised.value.code == "unreadable"
    assert Misbehaving.asked[f"/{kind}.jpg"] == times


@pytest.mark.parametrize("kind", ["good", "endless"])
def test_an_image_that_is_too_large_is_not_read(web_server: str, kind: str) -> None:
    with pytest.raises(DataError, match="max_image_bytes") as raised:
        http_images.get(f"{web_server}/{kind}.jpg", max_bytes=len(BODY) - 1)
    assert raised.value.code == "too_large"


@pytest.mark.parametrize(
    "url", ["http://", "http://[/a.jpg", "http://127.0.0.1:1/a.jpg", f"http://{'a' * 99}/b", "http://h:x/"]
)
def test_urls_that_lead_nowhere_are_unreadable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_images, "FIRST_PAUSE_S", 0.0)
    with pytest.raises(DataError) as raised:
        http_images.get(url)
    assert raised.value.code == "unreadable"
