"""The fast search against one that computes and sorts everything, and the bounds that make it exact."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gallery.rows import unit
from vireid.gallery.stores import product
from vireid.gallery.stores.product import Damaged, best, encode, float32_error, scores


def everything(query: np.ndarray, vectors: np.ndarray, places: np.ndarray, top: int) -> dict[int, float]:
    """Place → score of the best ones and of all that are equal to the last: every score alone, then sorted."""
    found = {int(place): float(scores(query, vectors[place : place + 1])[0]) for place in places}
    if len(found) <= top:
        return found
    last = sorted(found.values(), reverse=True)[top - 1]
    return {place: score for place, score in found.items() if score >= last}


def close(count: int, width: int, seed: int, spread: float) -> np.ndarray:
    """Vectors around a few centres, of which some are equal, and some differ by the last bit of one number."""
    draw = np.random.default_rng(seed)
    centres = unit(3, width, seed)
    made = centres[draw.integers(0, 3, count)] + spread * unit(count, width, seed + 1)
    made = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    made[count // 2 :: 3] = made[0]
    made[count // 2 :: 7, 0] = np.nextafter(made[count // 2 :: 7, 0], np.float32(2))
    return made


@pytest.mark.parametrize("coded", [True, False], ids=["int8", "float32"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_best_are_those_of_the_full_sort(coded: bool, data: st.DataObject) -> None:
    count, width = data.draw(st.integers(1, 200)), data.draw(st.sampled_from([1, 2, 3, 8, 33, 256]))
    vectors = close(count, width, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 1e-4, 0.3, 3.0])))
    queries = np.concatenate([vectors[:1], unit(data.draw(st.integers(0, 5)), width, 7)])
    places = np.flatnonzero(np.random.default_rng(count).random(count) < data.draw(st.sampled_from([0.2, 1.0])))
    top = data.draw(st.integers(1, 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product, "BLOCK_BYTES", 4 * width * 16)  # several blocks
        patch.setattr(product, "_SPLIT", 50)  # several threads
        found = best(queries, vectors, encode(vectors) if coded else None, places, top)
    for query, (at, score) in zip(queries, found, strict=True):
        assert dict(zip(at.tolist(), score.tolist(), strict=True)) == everything(query, vectors, places, top)


@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 300), seed=st.integers(0, 999), spread=st.sampled_from([0.0, 1e-3, 0.9]))
def test_a_vector_is_within_its_residual_of_its_codes(width: int, seed: int, spread: float) -> None:
    vectors = close(20, width, seed, spread)
    for vector, code in zip(vectors, encode(vectors), strict=True):
        off = [float(v) - float(code["scale"]) * int(c) for v, c in zip(vector, code["code"], strict=True)]
        assert math.sqrt(math.fsum(x * x for x in off)) <= float(code["residual"])


@settings(max_examples=50, deadline=None)
@given(width=st.sampled_from([2, 40, 512, 2048]), seed=st.integers(0, 999))
def test_codes_never_drop_a_vector_of_the_answer(width: int, seed: int) -> None:
    """The bound by hand: what is left holds every vector whose exact product is among the best."""
    vectors, query = close(80, width, seed, 0.5), unit(1, width, seed + 5)[0]
    places = np.arange(80)
    left = set(product._by_codes(query, encode(vectors), places, 10).tolist())
    assert set(everything(query, vectors, places, 10)) <= left


def test_the_rounding_of_the_query_counts_as_an_error_too() -> None:
    """Vectors whose codes are exact, and a query whose numbers are rounded the wrong way: 20.8 to 20, 20.2 to 21."""
    query = np.array([10.4, 10.4, 10.6, 9.6, 32_767, 0, 0, 0], np.float32)
    query /= np.linalg.norm(query)
    better = np.array([1, 1, -1, -1, 1, 1, 1, 1], np.float32) / np.sqrt(np.float32(8))
    worse = better * np.array([-1, -1, -1, -1, 1, 1, 1, 1], np.float32)
    assert scores(query, better[None]) > scores(query, worse[None])
    assert 0 in product._by_codes(query, encode(np.stack([better, worse])), np.arange(2), 1)


def test_codes_leave_few_candidates_where_the_best_stand_out() -> None:
    """Else the int8 copy would be read for nothing."""
    vectors, query = unit(5000, 256, 1), unit(1, 256, 2)[0]
    near = query + 0.8 * unit(20, 256, 3)
    vectors[100:120] = near / np.linalg.norm(near, axis=1, keepdims=True)
    left = product._by_codes(query, encode(vectors), np.arange(5000), 20)
    assert set(range(100, 120)) <= set(left.tolist()) and len(left) <= 25


@pytest.mark.parametrize("width", [8, 512, 32_768])
def test_sums_of_codes_stay_within_32_bits(width: int) -> None:
    """All numbers as large as they can be: the sum of whole numbers must not run over."""
    one = np.full((1, width), 1 / math.sqrt(width), np.float32)
    vectors = np.concatenate([one, -one, one, -one])
    assert product._by_codes(one[0], encode(vectors), np.arange(4), 1).tolist() == [0, 2]


def test_scores_are_exact_and_do_not_depend_on_the_company() -> None:
    vectors, query = unit(3000, 100, 4), unit(1, 100, 5)[0]
    together = scores(query, vectors)
    for n in (0, 1, 1023, 1024, 2999):
        assert scores(query, vectors[n : n + 1])[0] == together[n]
        exact = math.fsum(float(a) * float(b) for a, b in zip(query, vectors[n], strict=True))
        assert together[n] == pytest.approx(exact, abs=1e-15)


@pytest.mark.parametrize("width", [8, 2048])
def test_float32_products_stay_within_their_error(width: int) -> None:
    vectors, query = close(500, width, 6, 0.1), unit(1, width, 7)[0]
    assert np.abs((vectors @ query).astype(np.float64) - scores(query, vectors)).max() <= float32_error(width)


@pytest.mark.parametrize("queries", [1, product.FEW + 1])
def test_numbers_that_no_vector_can_give_are_damage(queries: int) -> None:
    vectors = unit(50, 8)
    vectors[7] = np.nan
    with pytest.raises(Damaged):
        best(unit(queries, 8, 1), vectors, None, np.arange(50), 5)
    codes = encode(unit(50, 8))
    codes["scale"][3] = np.inf
    with pytest.raises(Damaged):
        best(unit(1, 8, 1), unit(50, 8), codes, np.arange(50), 5)


def test_a_search_does_not_change_the_number_of_torchs_threads() -> None:
    """Training gives the same bits only with the same number of threads. numba starts its own once in a process."""
    code = (
        "import numpy as np, torch\n"
        "from vireid.gallery.stores import product\n"
        "product._SPLIT = 1\n"
        "vectors = np.eye(64, dtype=np.float32)\n"
        "product.best(vectors[:1], vectors, product.encode(vectors), np.arange(64), 3)\n"
        "print(torch.get_num_threads())\n"
    )
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    ran = subprocess.run([sys.executable, "-c", code], env=os.environ | threads, capture_output=True, text=True)
    assert ran.stdout == "1\n", ran.stderr
