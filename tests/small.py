"""The smallest settings that still go the whole way."""

from __future__ import annotations

LAYOUTS = ("sysu-mm01", "regdb", "llcm")
# A configuration that trains in a second; everything else stays the recipe's own.
SECOND = (
    "trunk=tiny",
    "weights=none",
    "size=64x32",
    "identities_per_batch=3",
    "visible_per_identity=2",
    "infrared_per_identity=2",
    "epochs=2",
    "epoch_length=3",
)
