"""Prometheus metrics of a captioning job, exported through Ray.

The driver publishes them, since it sees every row; queues between stages and actors are in Ray Data's own metrics.
`grafana.json` shows both.
"""

from __future__ import annotations

from collections.abc import Mapping

IMAGES, ERRORS, IMAGE_BYTES = "shardtalk_images", "shardtalk_errors", "shardtalk_image_bytes"
BUSY_S, ROWS_WAITING, BATCH_IMAGES = "shardtalk_busy_seconds", "shardtalk_rows_waiting", "shardtalk_batch_images"


class Metrics:
    """The metrics of this process, which must be connected to Ray."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self._counters = {
            IMAGES: Counter(IMAGES, "Captioned images."),
            ERRORS: Counter(ERRORS, "Rows without a caption.", tag_keys=("error_code",)),
            IMAGE_BYTES: Counter(IMAGE_BYTES, "Bytes of encoded images."),
            BUSY_S: Counter(BUSY_S, "Seconds spent in a stage, of all its workers.", tag_keys=("stage",)),
        }
        self._rows_waiting = Gauge(ROWS_WAITING, "Captioned rows that are not committed yet.")
        self._batch_images = Gauge(BATCH_IMAGES, "Images captioned at a time, on average.")
        self._published: dict[tuple[str, str], float] = {}

    def publish(
        self,
        *,
        images: int,
        errors: Mapping[str, int],
        image_bytes: int,
        busy_s: Mapping[str, float],
        rows_waiting: int,
        batch_images: float,
    ) -> None:
        """Publishes the state of the run.

        Args:
            images: captioned so far.
            errors: rows without a caption so far, by error code.
            image_bytes: bytes of encoded images so far.
            busy_s: seconds spent in each stage so far, summed over its workers.
            rows_waiting: captioned rows that are not committed yet.
            batch_images: average images per batch.
        """
        self._increase(IMAGES, images)
        self._increase(IMAGE_BYTES, image_bytes)
        for code, count in errors.items():
            self._increase(ERRORS, count, error_code=code)
        for stage, seconds in busy_s.items():
            self._increase(BUSY_S, seconds, stage=stage)
        self._rows_waiting.set(rows_waiting)
        self._batch_images.set(batch_images)

    def _increase(self, name: str, total: float, **tags: str) -> None:
        key = (name, "".join(tags.values()))
        if (more := total - self._published.get(key, 0.0)) > 0:
            self._counters[name].inc(more, tags=tags)
            self._published[key] = total
