"""How fast vireid is, as ratios to baselines that are measured in the same run.

`areas/` has one file for each area, found by its name. `measure` has the one way to measure, `run` runs areas,
`comparison` compares with an earlier run, and `growth` fits how the time grows with a size.
"""
