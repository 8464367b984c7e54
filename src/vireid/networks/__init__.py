"""Parts of networks that recipes are built from: stems, trunks, pooling, parts, heads, attention."""
