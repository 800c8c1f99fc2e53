"""`make audit` where nobody can be asked: one line, and no success."""

import json
import shutil
import sys
from pathlib import Path

import known_vulnerabilities
import pytest

PIP_AUDIT = shutil.which("pip-audit") or shutil.which(Path(sys.prefix, "audit", "bin", "pip-audit"))
DEAD = "http://127.0.0.1:1/"
ASKS = f"import requests; requests.get('{DEAD}')"


def test_who_cannot_be_asked_is_named_in_one_line():
    status, told = known_vulnerabilities.outcome([sys.executable, "-c", ASKS])
    assert (status, told) == (1, "make audit: nothing is known of these packages: no answer from 127.0.0.1:1\n")


def test_a_package_that_the_index_does_not_know_is_named():
    said = "ERROR:pip_audit._cli:a: Dependency not found on PyPI and could not be audited: a (1.0)"
    status, told = known_vulnerabilities.outcome([sys.executable, "-c", f"import sys; sys.exit({said!r})"])
    assert (status, told.count("\n")) == (1, 1)
    assert told.endswith(": a: Dependency not found on PyPI and could not be audited: a (1.0)\n")


@pytest.mark.slow
@pytest.mark.skipif(PIP_AUDIT is None, reason="pip-audit is not installed: make audit does it")
def test_pip_audit_itself_against_a_dead_service(tmp_path):
    (tmp_path / "lock").write_text("a==1.0 --hash=sha256:" + "0" * 64)
    asked = [PIP_AUDIT, "--strict", "--disable-pip", "--require-hashes", "-s", "osv", "--osv-url", DEAD]
    status, told = known_vulnerabilities.outcome([*asked, "-r", str(tmp_path / "lock")])
    assert (status, told.count("\n")) == (1, 1), json.dumps(told)
    assert "nothing is known of these packages" in told
