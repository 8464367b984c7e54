"""What the areas `search` and `store` measure: building, searching, serving and filling a gallery."""
