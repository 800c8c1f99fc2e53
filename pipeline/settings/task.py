"""The task that the gain is measured on: the table `[task]` of a source file."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.encoder import Encoder
from pipeline.settings.fields import ExistingPath, Table

MIN_SEEDS = 5
"""The fewest seeds of a comparison: an interval over fewer draws means nothing."""


class TestSet(Table):
    """Held-out pictures with captions of their own; a label needs the agreement of several captions."""

    location: ExistingPath = Field(description="Parquet or CSV, one row a caption")
    folder: ExistingPath = Field(description="the folder of the pictures")
    image: str = Field("image", description="the column with the picture's path inside the folder")
    caption: str = "caption"
    column: str | None = Field(
        None,
        description="label, number: their column, if it is called otherwise than the source's; zero-shot: a column of "
        "labels, in place of agreement; match: whether a pair belongs together",
    )
    agree: int = Field(
        2,
        ge=1,
        description="captions that must name the class; a picture with none or several such classes is left out",
    )
    seed: int = Field(0, ge=0, description="match: which half of the pairs gets another picture's caption")


class Split(Table):
    """A part of the source's own pictures that never trains. Near-duplicates go to the same side."""

    share: float = Field(0.2, gt=0, lt=1, description="of the groups of near-duplicates")
    seed: int = Field(0, ge=0, description="of the sides; match: of the pairs that get another caption, too")
    agree: int = Field(2, ge=1, description="captions of a picture that must name its class")


class Learner(Table):
    """A learner: a head on the features of an encoder, a model, one of `[models.NAME]`, or of `[vqa.NAME]`."""

    head: Literal["linear", "mlp", "cnn", "dual"] | None = None
    encoder: Encoder | None = None
    model: str | None = None
    vqa: str | None = Field(None, description="kind = vqa: the name of one of [vqa]")

    @model_validator(mode="after")
    def _sees_pixels(self) -> Self:
        if self.vqa is not None:
            if self.model or self.head or self.encoder:
                raise ValueError("vqa names a whole model: remove head, encoder and model")
            return self
        if (self.model is None) != (self.head is not None and self.encoder is not None) or (
            self.model is not None and (self.head or self.encoder)
        ):
            raise ValueError("give head and encoder, or model, the name of one of [models]")
        if self.encoder is None:
            return self
        if self.head == "cnn" and self.encoder.kind != "pixels":
            raise ValueError('a cnn needs pixels: encoder = { kind = "pixels" }')
        if self.head == "dual" and self.encoder.kind != "open_clip":
            raise ValueError('dual also reads captions: encoder = { kind = "open_clip", model = ... }')
        return self

    @property
    def reads_captions(self) -> bool:
        """Whether it trains on captions, and never sees a label."""
        return self.model is not None or self.vqa is not None or self.head == "dual"


class Questions(Table):
    """What is asked, of kind vqa: columns of rows, and of the test set, and the vocabulary of answers."""

    question: str = "question"
    answer: str = "answer"
    answers: int = Field(0, ge=0, description="how many of the most frequent answers can be chosen; 0: all of them")


class Budget(Table):
    """The budget of every trial. Only trials with equal budgets are compared."""

    seeds: int = Field(10, ge=MIN_SEEDS, le=100, description="draws of the pool, each with its own initialisation")
    steps: int = Field(400, ge=1)
    batch: int = Field(256, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="other rates to try; the best one on pairs that the seed did not draw is reported"
    )
    weight_decay: float = Field(1e-2, ge=0)
    augmented_views: int = Field(2, ge=1, le=32, description="augmented versions of each picture")
    policy: Literal["classic", "crop", "flip", "jitter", "shade", "rotate"] = Field(
        "classic",
        description="of pictures: crop, flip, jitter and rotation, or one of them; shade is jitter without hue",
    )
    caption_policy: Literal["words", "all", "deletion", "swap", "spelling", "synonym"] = Field(
        "words",
        description="of captions: deletion, swap or spelling; all: or synonym, which needs WordNet; or one of them",
    )
    recaption: str | None = Field(
        None,
        description="a column of texts such as judge_recaption: the first version of each caption, where it has one",
    )
    augmentations: tuple[Literal["text", "both", "guarded"], ...] = Field(
        (),
        description="tried on the filtered pairs, besides that of pictures alone: captions, both by rules, guarded",
    )
    margin: float = Field(0.05, ge=0, description="how far the similarity may fall in a version of both")

    @property
    def per_trial(self) -> dict[str, Any]:
        """The budget of one trial, as JSON: everything but the number of seeds and the augmentations."""
        return self.model_dump(exclude={"seeds", "augmentations"}, exclude_none=True)

    @property
    def candidates(self) -> list["Budget"]:
        """The budgets that a trial tries, one for each learning rate."""
        rates = dict.fromkeys((self.learning_rate, *self.learning_rates))
        return [self.model_copy(update={"learning_rate": rate, "learning_rates": ()}) for rate in rates]


class Task(Table):
    """What the gain is measured on, and the learners that measure it.

    A picture has one label or one number: `classes` derives labels from captions, `label` and `number` read a column.
    The other kinds train on captions alone. `zero-shot` predicts the class whose name is nearest. `retrieval` finds
    captions by pictures and pictures by captions. `match` predicts whether a picture and a caption belong together.
    `vqa` answers questions about pictures.
    """

    kind: Literal["classes", "label", "number", "zero-shot", "retrieval", "match", "vqa"] = "classes"
    classes: dict[str, tuple[str, ...]] = Field(
        {}, description="class -> the words that name it in a caption, or the values of the column that mean it"
    )
    column: str | None = Field(None, description="label, number: the column of rows, one of pairs.extra")
    vqa: Questions = Questions()
    test: TestSet | None = None
    split: Split | None = None
    learners: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,19}$")], Learner] = Field(
        min_length=1, description="by name; all of them are reported, and the first is also trained without each filter"
    )
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if (self.column is None) == (self.kind in ("label", "number")):
            raise ValueError(
                f"kind = {self.kind} uses captions: remove column, or set kind = label or number"
                if self.column
                else f"kind = {self.kind} needs column, with the {self.kind} of each pair"
            )
        if self.classes and not self.has_classes:
            raise ValueError(f"kind = {self.kind} has no classes: remove them, or set kind = label or classes")
        if self.has_classes and len(self.classes) < 2:
            raise ValueError("name at least two classes")
        if self.test and self.split:
            raise ValueError("held-out pictures come from test or from split, not both: remove one of them")
        if self.test and self.test.column and self.kind in ("classes", "retrieval", "vqa"):
            raise ValueError(f"kind = {self.kind} uses captions: remove test.column")
        return self

    @model_validator(mode="after")
    def _learnable(self) -> Self:
        for name, learner in self.learners.items():
            if (self.kind == "vqa") != (learner.vqa is not None):
                raise ValueError(
                    f"kind = vqa is for models of [vqa], and these for nothing else: see learners.{name}, which needs "
                    + ("vqa = NAME" if self.kind == "vqa" else "head and encoder, or model")
                )
            if self.trains_on_captions and not learner.reads_captions:
                raise ValueError(
                    f"kind = {self.kind} is for learners of captions: learners.{name} needs "
                    'head = "dual", with an open_clip encoder, or a model'
                )
            if self.kind == "number" and learner.reads_captions:
                raise ValueError("a learner of captions predicts classes, not numbers: choose another head than dual")
            if self.kind == "label" and learner.model:
                raise ValueError(f"kind = label is not for models: learners.{name} needs head and encoder")
        return self

    @property
    def has_classes(self) -> bool:
        """Whether the kind has classes."""
        return self.kind in ("classes", "label", "zero-shot")

    @property
    def evaluates_pairs(self) -> bool:
        """Whether pairs of picture and caption, or question, are evaluated, and no picture has a label."""
        return self.kind in ("retrieval", "match", "vqa")

    @property
    def trains_on_captions(self) -> bool:
        """Whether learners train on captions without labels, so that every pair with a caption trains."""
        return self.kind in ("zero-shot", "retrieval", "match", "vqa")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        by_word: dict[str, str] = {}
        for name, words in self.classes.items():
            if not words or not all(word.strip() for word in words):
                raise ValueError(f"classes.{name} needs at least one word, and no empty one")
            for word in words:
                other = by_word.setdefault(word.lower(), name)
                if other != name:
                    raise ValueError(f"the word {word!r} names both {other!r} and {name!r}; give it to one class")
        return self
