"""Losses: functions of features or logits, identities and modalities.

Only `centroids` keeps a state: its memory is a module, which the network that uses it holds.
"""
