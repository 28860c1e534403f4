"""The example docs/examples/openai_captioner.py, against a small server on this machine."""

import base64
import io
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Run, encoded, pictures, rows_of
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
GREY = (90, 90, 90)


class Service(BaseHTTPRequestHandler):
    """Answers with the size of the image that it is sent, and misbehaves as its width says."""

    asked: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()
    meeting = threading.Barrier(2, timeout=20)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, image = request["messages"][0]["content"]
        shown = Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2])))
        with self.lock:
            self.asked[f"{shown.width}"] += 1
            times = self.asked[f"{shown.width}"]
        if request["model"] == "none" or self.headers["Authorization"] != "Bearer secret":
            return self.answer(404, {"error": "no such model"})
        if shown.width == 33 and times == 1:
            return self.answer(429, {}, {"Retry-After": "0"})
        if shown.width == 34 and times == 1:
            return self.answer(503, {}, {"Retry-After": "0"})
        if shown.width == 35:
            return self.answer(400, {"error": "refused by a filter"})
        if shown.width in (36, 37):  # both are there before either is answered
            self.meeting.wait()
        usage = {"prompt_tokens": 1000, "completion_tokens": 3}
        choice: dict[str, Any] = {"message": {"content": f"{text['text']} {shown.width}\n"}, "finish_reason": "stop"}
        if request.get("logprobs"):
            choice["logprobs"] = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}
        return self.answer(200, {"choices": [choice], "usage": usage})

    def answer(self, status: int, body: Any, headers: Any = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a service; the working directory is that of the examples."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    Service.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/"
        server.shutdown()


def arguments(service: str, **options: Any) -> tuple[str, ...]:
    given = {"url": service, "model": "tiny", "prompt": "How wide?"} | options
    return (
        "--captioner",
        "openai_captioner:OpenAICaptioner",
        "--captioner_args",
        json.dumps(given),
        "--runner",
        "local",
    )


@pytest.mark.parametrize("logprobs", [True, False])
def test_rows_tell_captions_costs_and_refusals(logprobs: bool, service: str, shardtalk: Run, tmp_path: Path) -> None:
    photos, out = pictures(tmp_path / "in", 5), tmp_path / "out"  # 33 to 37 pixels wide
    options = {"concurrency": 2, "input_price": 0.5, "output_price": 2.0, "logprobs": logprobs}
    code, said = shardtalk("caption", photos, "--output", out, *arguments(service, **options))
    assert code == 0, said
    rows = rows_of(out)
    assert [row["caption"] for row in rows] == [f"How wide? {w}" if w != 35 else None for w in range(33, 38)]
    refused = rows.pop(2)
    assert refused["error_code"] == "captioner_failed" and "status 400" in refused["error_message"]
    assert "refused by a filter" in refused["error_message"] and refused["cost"] is None
    for row in rows:
        assert (row["log_prob"], row["num_tokens"]) == ((-0.75, 2) if logprobs else (None, 3))
        assert (row["input_tokens"], row["output_tokens"], row["cost"]) == (1000, 3, pytest.approx(0.000506))
    assert Service.asked == {"33": 2, "34": 2, "35": 1, "36": 1, "37": 1}
    assert shardtalk("verify", out, photos)[0] == 0
    assert b"secret" not in b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_what_every_request_would_get_ends_the_job(service: str, shardtalk: Run, tmp_path: Path) -> None:
    photos = pictures(tmp_path / "in", 2)
    code, said = shardtalk("caption", photos, "--output", tmp_path / "out", *arguments(service, model="none"))
    assert code == 2 and 'v1/ answers 404: {"error": "no such model"}' in said and "Traceback" not in said


def test_large_images_are_made_smaller(service: str, shardtalk: Run, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded(Image.new("RGB", (900, 300), GREY), "PNG"))
    usual = arguments(service, max_side=300)
    assert shardtalk("caption", tmp_path / "large.png", "--output", tmp_path / "out", *usual)[0] == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["caption"] == "How wide? 300"
