"""The five preprocessing steps against a slow second implementation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrec.sequences import (
    Sequences,
    SequenceSettings,
    build_sequences,
    k_folds,
    leave_one_out,
    split_hash,
)


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
    last = made.funnel.iloc[-1]
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
    assert funnel[["users", "movies", "ratings"]].values.tolist() == [
        [4, 7, 15], [4, 7, 15], [2, 5, 7], [2, 5, 7], [2, 4, 4], [1, 3, 3]]
    assert "1 users too short, 1 too long" in funnel.note[2]


def test_without_ratings_the_filter_is_skipped_and_said():
    ratings = pd.DataFrame({"userId": [1, 1, 1], "movieId": [1, 2, 3], "position": [2, 1, 0]})
    made = build_sequences(ratings, SequenceSettings(min_length=1))
    assert made.catalogue[made[0]].tolist() == [3, 2, 1]
    assert "skipped" in made.funnel.note[4]


def test_sample_is_seeded_and_of_the_right_size():
    ratings = pd.DataFrame({"userId": np.repeat(np.arange(50), 3),
                            "movieId": np.tile([1, 2, 3], 50), "timestamp": 0})
    draw = [build_sequences(ratings, SequenceSettings(1, random_sample=0.3, seed=s)).users.tolist()
            for s in (0, 0, 1)]
    assert len(draw[0]) == 15 and draw[0] == draw[1] != draw[2]


def test_missing_columns_and_settings():
    with pytest.raises(ValueError, match="timestamp"):
        build_sequences(pd.DataFrame({"userId": [1], "movieId": [1]}))
    for wrong in ({"min_length": 9, "max_length": 3}, {"left_truncate": -1},
                  {"random_sample": 0}, {"random_sample": 1.1}):
        with pytest.raises(ValueError, match="expected"):
            SequenceSettings(**wrong)


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
    from nbrec.movielens import load

    if not (data_folder / "ml-latest-small.zip").exists():
        pytest.skip("ml-latest-small.zip is not in $NBREC_DATA")
    made = build_sequences(load("ml-latest-small").ratings)
    assert made.funnel.iloc[0][["users", "movies", "ratings"]].tolist() == [610, 9724, 100836]
    assert made.funnel.iloc[-1][["users", "movies", "ratings"]].tolist() == [345, 2632, 13077]


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
    funnel = made.funnel.set_index(made.funnel.step.str[0]).users
    assert funnel["4"] == (round(share * funnel["3"]) if share < 1 else funnel["3"])


def test_funnel_with_a_cut_and_a_sample_by_hand():
    ratings = pd.DataFrame({
        "userId": np.repeat([1, 2, 3, 4, 5], [1, 3, 4, 4, 4]),
        "movieId": [9, 8, 1, 2, 8, 1, 2, 3, 8, 1, 2, 3, 8, 1, 2, 3],
        "rating": [5.0] * 15 + [1.0], "timestamp": range(16)})
    made = build_sequences(ratings, SequenceSettings(3, 5, 1, 3.0, 0.67, seed=0))
    counts = made.funnel[["users", "movies", "ratings"]].values.tolist()
    # User 1 has one film, so nothing is left of her; user 2 is too short; films 8 and 9 are cut.
    assert counts[:4] == [[5, 5, 16], [4, 3, 11], [3, 3, 9], [2, 3, 6]]
    assert counts[4][0] == counts[5][0] == 2 and set(made.users) < {3, 4, 5}
    assert counts[5][2] == 6 - (5 in made.users)
    assert "2 users too short" in made.funnel.note[2]


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


@given(st.lists(st.integers(2, 30), min_size=1, max_size=6), st.integers(1, 12))
def test_pieces_have_every_target_once_with_what_stands_before_it(lengths, n):
    sequences = Sequences(np.arange(len(lengths)), np.arange(sum(lengths), dtype=np.int32),
                          np.concatenate(([0], np.cumsum(lengths))), np.arange(sum(lengths)))
    pieces, context = sequences.pieces(n)
    assert pieces.lengths.min() >= 2 and pieces.lengths.max() <= n + 1
    targets = np.concatenate([pieces[p][1 + context[p]:] for p in range(len(pieces))])
    assert targets.tolist() == [i for u in range(len(lengths)) for i in sequences[u][1:]]
    assert all((np.diff(pieces[p]) == 1).all() for p in range(len(pieces)))
    for p, user in enumerate(pieces.users):
        whole = pieces[p][0] == sequences[user][0]  # the first piece: all that stands before
        assert len(pieces[p]) - 1 - context[p] <= (n if whole else -(-n // 2))
        assert context[p] == (0 if whole else n // 2)
