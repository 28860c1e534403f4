"""What a run tells Prometheus, through the metrics that every node of a Ray cluster exports.

They are published by the driver, which sees every row; queues between the stages and actors are in Ray Data's own
metrics. `grafana.json` shows both.
"""

from __future__ import annotations

from collections.abc import Mapping

IMAGES, ERRORS, IMAGE_BYTES = "shardtalk_images", "shardtalk_errors", "shardtalk_image_bytes"
BUSY_S, ROWS_WAITING, BATCH_IMAGES = "shardtalk_busy_seconds", "shardtalk_rows_waiting", "shardtalk_batch_images"


class Metrics:
    """Of this process, which must be connected to Ray."""

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
        self._told: dict[tuple[str, str], float] = {}

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
        """Tells how far the run is: all arguments are totals, `errors` by code and `busy_s` by stage."""
        self._tell(IMAGES, images)
        self._tell(IMAGE_BYTES, image_bytes)
        for code, count in errors.items():
            self._tell(ERRORS, count, error_code=code)
        for stage, seconds in busy_s.items():
            self._tell(BUSY_S, seconds, stage=stage)
        self._rows_waiting.set(rows_waiting)
        self._batch_images.set(batch_images)

    def _tell(self, name: str, total: float, **tags: str) -> None:
        key = (name, "".join(tags.values()))
        if (more := total - self._told.get(key, 0.0)) > 0:
            self._counters[name].inc(more, tags=tags)
            self._told[key] = total
