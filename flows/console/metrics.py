"""The status of a source as a text file for the textfile collector of Prometheus's node_exporter."""

import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from pipeline.errors import StorageError
from pipeline.status.progress import Status


def write(status: Status, path: Path) -> None:
    """Replace the file, atomically. Raises StorageError if it cannot be written."""
    try:
        write_to_textfile(str(path), registry(status))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from None


def registry(status: Status) -> CollectorRegistry:
    """Every figure as a gauge with the label `source`. What is not known has no sample."""
    made = CollectorRegistry()

    def gauge(name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"winnow_{name}", what, ("source", *labels), registry=made)

    source = status.source
    gauge("run_writing", "1 while a run is writing, else 0.").labels(source).set(status.running)
    gauge("last_run_failed", "1 if the last run failed or was killed, else 0.").labels(source).set(
        status.state in ("failed", "killed")
    )
    gauge("pairs", "Pairs of all shards.").labels(source).set(status.pairs)
    gauge("quarantined_shards", "Shards that the last run gave up.").labels(source).set(len(status.quarantined))
    gauge("missing_objects", "Objects that were stored and do not exist.").labels(source).set(len(status.missing))
    gauge("look_timestamp_seconds", "When this file was written.").labels(source).set(time.time())
    total = gauge("shards", "Shards of a stage.", "stage")
    done = gauge("shards_done", "Shards of a stage that are done.", "stage")
    rate = gauge("shards_per_second", "Shards that a stage does in a second, lately.", "stage")
    for stage in status.stages:
        total.labels(source, stage.name).set(stage.total)
        done.labels(source, stage.name).set(stage.done)
        if stage.per_second is not None:
            rate.labels(source, stage.name).set(stage.per_second)
    failed = gauge("failed_pairs", "Pairs that failed, by cause.", "cause")
    for cause, count in status.failed.items():
        failed.labels(source, cause).set(count)
    left = gauge("seconds_left", "Seconds until all shards are downloaded and scored, at this rate.")
    if status.seconds_left is not None:
        left.labels(source).set(status.seconds_left)
    busy = gauge("gpu_busy_ratio", "Share of time in which a GPU of the run computed, lately.", "gpu")
    for gpu in status.gpus:
        busy.labels(source, gpu.name).set(gpu.busy)
    return made
