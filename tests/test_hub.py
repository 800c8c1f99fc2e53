"""Upload of an export to a hub on loopback. huggingface_hub speaks to it as to the real one, by git LFS."""

import json

import hub_server
import huggingface_hub
import published_sources
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import HubError
from pipeline.export import export, hub
from pipeline.export.content import Content
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage


@pytest.fixture
def served(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server speaks git LFS
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    with hub_server.running() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        yield served


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export in three Parquet files."""
    tmp_path = tmp_path_factory.mktemp("tiny")
    storage = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path / "lists", range(50, 70)), storage)
    return export.write(Content(Manifest.open(storage), "datasets"), tmp_path / "out", piece=8).path


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_arrives_is_the_folder_byte_for_byte_and_private(served, folder, capfd):
    pushed = hub.push(folder, hub.check("me/pets", "datasets"), "datasets")
    assert served.files["me/pets"] == files(folder)
    assert (pushed.public, served.private) == (False, {"me/pets": True})
    assert pushed.address == f"{served.address}/datasets/me/pets"
    assert hub.push(folder, hub.Target("me/open", public=True), "datasets").public
    assert hub_server.TOKEN not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_by_xet_too_it_arrives_byte_for_byte(served, folder, monkeypatch):
    """As hf_xet uploads to the real hub, unless HF_HUB_DISABLE_XET is set."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.push(folder, hub.Target("me/pets"), "datasets")
    assert served.files["me/pets"] == files(folder)
    assert served.chunks
    assert not served.stored  # nothing came by git LFS


@pytest.mark.slow
def test_a_second_upload_sends_nothing_and_an_older_one_s_pieces_leave(served, folder):
    target = hub.Target("me/pets")
    hub.push(folder, target, "datasets")
    served.files["me/pets"] |= {"data/train-00003-of-00004.parquet": b"old", "NOTES.md": b"a person's"}
    hub.push(folder, target, "datasets")
    assert served.files["me/pets"] == files(folder) | {"NOTES.md": b"a person's"}
    hub.push(folder, target, "datasets")
    assert set(served.stored.values()) == {1}
    assert len(served.commits) == 2


def test_an_upload_that_broke_resumes(served, folder):
    served.broken = 1
    with pytest.raises(HubError, match=r"the hub answered 400 during the upload to me/pets: the same command uploads"):
        hub.push(folder, hub.Target("me/pets"), "datasets")
    assert not served.files["me/pets"]
    sent = dict(served.stored)
    assert sent
    hub.push(folder, hub.Target("me/pets"), "datasets")
    assert served.files["me/pets"] == files(folder)
    assert all(served.stored[oid] == 1 for oid in sent)


def test_a_data_set_that_is_public_gets_no_private_pairs(served, folder):
    hub.push(folder, hub.Target("me/pets", public=True), "datasets")
    with pytest.raises(HubError, match="me/pets is public on the hub already: add --public, or choose another name"):
        hub.push(folder, hub.Target("me/pets"), "datasets")


@pytest.mark.parametrize(
    ("status", "at", "says"),
    [
        (401, "", "the hub does not accept the token"),
        (403, "/commit/", "the token may not write to me/pets"),
        (404, "/preupload/", "there is no user of me/pets"),
        (418, "/repos/create", "the hub answered 418 to the upload to me/pets: the same command uploads"),
    ],
)
def test_a_refusal_is_one_line_without_the_token(served, folder, status, at, says):
    served.refuse, served.at = status, at
    with pytest.raises(HubError, match=says) as caught:
        hub.push(folder, hub.Target("me/pets"), "datasets")
    assert hub_server.TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_rights_no_network_no_token(served, folder, monkeypatch, tmp_path):
    with pytest.raises(HubError, match="the token may not write to other/pets"):
        hub.push(folder, hub.Target("other/pets"), "datasets")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubError, match=r"the hub at http://127.0.0.1:1 cannot be reached"):
        hub.push(folder, hub.Target("me/pets"), "datasets")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match="set HF_TOKEN, or run `hf auth login`"):
        hub.check("me/pets", "datasets")


@pytest.mark.parametrize("name", ["pets", "a/b/c", "me/../pets", "me/pe ts", "/pets", ""])
def test_a_name_is_that_of_a_data_set(served, name):
    with pytest.raises(HubError, match="write USER/NAME"):
        hub.check(name, "datasets")


def test_a_csv_is_of_this_machine(served):
    with pytest.raises(HubError, match="paths of this machine"):
        hub.check("me/pets", "csv")


@pytest.mark.slow
def test_a_person_types_it(served, tmp_path, monkeypatch):
    described = published_sources.listed(tmp_path, range(50, 70), more='title = "Pets"\nlicense = "mit"')
    published_sources.published(described, Storage(tmp_path / "data" / "tiny"))
    words = ["export", str(tmp_path / "tiny.toml"), "--root", str(tmp_path / "data"), "--to", str(tmp_path / "out")]
    words += ["--format", "datasets", "--push", "me/pets"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        [f"20 pairs in {tmp_path / 'out'}", f"private on the hub: {served.address}/datasets/me/pets"],
    )
    assert served.files["me/pets"] == files(tmp_path / "out")
    card = huggingface_hub.DatasetCard(served.files["me/pets"]["README.md"].decode())
    assert (card.data.pretty_name, card.data.license) == ("Pets", "mit")
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (told["new"], told["pushed"]["public"]) == (False, False)
    wrong = CliRunner().invoke(app, [*words[:-2], "--public"])
    assert (wrong.exit_code, "it is about --push" in wrong.stderr) == (2, True)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1].startswith("winnow: the hub does not accept the token")
    assert "hf_wrong" not in refused.stderr + refused.stdout
