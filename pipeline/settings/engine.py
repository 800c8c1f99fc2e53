"""What runs the stages of a source: the key `engine`, and the table `[ray]`."""

from typing import Literal, TypeAlias

from pydantic import Field

from pipeline.settings.fields import Table

EngineName: TypeAlias = Literal["local", "ray"]
"""This machine, or a Ray cluster. No stage key holds it: results are the same."""


class Ray(Table):
    """The Ray cluster of `engine = "ray"`."""

    address: str | None = Field(
        None, description='HOST:PORT of the head, or "auto"; by default RAY_ADDRESS, or the cluster of this machine'
    )
    score_workers: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="scoring processes; by default one for each GPU, or for each node without any",
    )
