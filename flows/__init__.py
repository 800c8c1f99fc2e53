"""When and where: the only importers of prefect and typer. Nothing that winnow starts phones home."""

import os

for _name, _value in {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "disabled",
}.items():
    os.environ.setdefault(_name, _value)
