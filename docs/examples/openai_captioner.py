"""Captions images by a service that speaks OpenAI's chat completions: vLLM's server, and others.

    export OPENAI_API_KEY=…
    shardtalk caption photos/ --output captions --captioner openai_captioner:OpenAICaptioner \
        --captioner_args '{url: "http://localhost:8000/v1", model: Qwen/Qwen2.5-VL-7B-Instruct, concurrency: 32}'

Each row says how many tokens it cost; with prices, it says how much money. Requests that are refused for now (429) or
fail (5xx) are repeated, after the pause that the service asks for. An image that the service refuses is a row with
`captioner_failed`; a wrong key, model or address ends the job.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import urllib3
from PIL import Image

from shardtalk import Candidate, Caption, CaptionerError, ImageCaptioner, RgbImages

REPEATED = frozenset({408, 409, 429, 500, 502, 503, 504})
"""Statuses that may pass."""
HOPELESS = frozenset({401, 402, 403, 404})
"""Statuses that every request would get: key, account, address or model."""
OK = 200
MILLION = 1e6


@dataclass
class OpenAICaptioner(ImageCaptioner):
    """A model behind `POST url/chat/completions`.

    Args:
        url: the address up to `/v1`.
        model: name of the model there.
        prompt: question about each image.
        max_tokens: maximum length of a caption, in tokens.
        max_side: longest side of the images that are sent, in pixels; smaller ones cost fewer tokens.
        concurrency: number of requests at the same time, in each process that captions.
        retries: number of times that a request is repeated.
        timeout_s: seconds to wait for an answer.
        logprobs: ask for log-probabilities, which not every service has.
        input_price, output_price: price of a million tokens of each kind.
    """

    url: str
    model: str
    prompt: str = "Describe the image in one sentence."
    max_tokens: int = 100
    max_side: int = 768
    concurrency: int = 8
    retries: int = 6
    timeout_s: float = 120.0
    logprobs: bool = True
    input_price: float = 0.0
    output_price: float = 0.0

    uses_gpu = False
    columns = pa.schema([("input_tokens", pa.int32()), ("output_tokens", pa.int32()), ("cost", pa.float64())])

    def __post_init__(self) -> None:
        self.inputs = RgbImages(max_side=self.max_side)
        self.batch_size = 4 * self.concurrency  # so that few requests wait for the last ones of a batch

    @property
    def identity(self) -> str:
        """What decides the captions; the key and the address are not among it."""
        return json.dumps([self.model, self.prompt, self.max_tokens, self.max_side])

    def load(self, device: str) -> None:
        """Opens the connections. The key is read here, so it is neither pickled nor stored."""
        retry = urllib3.Retry(
            total=self.retries,
            status_forcelist=REPEATED,
            allowed_methods=None,  # POST, too
            backoff_factor=1.0,
            backoff_jitter=1.0,
            respect_retry_after_header=True,
            raise_on_status=False,
        )
        timeout = urllib3.Timeout(connect=10.0, read=self.timeout_s)
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        self._http = urllib3.PoolManager(maxsize=self.concurrency, retries=retry, timeout=timeout, headers=headers)
        self._threads = ThreadPoolExecutor(self.concurrency)

    def caption(self, images: Sequence[Image.Image]) -> list[Caption | Exception]:
        """Sends a request for each image; one that fails costs its own row only."""
        return list(self._threads.map(self._caption_or_error, images))

    def close(self) -> None:
        """Closes the connections."""
        self._threads.shutdown()
        self._http.clear()

    def _caption_or_error(self, image: Image.Image) -> Caption | Exception:
        try:
            return self._caption(image)
        except CaptionerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this image only
            return error

    def _caption(self, image: Image.Image) -> Caption:
        answer = self._http.request(
            "POST", f"{self.url.rstrip('/')}/chat/completions", body=json.dumps(self._request(image))
        )
        if answer.status in HOPELESS:
            raise CaptionerError(f"{self.url} answers {answer.status}: {answer.data[:200].decode(errors='replace')}")
        if answer.status != OK:
            raise RuntimeError(f"status {answer.status}: {answer.data[:200].decode(errors='replace')}")
        found = answer.json()
        choice, usage = found["choices"][0], found.get("usage") or {}
        text = choice["message"]["content"]
        if not text:
            raise RuntimeError(f"no caption; the service ended with {choice.get('finish_reason')!r}")
        tokens = (choice.get("logprobs") or {}).get("content") or []
        candidate = Candidate(
            " ".join(text.split()),
            sum(token["logprob"] for token in tokens) if tokens else None,
            len(tokens) or usage.get("completion_tokens"),
        )
        return Caption([candidate], self._cost(usage.get("prompt_tokens"), usage.get("completion_tokens")))

    def _request(self, image: Image.Image) -> dict[str, Any]:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        data = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        content = [{"type": "text", "text": self.prompt}, {"type": "image_url", "image_url": {"url": data}}]
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
        }
        return request | ({"logprobs": True} if self.logprobs else {})

    def _cost(self, inputs: int | None, outputs: int | None) -> dict[str, Any]:
        if inputs is None or outputs is None:
            return {}
        cost = (inputs * self.input_price + outputs * self.output_price) / MILLION
        return {"input_tokens": inputs, "output_tokens": outputs, "cost": cost}
