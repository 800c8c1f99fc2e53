"""How pictures are fetched: the table `[download]`."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.settings.fields import Table

OPT_OUTS: tuple[Literal["noai", "noimageai", "noindex", "noimageindex"], ...] = (
    "noai",
    "noimageai",
    "noindex",
    "noimageindex",
)
"""X-Robots-Tag directives that are honoured by default: those of img2dataset."""


def _host_and_port(place: str) -> str:
    if not place or re.search(r"[/@\s]", place):
        raise ValueError(f'{place!r} is no host and port: write them as in "localhost:8000" or "[::1]:8000"')
    bare = place.count(":") > 1 and not place.startswith("[")
    parts = None if bare else re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+):([0-9]{1,5})", place)
    if parts is None or not 0 < int(parts[2]) < 65536:
        host = f"[{place}]" if bare else re.sub(r":[^:\]]*$", "", place)
        raise ValueError(f'{place!r} has no port, and would match no URL: write "{host}:80", or :443 for https')
    return place


class Download(Table):
    """How pictures are fetched, and the bounds on what servers send."""

    shard_size: int = Field(1000, ge=1, le=100_000, description="pairs in a shard")
    image_size: int = Field(
        256, ge=32, le=4096, description="shorter side of the stored JPEG; smaller pictures are kept as they are"
    )
    resample: Literal["hamming", "lanczos"] = Field(
        "hamming", description="how a picture becomes smaller: lanczos is a little sharper and takes twice the time"
    )
    quality: int = Field(95, ge=50, le=100, description="of the stored JPEG")
    blur_faces: bool = Field(
        False, description="blur faces before anything is stored; needs the extra faces, see docs/faces.md"
    )
    threads: int | None = Field(
        None, ge=1, le=4096, description="requests at once, over all shards; by default 32 for each core"
    )
    timeout: float = Field(10, gt=0, description="seconds for one whole request, redirects included")
    retries: int = Field(2, ge=0, le=10, description="for 429, 5xx, resets and DNS; never for 404 or an opt-out")
    max_bytes: int = Field(20_000_000, ge=1000, description="of one body")
    max_pixels: int = Field(50_000_000, ge=1000, description="read from the header, before decoding")
    shard_seconds: float = Field(900, gt=0, description="a shard that takes longer is stopped and quarantined")
    allow_hosts: tuple[Annotated[str, AfterValidator(_host_and_port)], ...] = Field(
        (), description="host:port that may be a private address"
    )
    per_host: int = Field(16, ge=1, le=512, description="requests at once to one host")
    robots: tuple[Literal["robots.txt", "noai", "noimageai", "noindex", "noimageindex", "none"], ...] = Field(
        OPT_OUTS, description="opt-outs that are honoured: robots.txt, and directives of X-Robots-Tag"
    )
    user_agent: str = Field("winnow/0.1 (image-text curation)", pattern=r"^[\x20-\x7e]+$")
    contact: str | None = Field(
        None, pattern=r"^[\x21-\x7e]+$", description="an address or page at which site owners reach you"
    )

    @property
    def agent(self) -> str:
        """The User-Agent header."""
        return f"{self.user_agent}; +{self.contact}" if self.contact else self.user_agent
