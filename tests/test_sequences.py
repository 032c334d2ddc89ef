"""The five preprocessing steps against a slow second implementation."""

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbrec import checks
from nbrec.preprocessing import SequenceSettings, build_sequences
from nbrec.sequences import Fold, Sequences, k_folds, leave_one_out, split_hash

relaxed = settings(deadline=None)  # the cores may be busy with other work


def slow(ratings, settings):
    """The same steps with dictionaries and lists."""
    histories = {}
    for row in ratings.itertuples():
        histories.setdefault(row.userId, []).append((row.timestamp, row.Index, row))
    kept = {}
    for user in sorted(histories):
        rows = [r for *_, r in sorted(histories[user], key=lambda x: x[:2])]
        rows = rows[settings.left_truncate:]
        if settings.min_length <= len(rows) <= settings.max_length:
            films = [r.movieId for r in rows if r.rating >= settings.min_rating]
            if len(films) >= 2:
                kept[user] = films
    return kept


rows = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9), st.sampled_from([1.0, 3.0, 5.0]),
                          st.integers(0, 3)), min_size=1, max_size=40,
                unique_by=lambda row: row[:2])


@relaxed
@given(rows, st.integers(1, 4))
def test_a_cut_at_the_beginning_leaves_each_target(rows, cut):
    # What a comparison of whole and truncated sequences on the same users rests on.
    ratings = pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])
    targets = {}
    for n in (0, cut):
        if slow(ratings, settings := SequenceSettings(1, 6, n, min_rating=3.0)):
            made = build_sequences(ratings, settings)
            targets[n] = dict(zip(made.users, made.catalogue[made.targets()], strict=True))
    both = targets.get(0, {}).keys() & targets.get(cut, {}).keys()
    assert {u: targets[0][u] for u in both} == {u: targets[cut][u] for u in both}


@relaxed
@given(rows, st.integers(0, 3), st.integers(1, 3), st.integers(3, 8))
def test_equals_the_slow_way(rows, cut, shortest, longest):
    ratings = pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])
    settings = SequenceSettings(shortest, longest, cut, min_rating=3.0)
    expected = slow(ratings, settings)
    if not expected:
        with pytest.raises(ValueError, match="no user is left"):
            build_sequences(ratings, settings)
        return
    made = build_sequences(ratings, settings)
    assert {u: made.catalogue[made[i]].tolist() for i, u in enumerate(made.users)} == expected
    assert made.catalogue.tolist() == sorted({f for films in expected.values() for f in films})
    last = made.funnel[-1]
    assert (last.users, last.movies, last.ratings) == (len(made), made.n_items, len(made.items))


def test_ties_keep_the_order_of_the_file():
    ratings = pd.DataFrame({"userId": [2, 1, 1, 1], "movieId": [5, 30, 10, 20],
                            "rating": 5.0, "timestamp": [0, 7, 7, 3]})
    made = build_sequences(ratings, SequenceSettings(min_length=1))
    assert made.users.tolist() == [1] and made.catalogue[made[0]].tolist() == [20, 30, 10]


def test_wide_ids_and_times():
    ratings = pd.DataFrame({"userId": [2**40, 2**40, 7, 7], "movieId": [1, 2, 2, 1],
                            "timestamp": [2**33, 5, 1, 2]})
    made = build_sequences(ratings, SequenceSettings(min_length=1))
    assert [made.catalogue[made[i]].tolist() for i in (0, 1)] == [[2, 1], [2, 1]]


def test_funnel_by_hand():
    ratings = pd.DataFrame({
        "userId": [1] * 4 + [2] * 2 + [3] * 6 + [4] * 3,
        "movieId": [1, 2, 3, 4, 1, 2, 1, 2, 3, 4, 5, 6, 1, 2, 7],
        "rating": [5, 5, 1, 5] + [5, 5] + [5] * 6 + [1, 1, 5], "timestamp": range(15)})
    funnel = build_sequences(ratings, SequenceSettings(3, 5, 0, 3.0)).funnel
    assert [list(step[2:5]) for step in funnel] == [
        [4, 7, 15], [4, 7, 15], [2, 5, 7], [2, 5, 7], [2, 4, 4], [1, 3, 3]]
    assert "1 users too short, 1 too long" in funnel[2].note


def test_without_ratings_the_filter_is_skipped_and_said():
    ratings = pd.DataFrame({"userId": [1, 1, 1], "movieId": [1, 2, 3], "position": [2, 1, 0]})
    made = build_sequences(ratings, SequenceSettings(min_length=1))
    assert made.catalogue[made[0]].tolist() == [3, 2, 1]
    assert "skipped" in made.funnel[4].note


def test_sample_is_seeded_and_of_the_right_size():
    ratings = pd.DataFrame({"userId": np.repeat(np.arange(50), 3),
                            "movieId": np.tile([1, 2, 3], 50), "timestamp": 0})
    draw = [build_sequences(ratings, SequenceSettings(1, random_sample=0.3, seed=s)).users.tolist()
            for s in (0, 0, 1)]
    assert len(draw[0]) == 15 and draw[0] == draw[1] != draw[2]


def test_missing_columns_and_settings():
    with pytest.raises(ValueError, match="timestamp"):
        build_sequences(pd.DataFrame({"userId": [1], "movieId": [1]}))
    with pytest.raises(ValueError, match="min_length=9 with max_length=3: expected min_length <="):
        SequenceSettings(9, 3)


NAN = float("nan")


@pytest.mark.parametrize(("name", "values"), {
    "min_length": (0, -1, 2.5, 2.0, NAN, True, None, "5"),
    "max_length": (0, 4, -1, NAN, math.inf, True, None),
    "left_truncate": (-1, 1.5, NAN, None, True),
    "min_rating": (NAN, math.inf, -1, 5.1, "4", True),
    "random_sample": (0, 2, 1.1, -0.1, NAN, None, True, "1"),
    "seed": (-1, 0.5, NAN, None, True),
}.items())
def test_every_setting_is_checked(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name}=.*expected"):
            SequenceSettings(**{name: value})
    edges = {"min_length": (1, np.int64(90)), "max_length": (5, 10**9), "left_truncate": (0, 99),
             "min_rating": (None, 0, 5, np.float32(3.5)), "random_sample": (1, 1e-9),
             "seed": (0, 2**40)}
    for value in edges[name]:
        assert getattr(SequenceSettings(**{name: value}), name) == value


def test_folds_share_the_users_out():
    folds = k_folds(103, 10, seed=3)
    assert sorted(np.concatenate([f.test for f in folds])) == list(range(103))
    assert sorted(np.concatenate([f.validation for f in folds])) == list(range(103))
    for fold in folds:
        assert sorted(np.concatenate([fold.train, fold.validation, fold.test])) == list(range(103))
        assert 81 <= len(fold.train) <= 83
    with pytest.raises(ValueError, match="folds"):
        k_folds(5, 10)


def test_hash_tells_every_change():
    ratings = pd.DataFrame({"userId": np.repeat(np.arange(20), 3),
                            "movieId": np.tile([1, 2, 3], 20), "timestamp": np.tile([0, 1, 2], 20)})
    a = build_sequences(ratings, SequenceSettings(1))
    swapped = ratings.assign(timestamp=np.tile([1, 0, 2], 20))
    b = build_sequences(swapped, SequenceSettings(1))
    hashes = {split_hash(a, k_folds(20, 10)), split_hash(a, k_folds(20, 5)),
              split_hash(a, k_folds(20, 10, seed=1)), split_hash(b, k_folds(20, 10))}
    assert len(hashes) == 4 and split_hash(a, k_folds(20, 10)) in hashes


def test_select_keeps_catalogue_and_order():
    ratings = pd.DataFrame({"userId": [1, 1, 2, 2, 2], "movieId": [1, 2, 2, 3, 1],
                            "timestamp": range(5)})
    made = build_sequences(ratings, SequenceSettings(1))
    part = made.select([1, 0])
    assert part.users.tolist() == [2, 1] and part.targets().tolist() == [0, 1]
    assert [h.tolist() for h in part.histories()] == [[1, 2], [0]]
    assert part.n_items == 3


def test_counts_of_the_small_real_data(data_folder):
    from nbrec.data.movielens import load

    if not (data_folder / "ml-latest-small.zip").exists():
        pytest.skip("ml-latest-small.zip is not in $NBREC_DATA")
    made = build_sequences(load("ml-latest-small").ratings)
    assert made.funnel[0][2:5] == (610, 9724, 100836)
    assert made.funnel[-1][2:5] == (345, 2632, 13077)


@relaxed
@given(rows, st.integers(0, 2), st.sampled_from([None, 3.0, 5.0]), st.sampled_from([0.4, 1.0]),
       st.randoms(use_true_random=False))
def test_every_setting_together(rows, cut, least, share, shuffle):
    """Rows in any order, a filter or none, and a sample that takes whole users."""
    shuffle.shuffle(rows)
    ratings = pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])
    whole = slow(ratings, SequenceSettings(1, 9, cut, min_rating=least or 0.0))
    settings = SequenceSettings(1, 9, cut, least, share, seed=4)
    try:
        made = build_sequences(ratings, settings)
    except ValueError as error:
        assert "no user is left" in str(error) and (share < 1 or not whole)
        return
    got = {u: made.catalogue[made[i]].tolist() for i, u in enumerate(made.users)}
    assert got == {u: whole[u] for u in got}
    if share == 1:
        assert got == whole
    funnel = {step.step: step.users for step in made.funnel}
    assert funnel[4] == (round(share * funnel[3]) if share < 1 else funnel[3])


def test_funnel_with_a_cut_and_a_sample_by_hand():
    ratings = pd.DataFrame({
        "userId": np.repeat([1, 2, 3, 4, 5], [1, 3, 4, 4, 4]),
        "movieId": [9, 8, 1, 2, 8, 1, 2, 3, 8, 1, 2, 3, 8, 1, 2, 3],
        "rating": [5.0] * 15 + [1.0], "timestamp": range(16)})
    made = build_sequences(ratings, SequenceSettings(3, 5, 1, 3.0, 0.67, seed=0))
    counts = [list(step[2:5]) for step in made.funnel]
    # User 1 has one film, so nothing is left of her; user 2 is too short; films 8 and 9 are cut.
    assert counts[:4] == [[5, 5, 16], [4, 3, 11], [3, 3, 9], [2, 3, 6]]
    assert counts[4][0] == counts[5][0] == 2 and set(made.users) < {3, 4, 5}
    assert counts[5][2] == 6 - (5 in made.users)
    assert "2 users too short" in made.funnel[2].note


def test_times_finer_than_a_second_and_dates():
    frame = pd.DataFrame({"userId": 1, "movieId": [1, 2, 3]})
    dates = pd.to_datetime(["2020-01-03", "2020-01-01", "2020-01-02"])
    for times in ([0.9, 0.2, 0.5], dates):
        made = build_sequences(frame.assign(timestamp=times), SequenceSettings(1))
        assert made.catalogue[made[0]].tolist() == [2, 3, 1]


@pytest.mark.parametrize("column", ["userId", "movieId", "timestamp"])
def test_a_missing_value_is_refused(column):
    frame = pd.DataFrame({"userId": [1, 1, 1], "movieId": [1, 2, 3], "timestamp": [1, 2, 3]})
    frame[column] = frame[column].astype(float)
    frame.loc[1, column] = np.nan
    with pytest.raises(ValueError, match=f"1 of 3 ratings have no {column}"):
        build_sequences(frame)


def test_hash_tells_users_films_and_parts_apart():
    ratings = pd.DataFrame({"userId": np.repeat(np.arange(9), 2), "movieId": [1, 2] * 9,
                            "timestamp": [0, 1] * 9})
    a, folds = build_sequences(ratings, SequenceSettings(1)), k_folds(9, 3)
    swapped = [type(f)(f.index, f.train, f.test, f.validation) for f in folds]
    others = [build_sequences(changed, SequenceSettings(1)) for changed in (
        ratings.assign(userId=ratings.userId + 1), ratings.assign(movieId=ratings.movieId * 2))]
    hashes = [split_hash(a, folds), split_hash(a, swapped), split_hash(a, folds[::-1]),
              *(split_hash(o, folds) for o in others)]
    assert len(set(hashes)) == 5
    assert split_hash(build_sequences(ratings, SequenceSettings(1)), k_folds(9, 3)) == hashes[0]


def test_ten_folds_are_80_10_10_and_seeded():
    for fold in k_folds(200, 10, seed=1):
        assert [len(fold.train), len(fold.validation), len(fold.test)] == [160, 20, 20]
    again, other = k_folds(200, 10, seed=1), k_folds(200, 10, seed=2)
    first = k_folds(200, 10, seed=1)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.test, b.test) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("wide", [0, 2**40])
def test_many_ties_keep_the_order_of_the_file(wide):
    """Enough rows that a sort which is not stable would mix them."""
    films = np.random.default_rng(0).permutation(400)
    ratings = pd.DataFrame({"userId": wide + np.arange(400) % 5, "movieId": films, "timestamp": 7})
    made = build_sequences(ratings, SequenceSettings(1))
    for u in range(5):
        assert made.catalogue[made[u]].tolist() == films[u::5].tolist()


def test_nobody_is_drawn_twice():
    ratings = pd.DataFrame({"userId": np.repeat(np.arange(100), 2), "movieId": [1, 2] * 100,
                            "timestamp": 0})
    users = build_sequences(ratings, SequenceSettings(1, random_sample=0.8)).users
    assert len(users) == 80 and (np.diff(users) > 0).all()


def test_each_fold_validates_on_the_next_test_part():
    folds = k_folds(30, 10)
    for fold, following in zip(folds, [*folds[1:], folds[0]], strict=True):
        assert fold.validation.tolist() == following.test.tolist()


def test_leaving_out_the_last_items_by_hand():
    ratings = pd.DataFrame({"userId": [1] * 5 + [2] * 4, "movieId": [10, 11, 12, 13, 14, 13, 12, 11,
                            10], "rating": 5.0, "timestamp": range(9)})
    sequences = build_sequences(ratings, SequenceSettings(1))
    (fold,) = leave_one_out(2)
    train, validation, test = fold.parts(sequences)
    assert [train[u].tolist() for u in (0, 1)] == [[0, 1, 2], [3, 2]]
    assert validation.targets().tolist() == [3, 1] and test.targets().tolist() == [4, 0]
    assert [h.tolist() for h in validation.histories()] == [train[u].tolist() for u in (0, 1)]
    assert train.n_items == 5 and train.users.tolist() == [1, 2]
    with pytest.raises(ValueError, match="user 2 has 4 items, 3 are to be cut off"):
        sequences.shorten(3)
    whole = k_folds(30, 10)[0]
    many = sequences.select(np.arange(30) % 2)
    assert [part.digest() for part in whole.parts(many)] == [
        many.select(p).digest() for p in (whole.train, whole.validation, whole.test)]


@relaxed
@given(st.lists(st.integers(2, 30), min_size=1, max_size=6), st.integers(1, 12))
def test_windows_have_every_target_once_with_what_stands_before_it(lengths, n):
    sequences = Sequences(np.arange(len(lengths)), np.arange(sum(lengths), dtype=np.int32),
                          np.concatenate(([0], np.cumsum(lengths))), np.arange(sum(lengths)))
    windows, context = sequences.windows(n)
    assert windows.lengths.min() >= 2 and windows.lengths.max() <= n + 1
    targets = np.concatenate([windows[p][1 + context[p]:] for p in range(len(windows))])
    assert targets.tolist() == [i for u in range(len(lengths)) for i in sequences[u][1:]]
    assert all((np.diff(windows[p]) == 1).all() for p in range(len(windows)))
    for p, user in enumerate(windows.users):
        whole = windows[p][0] == sequences[user][0]  # the first window: all that stands before
        assert len(windows[p]) - 1 - context[p] <= (n if whole else -(-n // 2))
        assert context[p] == (0 if whole else n // 2)


# --- tables of other types -----------------------------------------------------------------------

TOY = pd.DataFrame({"userId": [2, 2, 10, 10, 10], "movieId": [30, 4, 4, 200, 30], "rating": 4.0,
                    "timestamp": [9, 10, 100, 20, 3]})
ONE = SequenceSettings(1)


def films(made):
    return {int(u): made.catalogue[made[i]].tolist() for i, u in enumerate(made.users)}


RIGHT = {2: [30, 4], 10: [30, 200, 4]}


@pytest.mark.parametrize("make", [
    lambda c: c.astype(str), lambda c: c.astype(str).astype(object), lambda c: c.astype(object),
    lambda c: " " + c.astype(str) + " ", lambda c: c.astype("string"), lambda c: c.astype(float),
    lambda c: c.astype("uint8"), lambda c: c.astype("uint64"), lambda c: c.astype("Int64"),
    lambda c: c.astype("Float64"), lambda c: c.astype("category"),
    lambda c: c.astype(str).astype("category"),
    lambda c: pd.Series([str(v) if i % 2 else float(v) for i, v in enumerate(c)]),
])
@pytest.mark.parametrize("column", ["userId", "movieId", "timestamp", "position"])
def test_numbers_in_other_clothes_are_these_numbers(make, column):
    """Digits as text would sort 10 before 9."""
    ratings = TOY.rename(columns={"timestamp": column}) if column == "position" else TOY
    made = build_sequences(ratings.assign(**{column: make(ratings[column])}), ONE)
    assert films(made) == RIGHT and made.catalogue.tolist() == [4, 30, 200]
    assert (made.users.dtype, made.items.dtype, made.catalogue.dtype) == (
        np.int64, np.int32, np.int64)


@pytest.mark.parametrize("dates", [
    pd.to_datetime(TOY["timestamp"], unit="s"), pd.to_datetime(TOY["timestamp"], unit="ns"),
    pd.to_datetime(TOY["timestamp"], unit="s", utc=True).dt.tz_convert("Europe/Madrid"),
    pd.to_datetime(TOY["timestamp"], unit="s") - pd.Timedelta(days=30_000),  # before 1970
    TOY["timestamp"] / 1e3, TOY["timestamp"] - 50, TOY["timestamp"] + 2**62,
])
def test_times_are_used_for_their_order(dates):
    assert films(build_sequences(TOY.assign(timestamp=dates), ONE)) == RIGHT


IDS = "whole numbers, 0 to 2.63 - 1"
SECONDS = "seconds since 1970 as whole numbers or float64, or dates as pandas.to_datetime"


@pytest.mark.parametrize(("column", "values", "expected"), [
    ("userId", [1.2, 1.7, 2, 3, 4], rf"userId of type float64 has .*1.2.* in row 0.*{IDS}"),
    ("movieId", [1, 2, 2.5, 3, 4], rf"movieId of type float64 has .*2.5.* in row 2.*{IDS}"),
    ("movieId", [1, 2.0**53, 3, 4, 5], rf"float64 has .*9007199254740992.* in row 1.*{IDS}"),
    ("movieId", [1, -2, 3, 4, 5], rf"movieId of type int64 has .*-2.* in row 1.*{IDS}"),
    ("userId", np.array([1, 2, 2**63, 3, 4], "uint64"), "userId of type uint64 has .* in row 2"),
    ("timestamp", np.array([1, 2, 2**63, 3, 4], "uint64"), "timestamp of type uint64 .* row 2"),
    ("timestamp", np.arange(5, dtype="float32"), f"timestamp of type float32 .*{SECONDS}"),
    ("timestamp", ["01/03/2020"] * 5, f"timestamp of type .* has '01/03/2020' in row 0.*{SECONDS}"),
    ("timestamp", [1, 2, math.inf, 3, 4], "timestamp of type float64 has .*inf.* in row 2"),
    ("timestamp", [1, 2, -2.0**53, 3, 4], "timestamp of type float64 has .* in row 2"),
    ("position", [1, 2, 3, 0.5, 4], f"position of type float64 has .*0.5.* in row 3.*{IDS}"),
    ("position", [1, 2, 3, -1, 4], f"position of type int64 has .*-1.* in row 3.*{IDS}"),
    ("userId", [True, False] * 2 + [True], "userId of type bool has .*True.* in row 0"),
    ("userId", [1, True, 2, 3, 4], "userId of type object has True in row 1"),
    ("userId", [1, "x7", 2, 3, 4], "userId of type object has 'x7' in row 1"),
    ("userId", ["1", "2", "2.5", "3", "4"], "userId of type .* has '2.5' in row 2"),
    ("userId", ["1", "2", "9" * 20, "3", "4"], "userId of type .* has '9+' in row 2"),
    ("userId", ["1", "٣", "3", "4", "5"], "userId of type .* has '٣' in row 1"),
    ("userId", [1, Decimal("1.5"), 3, 4, 5], "userId of type object has Decimal.* in row 1"),
    ("userId", [1, 2**70, 3, 4, 5], "userId of type object has .* in row 1"),
    ("movieId", [b"1", b"2", b"3", b"4", b"5"], "movieId of type object has b'1' in row 0"),
    ("movieId", [[1], [2], [3], [4], [5]], r"movieId of type object has \[1\] in row 0"),
    ("movieId", [1 + 2j] * 5, "movieId of type complex128 has .* in row 0"),
    ("userId", pd.to_datetime([1, 2, 3, 4, 5]), "userId of type datetime64.* in row 0"),
    ("timestamp", pd.to_timedelta([1, 2, 3, 4, 5], unit="s"), "timestamp of type timedelta64"),
    ("rating", ["4"] * 5, "column rating of type .* has '4' in row 0: expected numbers, 0.5 to 5"),
    ("rating", [True] * 5, "column rating of type bool has .*True.* in row 0"),
    ("rating", [4, 5, 7, 1, 1], "column rating of type int64 has .*7.* in row 2.*0.5 to 5.0 stars"),
    ("rating", [4, 5, 0, 1, 1], "column rating of type int64 has .*0.* in row 2.*0.5 to 5.0 stars"),
    ("rating", [4, NAN, 3, 1, 1], "float64 has .*nan.* in row 1.*min_rating=None filters nothing"),
    ("rating", pd.array([4, None, 3, 1, 1], "Int64"), "rating of type Int64 has <NA> in row 1"),
])
def test_values_of_another_kind_are_named(column, values, expected):
    ratings = TOY.rename(columns={"timestamp": column}) if column == "position" else TOY
    with pytest.raises(ValueError, match=expected) as caught:
        build_sequences(ratings.assign(**{column: values}), ONE)
    assert "\n" not in str(caught.value)


def test_ratings_are_read_only_for_a_filter():
    odd = TOY.assign(rating=["good", None, -1, 99, NAN])
    assert films(build_sequences(odd, SequenceSettings(1, min_rating=None))) == RIGHT
    for kind in ("int8", "float32", "Int64", "Float64"):
        ratings = TOY.assign(rating=pd.Series([3, 4, 5, 2, 4]).astype(kind))
        assert films(build_sequences(ratings, SequenceSettings(1))) == {2: [30, 4], 10: [30, 4]}
    half = TOY.assign(rating=np.array([3.3, 3.3, 3.2, 3.3, 4], np.float32))
    made = build_sequences(half, SequenceSettings(1, min_rating=np.float64(3.3)))
    assert films(made) == {2: [30, 4], 10: [30, 200]}  # 3.3 in float32 is 3.3


def test_a_position_decides_over_a_time():
    made = build_sequences(TOY.assign(position=[1, 0, 2, 1, 0]), ONE)
    assert films(made) == {2: [4, 30], 10: [30, 200, 4]}


def test_what_is_no_table_of_ratings():
    with pytest.raises(ValueError, match="type dict: expected a table.*its ratings"):
        build_sequences(TOY.to_dict())
    for column in ("userId", "rating"):
        twice = pd.concat([TOY, TOY[column]], axis=1)
        with pytest.raises(ValueError, match=f"have {column} in 2 columns: expected one"):
            build_sequences(twice)
    with pytest.raises(ValueError, match="no user is left"):
        build_sequences(TOY[:0])
    with pytest.raises(ValueError, match="no user is left"):
        build_sequences(pd.DataFrame(columns=TOY.columns))


def test_a_pair_that_stands_twice_is_named():
    with pytest.raises(ValueError, match="user 10 and movie 4 stand in rows 2 and 5.*each pair "
                                         "once.*drop_duplicates"):
        build_sequences(pd.concat([TOY, TOY[2:3]]))
    wide = TOY.assign(movieId=TOY["movieId"] + 2**40)
    with pytest.raises(ValueError, match=rf"movie {2**40 + 4} stand in rows 2 and 5"):
        build_sequences(pd.concat([wide, wide[2:3]]))
    few = pd.DataFrame({"userId": 1, "movieId": [7, 8, 9] * 30, "timestamp": range(90)})
    with pytest.raises(ValueError, match="user 1 and movie 7 stand in rows 0 and 3"):  # dense ids
        build_sequences(few)


def test_wide_ids_are_kept_exactly():
    users, movies = [76561197960265728, 76561197960265729, 2**63 - 1], [3_000_000_000, 2**62 + 1, 5]
    ratings = pd.DataFrame([(u, m, t) for u in users for t, m in enumerate(movies)],
                           columns=["userId", "movieId", "timestamp"])
    made = build_sequences(ratings, ONE)
    assert films(made) == {u: movies for u in users}
    assert made.catalogue.tolist() == [5, 3_000_000_000, 2**62 + 1]
    assert films(made.select([2, 0])) == {users[2]: movies, users[0]: movies}
    assert films(made.shorten(1)) == {u: movies[:2] for u in users}
    assert made.windows(1)[0].users.tolist() == sorted([*users, *users])


@pytest.mark.parametrize(("users", "times"), [
    ([2**31, 2**31, 5, 5], [0, 1, 0, 1]),  # as part of a key, the first would turn negative
    ([2**31 - 1, 2**31 - 1, 5, 5], [0, 1, 0, 1]),
    ([2, 2, 3, 3], [2**32 + 9, 3, 12, 8]),  # the first would turn into user 3
    ([1, 1, 2, 2], [2**32 - 1, 3, 9, 8]),
    ([1, 1, 2, 2], [-1, -5, 9, 8]),
])
def test_ids_and_times_at_the_edge_of_the_sort_key(users, times):
    ratings = pd.DataFrame({"userId": users, "movieId": [1, 2, 1, 2], "timestamp": times})
    made = build_sequences(ratings, ONE)
    assert made.users.tolist() == sorted(set(users))
    for u, user in enumerate(made.users):
        rows = ratings[ratings["userId"] == user].sort_values("timestamp")
        assert made.catalogue[made[u]].tolist() == rows["movieId"].tolist()


def test_hash_tells_who_validates():
    sequences = build_sequences(pd.DataFrame({"userId": np.repeat(np.arange(9), 2), "movieId":
                                              [1, 2] * 9, "timestamp": [0, 1] * 9}), ONE)
    fold = Fold(0, np.array([0, 1, 2]), np.array([3, 4]), np.array([5, 6]))
    parts = [{}, {"train": np.array([0, 1, 7])}, {"validation": np.array([3, 7])},
             {"test": np.array([5, 7])}]
    assert len({split_hash(sequences, [replace(fold, **part)]) for part in parts}) == 4


cells = st.one_of(
    st.integers(-2, 6), st.integers(2**31 - 2, 2**31 + 1), st.integers(2**53 - 1, 2**53 + 1),
    st.integers(2**63 - 2, 2**64), st.integers(-1, 5).map(float), st.floats(), st.booleans(),
    st.none(), st.integers(0, 12).map(str), st.sampled_from(["1.5", "x", "", " 7", "1e3", "nan"]))
plain = st.integers(0, 4)
types = st.sampled_from([None, "int64", "uint64", "float64", "float32", "str", "object", "Int64",
                         "bool", "category", "datetime64[ns]"])


def number(value, exact=True):
    """A cell as the number that it is, or None."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isascii() and value.isdecimal() else None
    if isinstance(value, bool | np.bool_) or value is None or value is pd.NA:
        return None
    if isinstance(value, float):
        if not abs(value) < 2**53 or exact and not value.is_integer():
            return None
        return int(value) if value.is_integer() else value
    return int(value)


@settings(relaxed, max_examples=200)
@given(st.lists(st.tuples(plain, plain, st.integers(0, 3)), min_size=2, max_size=12), types,
       st.sampled_from(["userId", "movieId", "timestamp", "position"]), st.data())
def test_any_column_ends_in_the_right_order_or_a_message(rows, kind, column, data):
    names = ["userId", "movieId", "position" if column == "position" else "timestamp"]
    ratings = pd.DataFrame(rows, columns=names)
    odd = data.draw(st.sampled_from([plain, cells]))
    drawn = data.draw(st.lists(odd, min_size=len(rows), max_size=len(rows)))
    values = pd.Series(drawn, dtype=object)
    try:
        values = values.astype(kind) if kind else values.infer_objects()
    except (ValueError, TypeError, OverflowError):
        pass  # these cells are not of this type: they stay as they are
    ratings[column] = values
    try:
        made = build_sequences(ratings, SequenceSettings(1, 10**6, min_rating=None))
    except ValueError as error:
        assert len(str(error)) > 30
        made = None
    if values.dtype.kind in "M":
        dates = column == "timestamp" and not values.isna().any()
        cleaned = values.astype("int64").tolist() if dates else [None]
    elif values.dtype == np.float32:
        cleaned = [None]
    else:
        cleaned = [number(v, column != "timestamp" or values.dtype == object)
                   for v in values.tolist()]
    low = -(2**63) if column == "timestamp" else 0
    sound = all(v is not None and low <= v < 2**63 for v in cleaned)
    if sound:
        table = [list(row) for row in rows]
        for row, value in zip(table, cleaned, strict=True):
            row[names.index(column)] = value
        sound = len({(u, m) for u, m, _ in table}) == len(table)
    expected = {}
    for user, movie, _ in sorted(table, key=lambda row: row[2]) if sound else []:
        expected.setdefault(user, []).append(movie)
    expected = {u: expected[u] for u in sorted(expected) if len(expected[u]) >= 2}
    assert (made is not None) == bool(expected)
    if made is not None:
        assert list(films(made).items()) == list(expected.items())
        assert made.catalogue.tolist() == sorted({m for ms in expected.values() for m in ms})


# --- made by hand --------------------------------------------------------------------------------

HAND = {"users": [7, 3], "items": [0, 2, 1, 2], "offsets": [0, 2, 4], "catalogue": [5, 6, 9]}


def test_sequences_made_by_hand():
    made = Sequences(**HAND)
    assert films(made) == {7: [5, 9], 3: [6, 9]} and made.targets().tolist() == [2, 2]
    arrays = (made.users, made.items, made.offsets, made.catalogue)
    assert [a.dtype for a in arrays] == [np.int64, np.int32, np.int64, np.int64]
    assert len(Sequences([], [], [0], [])) == 0
    assert Sequences([1], [], [0, 0], [5])[0].tolist() == []


@pytest.mark.parametrize(("wrong", "expected"), [
    ({"items": [0, 2, 1, 3]}, r"catalogue index 3 at position 3: expected 0\.\.2"),
    ({"items": [0, -1, 1, 2]}, "catalogue index -1 at position 1"),
    ({"items": [0, 2**32, 1, 2]}, "catalogue index 4294967296 at position 1"),
    ({"items": [0.0, 2, 1, 2]}, "items is 1-dimensional of type float64"),
    ({"items": [[0, 2], [1, 2]]}, "items is 2-dimensional"),
    ({"items": [True, False, True, True]}, "items is 1-dimensional of type bool"),
    ({"items": [0, 2, 1]}, "offsets from 0 to 4: expected 0 to 3, the number of items"),
    ({"offsets": [0, 2]}, "2 offsets of 2 users"),
    ({"offsets": [1, 2, 4]}, "offsets from 1 to 4: expected 0 to 4"),
    ({"offsets": [0, 5, 4]}, "offsets has 4 after 5 at position 2: expected ascending numbers"),
    ({"users": [7, 3, 4]}, "3 offsets of 3 users"),
    ({"users": [7, -3]}, "users has -3 at position 1: expected 0 to"),
    ({"users": np.array([7, 2**63], "uint64")}, "users has 9223372036854775808 at position 1"),
    ({"users": ["a", "b"]}, "users is 1-dimensional of type <U1"),
    ({"catalogue": [5, 9, 6]}, "catalogue has 6 after 9 at position 2.*ascending numbers, each"),
    ({"catalogue": [5, 6, 6]}, "catalogue has 6 after 6 at position 2"),
    ({"catalogue": [5, 6]}, r"catalogue index 2 at position 1: expected 0\.\.1"),
])
def test_arrays_that_do_not_fit_together(wrong, expected):
    with pytest.raises(ValueError, match=expected):
        Sequences(**HAND | wrong)


def test_parts_are_not_checked_again(monkeypatch):
    """They are parts of what was checked; a fold's training part may hold millions of items."""
    made = Sequences(**HAND)
    monkeypatch.setattr(Sequences, "__post_init__", lambda self: pytest.fail("checked again"))
    assert len(made.select([0]).shorten(0).windows(3)[0]) == 1


def test_a_mask_selects_the_users_where_it_is_true():
    made = Sequences([4, 5, 6], [0, 1, 0], [0, 1, 2, 3], [8, 9])
    assert made.select([False, True, True]).users.tolist() == [5, 6]
    assert made.select(np.array([False, True, False])).users.tolist() == [5]
    assert made.select(pd.Series([True, False, False], index=[2, 1, 0])).users.tolist() == [4]
    assert made.select([False] * 3).users.tolist() == made.select([]).users.tolist() == []
    assert made.select(np.array([2, 2, 0], np.uint8)).users.tolist() == [6, 6, 4]


@pytest.mark.parametrize(("positions", "expected"), [
    ([True, False], "a mask of 2 entries for 3 users"),
    ([0, 3], r"user position 3 at position 1: expected 0\.\.2"),
    ([-1], r"user position -1 at position 0: expected 0\.\.2"),
    ([1.0], "user position of type float64"),
    (["0"], "user position of type"),
    ([None, 1], "user position of type object"),
    (1, "expected one dimension; of a single position make"),
    ([[0, 1]], "user positions of shape .1, 2.: expected one dimension"),
])
def test_positions_that_no_user_has(positions, expected):
    made = Sequences([4, 5, 6], [0, 1, 0], [0, 1, 2, 3], [8, 9])
    with pytest.raises(ValueError, match=expected):
        made.select(positions)


def test_arguments_of_sequences_and_folds_are_checked():
    made = Sequences(**HAND)
    assert [list(history) for history in made] == [[0, 2], [1, 2]]
    for user in (0.0, True, slice(0, 1), [0], "0"):
        with pytest.raises(ValueError, match=r"user position .*one whole number in 0\.\.1; select"):
            made[user]
    for user in (-1, 2):
        with pytest.raises(IndexError, match=rf"user position {user}: expected 0\.\.1"):
            made[user]
    for call, name in ((made.shorten, "n"), (made.windows, "n"), (lambda v: k_folds(9, v), "k"),
                       (lambda v: k_folds(9, 3, v), "seed"), (lambda v: k_folds(v), "n_users"),
                       (lambda v: leave_one_out(v), "n_users"),
                       (lambda v: leave_one_out(9, v), "repetitions")):
        for value in (-1, 1.5, NAN, True, None):
            with pytest.raises(ValueError, match=f"{name}={value!r}: expected a whole number"):
                call(value)
    for call in (made.windows, leave_one_out, lambda n: leave_one_out(9, n)):
        with pytest.raises(ValueError, match="=0: expected a whole number, 1 or more"):
            call(0)
    for k in (0, 2, 10):
        with pytest.raises(ValueError, match=f"{k} folds of 9 users: expected 3 <= folds <= users"):
            k_folds(9, k)


@relaxed
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20),
       st.sampled_from([0, 2**31, 2**33]))
def test_repeated_pairs_are_found_where_ids_are_dense_and_where_they_are_not(pairs, shift):
    users, movies = np.array(pairs, np.int64).reshape(-1, 2).T + shift
    found = checks.repeated_pair(users, movies)
    assert (found is None) == (len(set(pairs)) == len(pairs))
    if found:
        assert pairs[found[0]] == pairs[found[1]] and pairs.index(pairs[found[0]]) == found[0]


@pytest.mark.parametrize("column", ["userId", "movieId", "timestamp"])
@pytest.mark.parametrize("value", [2**63, 1.5, float("inf"), None])
def test_a_cell_of_a_mixed_column_that_is_no_whole_number_is_named(column, value):
    cells = {"userId": [1, 1, 1], "movieId": [5, 6, 7], "timestamp": [3, 4, 5]}
    cells[column] = pd.Series([1, "2", value], dtype=object)
    named = f"column {column} of type object has .* in row 2|have no {column}"
    with pytest.raises(ValueError, match=named):
        build_sequences(pd.DataFrame(cells), SequenceSettings(1, 9, min_rating=None))


def test_prefixes_make_the_last_items_targets():
    whole = Sequences(np.array([7, 9]), np.arange(7), np.array([0, 2, 7]), np.arange(7))
    made = whole.prefixes(3)
    assert [made[u].tolist() for u in range(len(made))] == [
        [0, 1], [2, 3, 4, 5, 6], [2, 3, 4, 5], [2, 3, 4]]
    assert made.users.tolist() == [7, 9, 9, 9] and made.targets().tolist() == [1, 6, 5, 4]
    assert len(whole.prefixes(99)) == 1 + 4 and whole.prefixes(1).digest() == whole.digest()
