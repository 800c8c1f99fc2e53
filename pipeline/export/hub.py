"""Upload of an export to Hugging Face's hub, as a data set.

The token comes from where huggingface_hub looks for it: HF_TOKEN, or the file of `hf auth login`. No message has it.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pipeline.errors import HubError
from pipeline.export.formats import FORMATS

_KIND = "dataset"
_AGAIN = "the same command uploads what is missing"


@dataclass(frozen=True)
class Target:
    """A data set of the hub, "USER/NAME", and whether everybody may see it."""

    name: str
    public: bool = False


@dataclass(frozen=True)
class Pushed:
    """The page of an uploaded data set, and whether everybody can see it."""

    address: str
    public: bool


def check(name: str, form: str, public: bool = False) -> Target:
    """The data set to upload an export of this format to. Asks no network.

    Raises HubError for a name that the hub does not allow, for a format that is of no use there, and without a token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
        fits = name.count("/") == 1
    except HFValidationError:
        fits = False
    if not fits:
        raise HubError(f"{name!r} is no data set of the hub: write USER/NAME, of letters, digits, - _ and .")
    if form == "csv":
        raise HubError("a CSV has the paths of this machine: push `--format datasets` or webdataset")
    if not get_token():
        raise HubError("the hub needs a token with write access: set HF_TOKEN, or run `hf auth login`")
    return Target(name, public)


def push(folder: Path, target: Target, form: str) -> Pushed:
    """Create the data set if it is new, and upload the folder. What is there already is not uploaded again.

    Files that an older export of this format left there are removed; all others stay. Raises HubError if the hub
    refuses or cannot be reached, and for a data set that is public although the target is not.
    """
    from huggingface_hub import HfApi

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would warn that there is nothing to upload
    api = HfApi(library_name="winnow")
    with _explained(target.name, api.endpoint):
        api.create_repo(target.name, repo_type=_KIND, private=not target.public, exist_ok=True)
        public = not api.repo_info(target.name, repo_type=_KIND).private
        if public and not target.public:
            raise HubError(f"{target.name} is public on the hub already: add --public, or choose another name")
        api.upload_folder(
            repo_id=target.name,
            repo_type=_KIND,
            folder_path=folder,
            ignore_patterns=[".*"],
            delete_patterns=list(FORMATS[form].stale) or None,
            commit_message="Pairs that winnow kept",
        )
    return Pushed(f"{api.endpoint}/datasets/{target.name}", public)


@contextlib.contextmanager
def _explained(name: str, endpoint: str) -> Iterator[None]:
    """Errors of the hub's client as a HubError of one line."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    connection = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)  # its client's, whichever that is
    try:
        yield
    except HfHubHTTPError as error:
        raise HubError(_refusal(name, error.response.status_code)) from error
    except OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set, so that nothing is uploaded: unset it") from error
    except connection as error:
        raise HubError(f"the hub at {endpoint} cannot be reached: {_AGAIN}") from error
    except RuntimeError as error:  # of one file among several
        status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
        why = f"answered {status}" if status else "broke the connection"
        raise HubError(f"the hub {why} during the upload to {name}: {_AGAIN}") from error


def _refusal(name: str, status: int) -> str:
    if status == 401:
        return "the hub does not accept the token: make one with write access, then set HF_TOKEN or run `hf auth login`"
    if status == 403:
        return f"the token may not write to {name} on the hub: make one with write access, or choose another name"
    if status == 404:
        return f"there is no user of {name} on the hub, or the token may not see it"
    return f"the hub answered {status} to the upload to {name}: {_AGAIN}"
