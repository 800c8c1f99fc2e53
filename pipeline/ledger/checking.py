"""A source whose filters were checked before any work starts."""

from pipeline.filtering import distinct, predicates
from pipeline.ledger import lists
from pipeline.selection import choosing
from pipeline.selection.survivors import Scorers
from pipeline.sources import loading
from pipeline.sources.columns import row_columns
from pipeline.sources.source import Source


def check(path_or_name: str) -> Source:
    """The source, with its filters bound against the columns that its rows will have. Raises WinnowError."""
    described = loading.load(path_or_name)
    columns = lists.extra_columns(described)
    if columns is not None:
        columns = row_columns(columns, described.scorers)
        predicates.bind(described.own_recipe.filters, columns)
        radii = {name: spec.radius for name, spec in described.neighbour_scorers.items()}
        distinct.check(described.own_recipe.distinct, radii, columns)
        if described.own_recipe.selection:
            scorers = Scorers(described.embedding_scorers, described.features_scorers)
            choosing.check(described.own_recipe.selection, scorers, columns)
    return described
