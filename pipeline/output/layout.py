"""The names of the files in an output folder.

_job.json        what decides the captions
_lease.json      which driver may write; gone when nobody does
_epochs/         which commits the newest driver found, and the job: what older drivers write does not count
_plan.json       how much there is to do in all, for `shardtalk status`
part-*.parquet   or .jsonl: the rows
_commits/        a record for each part
_exports/        other forms of the rows, on request
.huggingface.yaml  tells Hugging Face `datasets` that only the parts are data (JSON is YAML)
_manifest.json   written last, once every input is committed; readers trust it
"""

JOB = "_job.json"
MANIFEST = "_manifest.json"
PART = "part-"
HUGGING_FACE = ".huggingface.yaml"
