"""Known parts that recipes build from: trunks, stems, pooling, parts, heads, attention."""
