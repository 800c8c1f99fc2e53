"""Schedules: what Prefect cannot plan is refused when the source is read, and one bad source does not stop others."""

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.settings.schedule import check_schedule
from pipeline.sources import loading

LIST = '[pairs]\nlocation = "list.tsv"\n'


def written(folder, name, text):
    (folder / "list.tsv").write_text("url\tcaption\n")
    path = folder / f"{name}.toml"
    path.write_text(text + LIST)
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("every day at 6", "is no cron"),
        ("", "is no cron"),
        ("* * * *", "is no cron"),
        ("60 * * * *", "is no cron"),
        ("0 24 * * *", "is no cron"),
        ("@reboot", "is no cron"),
        ("H 6 * * *", "is no cron"),
        ("R 6 * * *", "at random"),
        ("r(0-30) 6 * * *", "at random"),
        ("0 0 30 2 *", "fits no day"),
        ("0 0 31 4,6,9,11 *", "fits no day"),
        ("0 0 31 2 mon", "fits no day"),
        ("0 0 1 1 * 0 2020", "names years"),
        ("0 0 1 1 * 0 2090", "names years"),
    ],
)
def test_a_schedule_without_dates_is_one_line(tmp_path, text, reason):
    with pytest.raises(SourceError) as error:
        loading.load(written(tmp_path, "nightly", f'schedule = "{text}"\n'))
    assert str(error.value).startswith(f"nightly.toml: schedule: {text!r} ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["0 6 * * *", "*/15 * * * *", "0 6 * * mon-fri", "@daily", "@HOURLY", "0 0 29 2 *",
     "0 0 L * *", "0 6 * * thu", "0 6 * mar fri", "0 0 * * L5", "0 0 * * 1#5", "0 6 ? * *", " 0 6 * * * ",
     "0 0 1 1 * 30"],
)  # fmt: skip
def test_what_prefect_plans_is_accepted(text):
    from prefect.server.schemas.schedules import CronSchedule

    assert check_schedule(text) == text
    now = datetime.now(UTC)
    assert len(asyncio.run(CronSchedule(cron=text).get_dates(1, now, now + timedelta(days=366 * 9)))) == 1


FIELDS = ["*", "0", "5", "31", "*/7", "1-5", "mon", "feb", "L", "30", "60", "1#5", "2,4", "r", "?", "x"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(FIELDS), min_size=4, max_size=6).map(" ".join))
def test_any_expression_is_planned_by_prefect_or_refused(text):
    from prefect.server.schemas.schedules import CronSchedule

    try:
        check_schedule(text)
    except ValueError:
        return
    now = datetime.now(UTC)
    asyncio.run(CronSchedule(cron=text).get_dates(3, now, now + timedelta(days=100)))


def test_prefect_is_not_imported_for_it():
    code = "import sys\nfrom pipeline.settings.schedule import check_schedule\ncheck_schedule('0 6 * * *')\n"
    code += "print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_bad_source_does_not_stop_the_others(tmp_path, monkeypatch):
    from flows import deploy

    folder = tmp_path / "data_manifests"
    folder.mkdir()
    good = written(folder, "good", 'schedule = "0 6 * * *"\n')
    written(folder, "nightly", 'schedule = "every day at 6"\n')
    written(folder, "never", 'schedule = "0 0 30 2 *"\n')
    written(folder, "twin", 'name = "good"\n')
    (folder / "folder.toml").mkdir()
    (folder / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (folder / "deep.toml").write_text(f"x = {'[' * 3000}")
    (folder / "gone.toml").symlink_to(tmp_path / "nothing")
    monkeypatch.setattr(loading, "_FOLDERS", (folder,))
    lines = []
    found = deploy.deployments(tmp_path / "results", lines.append)
    assert [each.name for each in found] == ["good", "on-manifest", "hourly"]
    assert found[0].parameters["source"] == str(good)
    assert sorted(re.search(r"(\w+)\.toml", line)[1] for line in lines) == sorted(
        ["nightly", "never", "twin", "folder", "bytes", "deep", "gone"]
    )
    assert not any("\n" in line for line in lines)
