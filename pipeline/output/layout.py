"""The names of the files in an output folder.

_job.json        the settings that determine the captions
_lease.json      the driver that may write; absent when none runs
_epochs/         the commits that the newest driver found, and its job: commits of older drivers do not count
_plan.json       the total amount of work, for `shardtalk status`
part-*.parquet   or .jsonl: the rows
_commits/        a commit record for each part
_exports/        the rows in other formats, on request
.huggingface.yaml  tells Hugging Face `datasets` that only the parts are data (JSON is YAML)
_manifest.json   written last, once all rows are committed; readers rely on it
"""

JOB = "_job.json"
MANIFEST = "_manifest.json"
PART = "part-"
HUGGING_FACE = ".huggingface.yaml"
