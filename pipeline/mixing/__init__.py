"""Learned mixes of score columns: a weight for each column of a pool, from a small clean reference set."""
