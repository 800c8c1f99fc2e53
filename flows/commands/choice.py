"""Choosing from scores that are there: thresholds, recipes, and what they drop."""

from dataclasses import asdict
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Chosen, Debug, Labels, Named, Recipes, Root, finish, say, tell_caught

commands = typer.Typer()


@commands.command(epilog="Example: `winnow funnel demo --recipe clip-top30 --recipe datacomp-basic-like`")
def funnel(
    source: Named,
    recipe: Recipes = None,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what recipes would keep, side by side, from the scores that are there already.

    Of each filter: the pairs that pass it alone, that pass it and all before it, that fail, that have no score, and
    that it alone drops: as many more would be kept without it. Then which filters drop the same pairs.
    """
    from flows import sources
    from flows.console import tables
    from pipeline.manifest.manifest import Manifest

    described, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    compared = found.compare(sources.recipes(described, recipe))
    tables.show(tables.comparison(compared), as_json)
    finish(as_json, {"manifest": found.id} | asdict(compared))


@commands.command(epilog="Example: `winnow audit demo --recipe clip-top30`")
def audit(
    source: Named,
    recipe: Recipes = None,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show whom recipes remove: the share by language, domain, length and words of the caption.

    The tables show the groups that are surely removed more often than the whole, by 95 % Wilson intervals; --json has
    the largest groups of each kind.
    """
    from flows import sources
    from flows.console import tables
    from pipeline.manifest.manifest import Manifest
    from pipeline.review import audit as removed

    described, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    audits = [removed.audit(found, each) for each in sources.recipes(described, recipe)]
    for each in audits:
        tables.show(tables.audit(each), as_json)
    finish(as_json, {"manifest": found.id, "audits": [asdict(each) for each in audits]})


@commands.command(
    epilog="Example: `winnow diff demo`, or `winnow diff demo -3 -1 --rows 5`",
    context_settings={"ignore_unknown_options": True},
)
def diff(
    source: Named,
    before: Annotated[str, typer.Argument(help="A manifest's id or its beginning, or -2: the last but one.")] = "-2",
    after: Annotated[str, typer.Argument(help="The same of the manifest to compare with it; -1 is the newest.")] = "-1",
    rows: Annotated[int, typer.Option(help="Examples to show of each way that rows went.", min=0)] = 0,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what is different between two manifests: which rows changed sides and why, and how far columns drifted.

    Drift is told for all downloaded pairs and for the kept ones apart, since another recipe drifts by design.
    """
    from flows import sources
    from flows.console import tables
    from pipeline.manifest.manifest import Manifest
    from pipeline.review import diff as difference

    _, storage = sources.opened(source, root)
    found = difference.between(Manifest.open(storage, before), Manifest.open(storage, after), rows)
    tables.show(tables.difference(found), as_json)
    finish(as_json, asdict(found))


@commands.command(epilog="Example: `winnow calibrate demo`")
def calibrate(
    source: Named, labels: Labels = None, root: Root = DATA, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Find the thresholds of a source's filters on a labelled sample, by a rule, and print them. Changes no file.

    The sample is a list with the columns url, caption and label: `calibration.labels` of the source file, or --labels.
    Unless the newest manifest has its scores, it is fetched and scored first, as the source's own pairs are. For each
    filter that names the labels that it `catches`: of the thresholds between two neighbouring observed values, the one
    with the best F1 at finding these labels among pairs that are good or have one of them; of several the laxest;
    rounded towards the lax side. A pair without a score counts as not caught. To freeze a threshold is up to you.
    """
    from flows import server, sources
    from flows.console import labels as shown
    from flows.console import tables
    from pipeline.review import calibrate as rule
    from pipeline.review.sample_source import scored

    described = sources.checked(source)
    rule.rows(described)
    storage = sources.opened(source, root)[1]
    path = sources.sample_labels(described, storage, labels)
    if scored(described, storage, path) is None:
        with server.chosen(debug):
            from flows.curate import sample

            sample(source, str(root), str(labels) if labels else None)
    found = rule.measure(described, storage, path)
    tables.show(shown.calibration(found), as_json)
    for line in shown.toml(found):
        say(line, as_json)
    finish(as_json, found)


@commands.command(epilog="Example: `winnow caught demo`")
def caught(
    source: Named,
    labels: Labels = None,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check a manifest against labels: how many pairs of each label each filter dropped, and what was lost with them.

    Labels come from --labels, `calibration.labels` of the source file, or what the demo knows of its own pairs.
    """
    from flows import sources

    described, storage = sources.opened(source, root)
    finish(as_json, tell_caught(described, storage, labels, manifest, as_json))
