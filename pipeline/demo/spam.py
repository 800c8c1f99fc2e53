"""Texts in place of captions: file names, adverts, parts of web pages. None of them describes a picture."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.demo.captions import SHAPE_WORDS

Random = np.random.Generator

_GOODS = ("toys", "gifts", "games", "home decor", "kids furniture", "party supplies", "baby products", "stationery")
_SITES = ("toyworld", "megashop", "dealfinder", "giftbarn", "playmart", "bazaar24", "kidsdepot")
_TAGS = (
    "toy", "toys", "cheap", "sale", "wholesale", "2018", "2019", "new", "hot", "free", "shop", "online", "store",
    "price", "discount", "gift", "gifts", "kids", "children", "best", "quality", "wooden", "plastic", "stock", "photo",
    "royalty free", "wallpaper", "hd", "download", "vector", "background", "isolated", "template", "mockup",
    *SHAPE_WORDS,
)  # fmt: skip
_NOTHING = (
    "image", "photo", "untitled", "untitled design", "placeholder", "null", "alt text", "no image", "default title",
    "main product photo", "no description available", "loading...", "undefined",
)  # fmt: skip
_FURNITURE = (
    "click to enlarge", "click here to see the full size image", "share this on social media", "skip to main content",
    "you may also like", "sign in to see more", "advertisement", "view gallery", "report this photo",
    "this image may be subject to copyright", "please enable javascript to view this picture",
    "all rights reserved, no part of this page may be reproduced without the written permission of the owner",
)  # fmt: skip
_MARKUP = ("&nbsp;&nbsp;image&nbsp;", '<img class="lazy" alt="">', "{{ product.title }}", "<br/>photo<br/>", "%title%")


def _one(words: Sequence[str], random: Random) -> str:
    return words[int(random.integers(len(words)))]


def _file_name(random: Random) -> str:
    number, date = int(random.integers(1, 9999)), f"20{random.integers(10, 24)}{random.integers(1, 13):02d}"
    kinds = (
        f"IMG_{date}{random.integers(1, 29):02d}_{random.integers(100000, 235959)}.jpg",
        f"DSC_{number:04d}.JPG",
        f"{_one(_SITES, random)}-product-{number}-main-600x600.jpg",
        f"screenshot {date}-{number}.png",
        f"P{date}{number:04d} (copy {random.integers(2, 9)}).jpeg",
    )
    return _one(kinds, random)


def _advert(random: Random) -> str:
    goods, site, price = _one(_GOODS, random), _one(_SITES, random), f"${random.integers(3, 90)}.99"
    kinds = (
        "Buy now free shipping",
        f"Buy {goods} now! Free shipping on orders over {price}",
        f"{goods} only {price} - add to cart",
        f"SALE {random.integers(10, 80)}% off all {goods} at {site}.example",
        f"Shop the best deals on {goods} for boys and girls with fast delivery and easy returns at {site}",
        f"{site}: {goods} from {price}, in stock, ships in {random.integers(1, 9)} days, 5 star reviews",
    )
    return _one(kinds, random)


def _place(random: Random) -> str:
    of = int(random.integers(3, 40))
    words = (
        "image {} of {}",
        "photo {} of {}",
        "Slide {} / {}",
        "{} of {} pictures in this gallery",
        "thumbnail {}-{}",
    )
    return _one(words, random).format(int(random.integers(1, of + 1)), of)


def _keywords(random: Random) -> str:
    words = random.permutation(np.array(_TAGS))[: int(random.integers(4, 15))]
    return _one((", ", " ", " | ", "; "), random).join(words.tolist())


def _address(random: Random) -> str:
    folder = _one(_GOODS, random).replace(" ", "-")
    return f"https://www.{_one(_SITES, random)}.example/{folder}/{random.integers(100, 99999)}?ref=img"


def _furniture(random: Random) -> str:
    return _one(_FURNITURE, random)


def _nothing(random: Random) -> str:
    return _one(_NOTHING, random)


def _markup(random: Random) -> str:
    return _one(_MARKUP, random)


_KINDS: Sequence[Callable[[Random], str]] = (
    _file_name, _advert, _place, _keywords, _address, _furniture, _nothing, _markup,
)  # fmt: skip
_SHARES = (0.2, 0.22, 0.1, 0.2, 0.06, 0.12, 0.06, 0.04)


def spam(random: Random) -> str:
    """One such text, without a tab or a line break."""
    return _KINDS[int(random.choice(len(_KINDS), p=_SHARES))](random)
