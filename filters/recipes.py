"""Named recipes. The recipe is the documentation.

A name that ends in `-like` is a published recipe of which a part is replaced or omitted. Its docstring says which part.
Where the original uses CLIP, the recipe uses the scorer named `clip`. Its thresholds are for OpenAI's ViT-B/32, and are
not valid for another model.
"""

from filters import image, pair, pool, text
from filters.core import Recipe
from filters.selections import DensityPruning, Matching, SoftCap

everything = Recipe("everything")
"""Every downloaded pair: the baseline that other recipes are compared with."""

datacomp_basic = Recipe("datacomp-basic-like", (text.english, text.worded, image.large, image.shaped))
"""DataComp's basic filtering (Gadre et al. 2023, section 3.1): English, more than 2 words and 5 characters, the shorter
side at least 200 px, an aspect ratio of at most 3. The compressed fastText model detects the language. Words
are separated by white space."""

clip_top30 = Recipe("clip-top30", (pair.most_aligned(0.3),))
"""DataComp's CLIP score filtering (Gadre et al. 2023, section 3.1): the best 30 % of the pool by cosine."""

datacomp_text = Recipe("datacomp-text-based-like", (text.english, text.named))
"""DataComp's text-based filtering (Gadre et al. 2023, section 3.1): English, and a word whose first synset is in
ImageNet-21k. The words come from a list that you give to a scorer `imagenet_words` of kind words. winnow ships none,
because the list is made from WordNet. The compressed fastText model detects the language."""

datacomp_image = Recipe("datacomp-image-based-like", (text.english, text.two_words, pool.targeted))
"""DataComp's image-based filtering (Gadre et al. 2023, section 3.1): English, more than 1 word and 5 characters, and
the picture's nearest centroid of the pool is also the nearest of some target picture. The scorer `clusters` uses the
embeddings of the whole pool by the scorer `clip`. The original uses embeddings of ViT-L/14, of pairs that pass the
caption rules. The compressed fastText model detects the language. You supply the target pictures; the original uses
ImageNet."""

datacomp_image_clip = Recipe(
    "datacomp-image-based-clip-top30-like", (text.english, text.two_words, pool.targeted, pair.most_aligned(0.3))
)
"""DataComp's best baseline (Gadre et al. 2023, section 3.1): image-based filtering, restricted to the best 30 % of the
pool by cosine. The replaced parts are those of `datacomp-image-based-like`, and the cosine of ViT-L/14."""

metaclip = Recipe("metaclip-like", (pool.balanced,))
"""MetaCLIP's balancing (Xu et al. 2023, arXiv 2309.16671, algorithm 1): for each entry that a caption matches, the
caption is kept with the probability t / c, where c captions of the pool match the entry. The draws are independent. You
supply the list of entries. t is scaled to the pool (see the scorer `entries`). The earlier steps, language and
deduplication, are omitted."""

clip_queries = Recipe("clip-queries-like", (pool.queried,))
"""The cap of CLIP's own data (Radford et al. 2021, section 2.2): at most 20,000 pairs for each of 500,000 queries, 400
million in all. The queries were never published, so you supply the entries. The cap is scaled to the pool: it is 20,000
for a pool of 400 million pairs."""

laion_400m = Recipe("laion-400m-like", (text.lettered, image.weighty, pair.aligned(0.3)))
"""LAION-400M (Schuhmann et al. 2021, section 2): at least 5 characters, at least 5 KB, a cosine of at least 0.3.
The original also removed pictures that a classifier flagged as illegal. This recipe has no such classifier."""

laion_2b_en = Recipe("laion-2b-en-like", (text.english, text.lettered, image.weighty, pair.aligned(0.28)))
"""LAION-2B-en (Schuhmann et al. 2022, section 3.2): English, at least 5 characters, at least 5 KB, a cosine of at least
0.28. fastText replaces CLD3. The original also removed pictures that a classifier flagged as illegal."""

conceptual_captions = Recipe("conceptual-captions-like", (text.phrased, text.capitalised, text.unrepeated, text.plain))
"""The text rules of Conceptual Captions (Sharma et al. 2018, section 3.1): a determiner and a preposition, a capital at
the beginning, few repetitions, no boilerplate. Word lists replace the part-of-speech tagger, so the rules on nouns are
omitted. The rules on rare words, sentiment and profanity are omitted, too."""

neg_clip_loss = Recipe("neg-clip-loss-top30", (pair.most_particular(0.3),))
"""negCLIPLoss (Wang et al. 2024, arXiv 2405.19547, section 4): the best 30 % of the pool."""

neg_clip_loss_norm_sim = Recipe("neg-clip-loss-norm-sim", (pair.most_particular(0.3), pair.nearest_of_rest(2 / 3)))
"""negCLIPLoss and NormSim (Wang et al. 2024, arXiv 2405.19547, section 4): the best 30 % of the pool by negCLIPLoss,
and the two thirds of these that are nearest to a target picture: 20 % of the pool."""

t_mars = Recipe("t-mars-like", (pair.most_aligned_masked(0.5),))
"""T-MARS (Maini et al. 2023, arXiv 2307.03132): text in the picture is masked, and the pairs with the highest cosine of
caption and masked picture are kept, here the better half of the pool. The scorer `text` masks, with `of = "clip"`.
PP-OCR's detector replaces FAST, and a box is filled with its own mean colour."""

semdedup = Recipe("semdedup", (pool.hardest(0.05),))
"""SemDeDup (Abbas et al. 2023, arXiv 2303.09540, section 3): k-means over image embeddings. A picture is dropped if a
less central one of its cluster is within eps of it. The paper chooses eps by the share of pictures to keep, and has
50,000 clusters for 440 million pictures. Here eps is 0.05, and a cluster has a thousand pictures.
It lacks a guarantee of `Distinct`: a pair may be dropped for one that is dropped itself, or that fails another filter.
The scores of a pair do not decide whether it is kept."""

density_pruning = Recipe(
    "density-pruning-like", (pool.hardest(0.05),), selection=DensityPruning(budget=0.4, unit="survivors")
)
"""Density-based pruning (Abbas et al. 2024, arXiv 2401.04578): SemDeDup, then k-means with at most 500 clusters, and of
each cluster the pairs that are farthest from its centroid, as many as its quota says. The authors cut LAION from 277
million deduplicated pairs to 112 million, 0.4 of them. The scorer `clip` replaces DINOv2, and eps is that of
`semdedup`. Their pool was filtered by captions before; this recipe does not do that."""

target_matching = Recipe("target-matching-top30", selection=Matching(budget=0.3))
"""30 % of the pool, chosen greedily so that the pictures are distributed like a target set, which you give to a scorer
`target_features` of that kind. winnow's own, after submodular selection of training data (Wei et al. 2014, Shinohara
2014)."""

soft_cap = Recipe("soft-cap-like", selection=SoftCap(by="clip_similarity", penalty=0.02, temperature=0.01))
"""Soft cap sampling (M-FLYT, Shechter and Carmon 2025, arXiv 2503.08805): as many samples as the pool has pairs, drawn
by score, with repetition. The cosine of the scorer `clip` replaces the learned score, whose logits need no temperature.
The temperature is CLIP's own. The penalty is winnow's: about half of a pool is then kept, its best pairs up to ten
times."""

learned_filter = Recipe("learned-filter", (pair.learned(0.7),))
"""The best 70 % of the pool by a scorer `learned` of kind cross_fitted: dual encoders that were trained on other shards
of the source. Such a filter is bootstrapped from noisy data, as in data filtering networks (Fang et al. 2023, arXiv
2309.17425, which trains on separate clean data). The share is winnow's own: set it to what you expect to be right."""

mixed_top30 = Recipe("mixed-top30", (pair.best_mixed(0.3),))
"""The best 30 % of the pool by a scorer `mixed`, a mix of score columns that is learned for a reference set, after
M-FLYT (Shechter and Carmon 2025, arXiv 2503.08805). M-FLYT samples from its scores with repetition, and learns from
large sets of downstream tasks. Here the best share is kept once."""

default = Recipe("default", (text.worded, text.plain, image.shaped, pair.most_aligned(0.5)))
"""A careful start for a new source: remove captions that describe nothing, keep the better half."""
