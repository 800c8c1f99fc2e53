"""Filters on the caption. The columns are made by a scorer named `captions`."""

from filters.core import Filter

worded = Filter(
    "worded",
    "captions_words > 2 AND captions_length > 5",
    why="DataComp's basic filter: more than 2 words and 5 characters",
)
english = Filter("english", "captions_language = 'en'", why="the training task is English")
plain = Filter(
    "plain",
    "NOT (captions_file_name OR captions_url OR captions_price OR captions_boilerplate OR captions_markup) "
    "AND captions_digits <= 0.5",
    why="file names, addresses, prices, shop phrases and numbers are not descriptions",
)
