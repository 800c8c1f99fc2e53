"""Named recipes. The recipe is the documentation.

A name that ends in `-like` stands for a published recipe of which a part was replaced by another, or left out; the
docstring says which. Where the original speaks of CLIP, it is the scorer named `clip` that counts: its thresholds are
those of OpenAI's ViT-B/32, and mean nothing to another model.
"""

from filters import image, pair, pool, text
from filters.core import Recipe

everything = Recipe("everything")
"""Every downloaded pair: the arm that everything else is measured against."""

datacomp_basic = Recipe("datacomp-basic-like", (text.english, text.worded, image.large, image.shaped))
"""DataComp's basic filtering (Gadre et al. 2023, section 3.1): English, more than 2 words and 5 characters, the shorter
side at least 200 px, an aspect ratio of at most 3. The compressed fastText model tells the language, words are what
stands between white space."""

clip_top30 = Recipe("clip-top30", (pair.most_aligned(0.3),))
"""DataComp's CLIP score filtering (Gadre et al. 2023, section 3.1): the best 30 % of the pool by cosine."""

datacomp_text = Recipe("datacomp-text-based-like", (text.english, text.named))
"""DataComp's text-based filtering (Gadre et al. 2023, section 3.1): English, and a word whose first synset is in
ImageNet-21k. The words come from a list that you give to a scorer `imagenet_words` of kind words; none is shipped,
since it is made from WordNet. The compressed fastText model tells the language."""

datacomp_image = Recipe("datacomp-image-based-like", (text.english, text.two_words, pool.targeted))
"""DataComp's image-based filtering (Gadre et al. 2023, section 3.1): English, more than 1 word and 5 characters, and
the picture's nearest centroid of the pool is also the nearest of some target picture. The scorer `clusters` takes the
whole pool's embeddings by the scorer `clip`, where the original has those of ViT-L/14 of what passes the rules on
captions. The compressed fastText model tells the language; the target pictures are yours, there they are ImageNet's."""

datacomp_image_clip = Recipe(
    "datacomp-image-based-clip-top30-like", (text.english, text.two_words, pool.targeted, pair.most_aligned(0.3))
)
"""DataComp's best baseline (Gadre et al. 2023, section 3.1): image-based filtering, of that what is among the best 30 %
of the pool by cosine. Replaced is what is replaced in `datacomp-image-based-like`, and ViT-L/14's cosine."""

metaclip = Recipe("metaclip-like", (pool.balanced,))
"""MetaCLIP's balancing (Xu et al. 2023, arXiv 2309.16671, algorithm 1): a caption that matches entries which c captions
of the pool match is kept with the probability t / c for each of them, all drawn apart. The list of entries is yours,
t is scaled to the pool (see the scorer `entries`); the steps before it, language and deduplication, are left out."""

clip_queries = Recipe("clip-queries-like", (pool.queried,))
"""The cap of CLIP's own data (Radford et al. 2021, section 2.2): at most 20,000 pairs for each of 500,000 queries, 400
million in all. The queries were never published: the entries are yours, and the cap is scaled to the pool, 20,000 for
400 million pairs of it."""

laion_400m = Recipe("laion-400m-like", (text.lettered, image.weighty, pair.aligned(0.3)))
"""LAION-400M (Schuhmann et al. 2021, section 2): at least 5 characters, at least 5 KB, a cosine of at least 0.3.
The original also removed what a classifier took for illegal; there is none here."""

laion_2b_en = Recipe("laion-2b-en-like", (text.english, text.lettered, image.weighty, pair.aligned(0.28)))
"""LAION-2B-en (Schuhmann et al. 2022, section 3.2): English, at least 5 characters, at least 5 KB, a cosine of at least
0.28. fastText tells the language in place of CLD3; the original also removed what a classifier took for illegal."""

conceptual_captions = Recipe("conceptual-captions-like", (text.phrased, text.capitalised, text.unrepeated, text.plain))
"""The text rules of Conceptual Captions (Sharma et al. 2018, section 3.1): a determiner and a preposition, a capital at
the beginning, few repetitions, no boilerplate. Word lists stand for the part-of-speech tagger, so that the rules on
nouns are left out, and so are those on rare words, sentiment and profanity."""

neg_clip_loss = Recipe("neg-clip-loss-top30", (pair.most_particular(0.3),))
"""negCLIPLoss (Wang et al. 2024, arXiv 2405.19547, section 4): the best 30 % of the pool."""

neg_clip_loss_norm_sim = Recipe("neg-clip-loss-norm-sim", (pair.most_particular(0.3), pair.nearest_of_rest(2 / 3)))
"""negCLIPLoss and NormSim (Wang et al. 2024, arXiv 2405.19547, section 4): the best 30 % of the pool by negCLIPLoss, of
these the two thirds nearest to a target picture: 20 % of the pool."""

semdedup = Recipe("semdedup", (pool.hardest(0.05),))
"""SemDeDup (Abbas et al. 2023, arXiv 2303.09540, section 3): k-means over image embeddings, and inside a cluster every
picture goes that has one within eps of it which is less central. The paper sets eps by the share that is to be left,
and has 50,000 clusters for 440 million pictures; here eps is 0.05, and a cluster has a thousand pictures.
It breaks what `Distinct` holds: a pair may go for one that goes itself, or that fails another filter, and which one
stays does not depend on its score."""

default = Recipe("default", (text.worded, text.plain, image.shaped, pair.most_aligned(0.5)))
"""A careful start for a new source: remove captions that describe nothing, keep the better half."""
