"""The vocabulary of the demo CLIP: the merges of CLIP's own that its captions need."""

import gzip
from collections.abc import Iterable
from pathlib import Path


def write_vocabulary(captions: Iterable[str], path: Path) -> int:
    """CLIP's own merges, less those that no caption needs, in open_clip's format. Returns the number of tokens."""
    from open_clip.tokenizer import SimpleTokenizer, get_pairs

    whole = SimpleTokenizer()
    used: set[tuple[str, str]] = set()
    for word in sorted({word for caption in captions for word in whole.pat.findall(caption.lower())}):
        parts: tuple[str, ...] = (*word[:-1], word[-1] + "</w>")
        while len(parts) > 1:
            pair = min(get_pairs(parts), key=lambda pair: whole.bpe_ranks.get(pair, len(whole.bpe_ranks)))
            if pair not in whole.bpe_ranks:
                break
            used.add(pair)
            parts = _merged(parts, pair)
    merges = sorted(used, key=whole.bpe_ranks.__getitem__)
    lines = ["#merges of CLIP's vocabulary that the demo's captions need", *(" ".join(pair) for pair in merges)]
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write("\n".join(lines).encode())
    return 512 + len(merges) + 2


def _merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)
