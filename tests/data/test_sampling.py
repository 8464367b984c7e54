"""The balanced draw: the properties of every step, and that a step is a function of seed, epoch and step only."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.data.errors import BadInput
from vireid.data.sampling import ModalityBalancedSampler, seed_of


def sampler(labels, modality, identities=2, visible=2, infrared=2, **options):
    return ModalityBalancedSampler(
        np.asarray(labels, dtype=np.int64),
        np.asarray(modality, dtype=np.int8),
        identities_per_batch=identities,
        visible_per_identity=visible,
        infrared_per_identity=infrared,
        **options,
    )


@st.composite
def problems(draw):
    """Records of 1..8 identities with 0..6 records of each modality, and a batch that is possible with them."""
    counts = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8))
    counts.append((draw(st.integers(1, 6)), draw(st.integers(1, 6))))
    samples = [(i, m) for i, pair in enumerate(counts) for m in (0, 1) for _ in range(pair[m])]
    order = draw(st.permutations(range(len(samples))))
    labels, modality = (np.array([samples[k][c] for k in order]) for c in (0, 1))
    both = sum(1 for pair in counts if all(pair))
    return labels, modality, draw(st.integers(1, both)), draw(st.integers(1, 5)), draw(st.integers(1, 5))


@settings(max_examples=80, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**64), epoch=st.integers(0, 1000))
def test_every_step_is_balanced(problem, seed, epoch):
    labels, modality, identities, visible, infrared = problem
    made = sampler(labels, modality, identities, visible, infrared, seed=seed, epoch_length=3)
    for step in range(3):
        samples = made.samples(epoch, step)
        assert samples.dtype == np.int64 and samples.shape == (identities * (visible + infrared),)
        seen = {m: labels[samples[modality[samples] == m]] for m in (0, 1)}
        assert len(set(seen[0])) == identities and set(seen[0]) == set(seen[1])
        for m, k in ((0, visible), (1, infrared)):
            for identity in set(seen[m]):
                own = samples[(modality[samples] == m) & (labels[samples] == identity)]
                there = int(((labels == identity) & (modality == m)).sum())
                assert len(own) == k
                assert len(set(own)) == k or there < k


@settings(max_examples=30, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**32), world=st.integers(2, 4))
def test_ranks_share_the_samples_of_one_process(problem, seed, world):
    labels, modality, identities, visible, infrared = problem
    identities -= identities % world
    if identities:
        alone = sampler(labels, modality, identities, visible, infrared, seed=seed, epoch_length=2)
        shares = [
            sampler(labels, modality, identities, visible, infrared, seed=seed, epoch_length=2, rank=r, world=world)
            for r in range(world)
        ]
        for step in range(2):
            parts = [share.samples(5, step) for share in shares]
            assert np.concatenate(parts).tolist() == alone.samples(5, step).tolist()
            people = [set(labels[part].tolist()) for part in parts]
            assert sum(map(len, people)) == len(set.union(*people)) == identities


LABELS = np.repeat(np.arange(20), 10)
MODALITY = np.tile([0, 1], 100)


def test_a_step_does_not_depend_on_what_was_asked_before_nor_on_the_epochs_length():
    long = sampler(LABELS, MODALITY, 4, seed=3, epoch_length=50)
    want = [long.samples(1, step).tolist() for step in range(50)]
    short = sampler(LABELS, MODALITY, 4, seed=3, epoch_length=7)
    assert [short.samples(1, step).tolist() for step in (6, 0, 3)] == [want[6], want[0], want[3]]
    short.samples(0, 0)
    assert pickle.loads(pickle.dumps(short)).samples(1, 2).tolist() == want[2]
    taken = short.samples(1, 2)
    taken[:] = -1  # the caller may change what it got
    assert short.samples(1, 2).tolist() == want[2]


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 2}, {"step": 1}])
def test_seed_epoch_and_step_all_change_the_draw(change):
    at = {"seed": 3, "epoch": 1, "step": 0} | change
    usual = sampler(LABELS, MODALITY, 4, seed=3).samples(1, 0)
    assert sampler(LABELS, MODALITY, 4, seed=at["seed"]).samples(at["epoch"], at["step"]).tolist() != usual.tolist()


def test_identities_and_samples_are_drawn_evenly():
    made = sampler(LABELS, MODALITY, 5, 2, 3, seed=0, epoch_length=4000)
    drawn = np.concatenate([made.samples(0, step) for step in range(4000)])
    people = np.bincount(LABELS[drawn], minlength=20) / 5
    # 4,000 steps draw each of 20 identities with probability 1/4: 1,000 ± 27. Bound at five deviations.
    assert np.abs(people - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)
    for m, k in ((0, 2), (1, 3)):
        samples = np.bincount(drawn, minlength=200)[m == MODALITY]
        p = 0.25 * k / 5
        assert np.abs(samples - 4000 * p).max() < 5 * np.sqrt(4000 * p * (1 - p))


def test_pairs_of_samples_are_drawn_evenly():
    made = sampler([0] * 5, [0, 0, 0, 0, 1], 1, 2, 1, epoch_length=6000)
    pairs = [tuple(sorted(made.samples(0, step)[:2].tolist())) for step in range(6000)]
    counts = {pair: pairs.count(pair) for pair in set(pairs)}
    assert len(counts) == 6
    assert all(abs(n - 1000) < 5 * np.sqrt(6000 / 6 * 5 / 6) for n in counts.values())


def test_with_replacement_a_step_repeats_pictures_as_often_as_it_should():
    """AGW's code draws 4 of RegDB's 10 pictures with replacement. A group has no repetition with probability
    10·9·8·7 / 10⁴ = 0.504, so about half of the groups repeat a picture."""
    labels, modality = np.zeros(20, dtype=int), np.repeat([0, 1], 10)
    made = sampler(labels, modality, 1, 4, 4, epoch_length=3000, with_replacement=True)
    groups = [made.samples(0, step).reshape(2, 4) for step in range(3000)]
    repeats = [[len(set(group.tolist())) < 4 for group in pair] for pair in groups]
    assert np.abs(np.mean(repeats, axis=0) - 0.496).max() < 5 * np.sqrt(0.25 / 3000)
    assert all((pair[0] < 10).all() and (pair[1] >= 10).all() for pair in groups)
    counts = np.bincount(np.concatenate(groups).ravel(), minlength=20)
    assert np.abs(counts - 1200).max() < 5 * np.sqrt(12000 * 0.1 * 0.9)
    without = sampler(labels, modality, 1, 4, 4, epoch_length=300)
    assert all(len(set(without.samples(0, step).tolist())) == 8 for step in range(300))


def test_identities_of_one_modality_are_never_drawn():
    made = sampler([0, 0, 1, 2, 2], [0, 1, 0, 1, 0], 2, 1, 1, epoch_length=20)
    assert made.identities.tolist() == [0, 2]
    assert all(2 not in made.samples(0, step) for step in range(20))


@pytest.mark.parametrize(
    ("length", "visible", "infrared", "identities", "k", "steps"),
    [
        ("agw", 22_258, 11_909, 8, 4, 696),  # floor(22258 / 32) + 1 = 695 + 1, as AGW's logs show for SYSU-MM01
        ("agw", 64, 32, 8, 4, 3),
        ("fastreid", 22_258, 11_909, 4, 16, 266),  # floor(34167 / 128)
        ("fastreid", 20, 20, 4, 16, 1),
        (17, 20, 20, 2, 2, 17),
    ],
)
def test_steps_per_epoch(length, visible, infrared, identities, k, steps):
    modality = np.repeat([0, 1], [visible, infrared])
    labels = np.concatenate([np.arange(visible), np.arange(infrared)]) % 10
    assert sampler(labels, modality, identities, k, k, epoch_length=length).steps == steps


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"identities": 21}, "identities_per_batch is 21, but only 20 identities have both"),
        ({"identities": 0}, "identities_per_batch is 0"),
        ({"visible": 0}, "visible_per_identity is 0"),
        ({"infrared": -1}, "infrared_per_identity is -1"),
        ({"identities": 4, "world": 3}, "which 3 processes cannot share equally"),
        ({"rank": 2, "world": 2}, "rank 2 is not one of 2 processes; choices: 0 to 1"),
        ({"epoch_length": "agww"}, "unknown epoch_length 'agww'; did you mean 'agw'"),
        ({"epoch_length": 0}, "epoch_length is 0"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_refusals(options, says):
    with pytest.raises(BadInput, match=says):
        sampler(LABELS, MODALITY, **options)


def test_refuses_columns_of_different_lengths():
    with pytest.raises(BadInput, match="shape"):
        sampler([0, 0, 0], [0, 1])


def test_steps_outside_the_epoch():
    with pytest.raises(IndexError):
        sampler(LABELS, MODALITY, epoch_length=3).samples(0, 3)


def test_a_step_is_numpys_choice_identity_by_identity():
    """The draw written out: P identities, then K visible and K infrared records of each."""
    made = sampler([0, 0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 0, 1, 1, 0, 0, 1], 2, 2, 2, seed=9, epoch_length=4)
    of = {(0, 0): [0, 1, 2], (0, 1): [3], (1, 0): [4], (1, 1): [5, 6], (2, 0): [7, 8], (2, 1): [9]}
    for step in range(4):
        rng = np.random.default_rng((9, 3, step))
        expected = []
        for identity in rng.choice(3, 2, replace=False):
            for modality in (0, 1):
                own = of[int(identity), modality]
                expected += rng.choice(own, 2, replace=len(own) < 2).tolist()
        assert made.samples(3, step).tolist() == expected


def test_seeds_have_63_bits_and_differ():
    assert seed_of(1, 2, 3) == seed_of(1, 2, 3)
    assert 0 <= seed_of(1, 2, 3) < 2**63
    assert max(seed_of(value) for value in range(100)) >= 2**62
    assert len({seed_of(0, e, s, r) for e in range(5) for s in range(5) for r in range(5)}) == 125
    large = [2**32, 2**63, 2**64 + 1, 10**30]
    assert len({seed_of(value, step) for value in large for step in range(3)}) == 12
