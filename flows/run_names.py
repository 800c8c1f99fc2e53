"""Names of flow runs in Prefect's pages: the source, and the manifest once it is known."""

from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

SHOWN = 12
"""Characters of a manifest's id. They are enough for every command."""


def of_source() -> str:
    """The name of a run that begins, from its parameters: "cc3m", or "cc3m f965af92de3c" if they name a manifest."""
    given = flow_run.parameters
    return _name(Path(str(given["source"])).stem, given.get("manifest"))


def rename(source: str, manifest: str, more: str = "") -> None:
    """Name the run of this flow by its source and its manifest. A name that cannot be changed is no error."""
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, name=f"{_name(source, manifest)}{more}")
    except (PrefectException, OSError):
        return


def _name(source: str, manifest: str | None) -> str:
    return f"{source} {manifest[:SHOWN]}" if manifest else source
