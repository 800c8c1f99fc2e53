"""The space of a store, and what a pool will cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, Root, SourceName
from flows.commands.printing import echo, print_json

if TYPE_CHECKING:
    from flows.stores import Store
    from pipeline.progress import Progress
    from pipeline.upkeep.gc import Collected

commands = typer.Typer()


@commands.command("gc", epilog="Example: `winnow gc demo`, then `winnow gc demo --apply`")
def collect_garbage(
    source: SourceName,
    apply: Annotated[bool, typer.Option("--apply", help="Remove what is listed. Without it nothing changes.")] = False,
    keep: Annotated[
        int | None,
        typer.Option(help="Keep so many manifests, the newest ones. Default: all of them.", min=1, metavar="N"),
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List what a source's store does not need, with its exact bytes; with --apply, remove it.

    A store keeps the results of every setting that it ever had. Not needed are pictures, scores, embeddings and
    features under keys that neither the source file nor a manifest has, rows and verdicts of no manifest, and what
    killed runs left. Every published manifest stays whole, and the next `winnow curate` fetches and scores nothing
    again.

    With --keep, older manifests go, and what they alone need. Reading one of them says so.

    The ledger, the block list of takedowns, labels, trials, gains, models and sweeps always stay. So does anything that
    winnow does not know. It is safe beside readers. Beside another writer it ends at once. If it is killed, the
    same command finishes.
    """
    from flows import sources, stores
    from flows.console import garbage
    from flows.console.output import show
    from flows.progress import bars

    described, storage = sources.load(source, root)
    with bars() as progress:
        found = {each.folder: _collected(each, keep, apply, progress) for each in stores.of(described, storage)}
    show(garbage.table(described.name, found, apply), as_json)
    if not apply and any(each.objects for each in found.values()):
        echo("nothing was removed: run the same command with --apply", as_json)
    total = {name: sum(getattr(each, name) for each in found.values()) for name in ("objects", "bytes")}
    each = [
        {
            "folder": folder,
            "kept": done.kept,
            "dropped": done.dropped,
            "removals": [gone._asdict() for gone in done.removals],
        }
        for folder, done in found.items()
    ]
    print_json(as_json, {"source": described.name, "applied": apply, **total, "stores": each})


@commands.command("plan", epilog="Example: `winnow plan cc12m --rows 12423374 --machines 4`")
def plan_pool(
    source: SourceName,
    rows: Annotated[
        int | None, typer.Option(help="Rows of the list. Default: those that the store knows.", min=1, metavar="N")
    ] = None,
    success: Annotated[
        float | None,
        typer.Option(help="The share of rows that download. Default: that of the store, or 0.64.", min=0.001, max=1),
    ] = None,
    kept: Annotated[
        float | None,
        typer.Option(help="The share of downloaded pairs that is kept. Default: the store's, or 0.3.", min=0, max=1),
    ] = None,
    picture_bytes: Annotated[
        float | None, typer.Option(help="Bytes of a stored picture. Default: those of the store, or 30,000.", min=1)
    ] = None,
    rates: Annotated[
        list[Path] | None,
        typer.Option(help="What `winnow bench --json` printed, also with --download; repeatable.", metavar="FILE"),
    ] = None,
    pictures_per_second: Annotated[
        float | None, typer.Option(help="Pictures that one machine downloads, if servers do not limit it.", min=1e-6)
    ] = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(help="Pairs that one machine, or with --gpus one GPU, scores by CLIP.", min=1e-6)
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="A TOML file of prices and machines: docs/plan.md.", metavar="FILE")
    ] = None,
    machines: Annotated[int, typer.Option(help="Machines that download and score.", min=1)] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs in each of them.", min=0)] = 0,
    within: Annotated[
        float | None,
        typer.Option(help="Take as many machines as it needs to end in so many hours.", min=0.01, metavar="HOURS"),
    ] = None,
    months: Annotated[float, typer.Option(help="Months of storage that are paid.", min=0)] = 1.0,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Reckon rows, bytes, hours, machines and money of a pool: download, each scorer, storage and egress.

    Nothing is run. Where the source has been run in part, shares and bytes come from its store. Rates are those of
    docs/plan.md, measured, published or assumed; replace them by what `winnow bench` measures on your machine. Prices
    are examples to replace.
    """
    from flows import sources
    from flows.console import plan
    from flows.console.output import show
    from pipeline.bench import partly_run
    from pipeline.bench.estimate import Fleet, Work, estimate, fleet_within
    from pipeline.bench.rates import Prices, Rates
    from pipeline.errors import SourceError

    described, storage = sources.load(source, root)
    paid = Prices.read(prices)
    known = partly_run.known(described, storage, Rates.default())
    if rows is None and known is None:
        raise SourceError(f"{described.name} has no downloaded shard under these settings: say how many --rows it has")
    better = (known.rates if known else Rates.default()).measured(rates or ())
    better = better.with_pool(success=success, kept=kept, picture_bytes=picture_bytes)
    if pictures_per_second:
        better = better.with_download(paid.cpu.cores / pictures_per_second)
    if pairs_per_second:
        rate = (
            {"gpu_pairs_per_second": pairs_per_second} if gpus else {"core_seconds": paid.cpu.cores / pairs_per_second}
        )
        better = better.with_scorer("clip", model=None, **rate)
    selection = described.own_recipe.selection
    work = Work(
        rows or (known.rows if known else 0),
        described.download.shard_size,
        described.scorers,
        known.scorer_bytes if known else {},
        selection.kind if selection else None,
    )
    fleet = Fleet(machines, gpus, months)
    if within is not None:
        fleet = fleet_within(work, better, paid, fleet, within)
    found = estimate(work, better, paid, fleet)
    show(plan.table(described.name, found, known), as_json)
    print_json(as_json, {"source": described.name, **found.to_json()})


def _collected(store: "Store", keep: int | None, apply: bool, progress: "Progress") -> "Collected":
    from pipeline.demo.world import World
    from pipeline.upkeep import gc

    demo = store.source.demo
    request = gc.Request(store.source, keep, World(demo, store.storage).stage.folder if demo else None)
    return (gc.collect if apply else gc.preview)(store.storage, request, progress)
