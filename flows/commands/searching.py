"""Search of pictures by a text or by a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, ManifestId, Root, ShowUnsafe, SourceName
from flows.commands.printing import echo, print_json

commands = typer.Typer()


@commands.command("search", epilog='Example: `winnow search demo "a red car" --top 5`')
def search_pictures(
    source: SourceName,
    text: Annotated[str | None, typer.Argument(help="What to look for.", metavar="TEXT")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Look for pictures similar to this one, instead of a text.", metavar="FILE")
    ] = None,
    top: Annotated[int, typer.Option("-k", "--top", help="The number of pictures to find.", min=1)] = 10,
    scorer: Annotated[
        str | None,
        typer.Option(help="A scorer of kind clip whose embeddings are searched. Default: the first.", metavar="NAME"),
    ] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Search only the kept pairs of the manifest.")] = False,
    recipe: Annotated[
        str | None, typer.Option(help="Search only the pairs that this recipe would keep.", metavar="NAME")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with the pictures to this file.", metavar="FILE", dir_okay=False)
    ] = None,
    show_unsafe: ShowUnsafe = False,
    manifest: ManifestId = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Find the pictures that are most similar to a text or a picture, by the embeddings that a clip scorer stored.

    The query is embedded by the same model and compared with every stored picture. A picture that several pairs show
    is found once. Failed pairs, and pairs that were taken down, are never found.
    """
    from flows import sources
    from flows.console.found import found
    from flows.console.output import show
    from pipeline.ledger import blocklist
    from pipeline.manifest import recipes
    from pipeline.manifest.manifest import Manifest
    from pipeline.query import encoding
    from pipeline.query.search import search

    if (image is None) == (not (text or "").strip()):
        raise typer.BadParameter("give words to look for, or --image FILE")
    if kept and recipe:
        raise typer.BadParameter("give --kept or --recipe, not both")
    described, storage = sources.load(source, root)
    opened = Manifest.open(storage, manifest)
    model = encoding.find(described, storage, opened, scorer)
    chosen = recipes.find(described, storage, recipe) if recipe else None
    among = opened.select(chosen) if kept or chosen else None
    query = model.embed_picture(image, described) if image else model.embed_text(text or "")
    if query.cut:
        echo(f"the text is too long for {model.name}: its last {query.cut:,} tokens were not read", to_stderr=True)
    hits = search(opened, model.stage, query.vector, top, among, blocklist.in_force(described, storage))
    show(found(hits), as_json)
    if page:
        from pipeline.manifest.shown_pictures import ShownPictures
        from pipeline.pages import found as found_page

        words = f"pictures like {image.name}" if image else text or ""
        pictures = ShownPictures.of(opened, show_unsafe)
        found_page.write(opened, words, model.name, _searched(kept, recipe), hits, page, pictures)
        echo(str(page), as_json)
    asked = {"text": None if image else text, "image": str(image) if image else None, "tokens_cut": query.cut}
    print_json(
        as_json,
        {"manifest": opened.id, "scorer": model.name, "query": asked, "results": [asdict(hit) for hit in hits]},
    )


def _searched(kept: bool, recipe: str | None) -> str:
    if recipe:
        return f"pairs that {recipe} keeps"
    return "kept pairs" if kept else "all downloaded pairs"
