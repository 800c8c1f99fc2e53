"""Choosing from the scores that exist: recipes and thresholds, and what they drop."""

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, LabelsFile, ManifestId, RecipeNames, Root, SourceName
from flows.commands.printing import count_caught, echo, print_json

commands = typer.Typer()


@commands.command("funnel", epilog="Example: `winnow funnel demo --recipe clip-top30 --recipe datacomp-basic-like`")
def show_funnel(
    source: SourceName,
    recipe: RecipeNames = None,
    manifest: ManifestId = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what recipes would keep, side by side, from the scores that exist.

    For each filter: the pairs that pass it alone, that pass it and all filters before it, that fail, that have no
    score, and that it alone drops. Then the filters that drop the same pairs.
    """
    from flows import sources
    from flows.console.funnel import comparison
    from flows.console.output import show
    from flows.progress import bars
    from pipeline.manifest import apart
    from pipeline.manifest.manifest import Manifest
    from pipeline.manifest.recipes import find_all

    described, storage = sources.load(source, root)
    found = Manifest.open(storage, manifest)
    with bars() as progress:
        compared = apart.compare(storage, found.id, find_all(described, storage, recipe), partial(progress, "choose"))
    show(comparison(compared), as_json)
    print_json(as_json, {"manifest": found.id} | asdict(compared))


@commands.command("audit", epilog="Example: `winnow audit demo --recipe clip-top30`")
def show_audit(
    source: SourceName,
    recipe: RecipeNames = None,
    manifest: ManifestId = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show which groups recipes remove: the share by language, domain, length and words of the caption.

    The tables show the groups that are removed more often than all pairs, by 95 % Wilson intervals. --json has the
    largest groups of each kind.
    """
    from flows import sources
    from flows.console import review
    from flows.console.output import show
    from flows.progress import bars
    from pipeline.manifest.manifest import Manifest
    from pipeline.manifest.recipes import find_all
    from pipeline.review.audit import audit

    described, storage = sources.load(source, root)
    found = Manifest.open(storage, manifest)
    with bars() as progress:
        chosen = find_all(described, storage, recipe)
        audits = [audit(found, each, progress=partial(progress, "choose")) for each in chosen]
    for each in audits:
        show(review.audit(each), as_json)
    print_json(as_json, {"manifest": found.id, "audits": [asdict(each) for each in audits]})


@commands.command(
    "diff",
    epilog="Example: `winnow diff demo -3 -1 --rows 5`",
    context_settings={"ignore_unknown_options": True},
)
def show_diff(
    source: SourceName,
    before: Annotated[
        str, typer.Argument(help="The id of a manifest or its first characters; -2 is the last but one.")
    ] = "-2",
    after: Annotated[str, typer.Argument(help="The manifest to compare it with; -1 is the newest.")] = "-1",
    rows: Annotated[int, typer.Option(help="Examples of rows to show for each change of side.", min=0)] = 0,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare two manifests: which rows changed sides and why, and how far columns drifted.

    Drift is shown for all downloaded pairs and for the kept ones, because another recipe drifts by design.
    """
    from flows import sources
    from flows.console import review
    from flows.console.output import show
    from pipeline.manifest.manifest import Manifest
    from pipeline.review.diff import between

    _, storage = sources.load(source, root)
    found = between(Manifest.open(storage, before), Manifest.open(storage, after), rows)
    show(review.difference(found), as_json)
    print_json(as_json, asdict(found))


@commands.command("calibrate", epilog="Example: `winnow calibrate demo`")
def calibrate_filters(
    source: SourceName, labels: LabelsFile = None, root: Root = DATA, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Find thresholds for a source's filters on a labelled sample, and print them. Changes no file.

    The sample is a list with the columns url, caption and label. If the newest manifest does not have its scores, it
    is fetched and scored first, like the source's own pairs.

    A filter is calibrated if it names the labels that it `catches`. Candidates are all thresholds between two
    neighbouring values of the sample. The one with the best F1 at finding these labels wins, among pairs that are good
    or have one of them. Of several the laxest wins. It is rounded towards the lax side. A pair without a score counts
    as not caught. Paste the printed line into the source file to use the threshold.
    """
    from flows import server, sources
    from flows.console.labels import calibration, toml
    from flows.console.output import show
    from flows.labels import sample_labels
    from pipeline.ledger import checking
    from pipeline.review.calibrate import measure, rows
    from pipeline.review.sample_source import scored

    described = checking.check(source)
    rows(described)
    storage = sources.load(source, root)[1]
    path = sample_labels(described, storage, labels)
    if scored(described, storage, path) is None:
        with server.connect(debug):
            from flows.curate import sample

            sample(source, str(root), str(labels) if labels else None)
    found = measure(described, storage, path)
    show(calibration(found), as_json)
    for line in toml(found):
        echo(line, as_json)
    print_json(as_json, found)


@commands.command("caught", epilog="Example: `winnow caught demo`")
def show_caught(
    source: SourceName,
    labels: LabelsFile = None,
    manifest: ManifestId = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check a manifest against labels: how many pairs of each label each filter dropped, and how many good ones.

    Labels come from --labels, from `calibration.labels` of the source file, or, for the demo, from its planted faults.
    """
    from flows import sources
    from flows.console.labels import caught
    from flows.console.output import show

    described, storage = sources.load(source, root)
    found = count_caught(described, storage, labels, manifest)
    show(caught(found), as_json)
    print_json(as_json, found)
