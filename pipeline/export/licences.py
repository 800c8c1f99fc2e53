"""Licences by the names that Hugging Face's hub knows, and their SPDX identifiers.

The hub's card takes only names of its list: https://huggingface.co/docs/hub/repositories-licenses. Croissant asks for
the address of a licence, such as those of https://spdx.org/licenses/.
"""

from collections.abc import Mapping

_CREATIVE_COMMONS = {
    f"cc-{kind}-{version}": f"CC-{kind.upper()}-{version}"
    for kind, versions in {
        "by": ("2.0", "2.5", "3.0", "4.0"),
        "by-sa": ("3.0", "4.0"),
        "by-nc": ("2.0", "3.0", "4.0"),
        "by-nd": ("4.0",),
        "by-nc-nd": ("3.0", "4.0"),
        "by-nc-sa": ("2.0", "3.0", "4.0"),
    }.items()
    for version in versions
}

SPDX: Mapping[str, str] = _CREATIVE_COMMONS | {
    "cc0-1.0": "CC0-1.0",
    "odbl": "ODbL-1.0",
    "odc-by": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
    "c-uda": "C-UDA-1.0",
    "cdla-sharing-1.0": "CDLA-Sharing-1.0",
    "cdla-permissive-1.0": "CDLA-Permissive-1.0",
    "cdla-permissive-2.0": "CDLA-Permissive-2.0",
    "etalab-2.0": "etalab-2.0",
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "mpl-2.0": "MPL-2.0",
    "unlicense": "Unlicense",
    "gfdl": "GFDL-1.3-only",
}
"""SPDX identifiers by the hub's names. Names that are no licence of data, such as openrail, are left out."""


def hub_name(license: str) -> str | None:  # noqa: A002 the key of the source file
    """The hub's name of a licence that is given by this name or its SPDX identifier; None if the hub has none."""
    wanted = license.strip().lower()
    return next((name for name, spdx in SPDX.items() if wanted in (name, spdx.lower())), None)


def front_matter(license: str | None) -> dict[str, str]:  # noqa: A002
    """The keys of the hub's card. A licence that the hub does not know is "other", with its name or its address."""
    if not license:
        return {}
    if name := hub_name(license):
        return {"license": name}
    key = "license_link" if is_address(license) else "license_name"
    return {"license": "other", key: license}


def address(license: str) -> str:  # noqa: A002
    """The address of a known licence, else the licence as it is written."""
    name = hub_name(license)
    return f"https://spdx.org/licenses/{SPDX[name]}.html" if name else license


def is_address(text: str) -> bool:
    """Whether the text is a web address."""
    return text.startswith(("https://", "http://")) and not any(letter.isspace() for letter in text)
