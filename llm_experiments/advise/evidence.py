"""What the records say about a method: verdicts of the claims behind it, and benchmarks that measured it."""

from __future__ import annotations

from typing import Any

from reports.store import RecordError, iter_record_paths, read_record, record_path

# The arms of the benchmark of training steps that are methods of the registry.
ARMS = {"full": "full", "lora": "lora", "dora": "dora", "s2ft_r": "s2ft", "cla": "cla"}
SWITCHING = "s2ft/switch_exactness"


def claim(name: str) -> str:
    """A claim with its recorded statuses, such as `s2ft/lemma_f12 (proved)`."""
    try:
        record = read_record(record_path("claims", name))
    except RecordError:
        return f"{name} (no record)"
    statuses = list(dict.fromkeys(verdict["status"] for verdict in record["verdicts"]))
    return f"{name} ({', '.join(statuses)})".replace("_within", " within")


def benchmark(method: str) -> tuple[str, float] | None:
    """The record of the training-step benchmark that has this method, and its time over full tuning."""
    arm = ARMS.get(method)
    for path in iter_record_paths("bench"):
        record = read_record(path)
        if arm is None or not str(record.get("id", "")).startswith("training_step/"):
            continue
        rows = {
            row["arm"]: row["step ms"]
            for row in record["tables"].get("Arms", [])
            if row.get("base") == "plain" and isinstance(row.get("step ms"), (int, float))
        }
        if arm in rows and rows.get("full"):
            return f"bench/{record['id']}", rows[arm] / rows["full"]
    return None


def switching() -> str | None:
    """What the benchmark of switching says of its largest layer, with the record's name."""
    for path in iter_record_paths("bench"):
        record: dict[str, Any] = read_record(path)
        if str(record.get("id", "")).startswith("switching/"):
            return f"{record['headline']} [bench/{record['id']}]"
    return None
