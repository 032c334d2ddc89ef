"""The order of ratings within an instant, and what it is in MovieLens 1M."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nbrec.ordering import hash_places, time_order
from nbrec.preprocessing import SequenceSettings, build_sequences

USERS = np.array([2, 1, 1, 2, 1])
MOVIES = np.array([7, 10, 2, 3, 1])
TIMES = np.array([100, 131, 96, 90, 96])


def test_ties_stay_in_the_order_of_the_file():
    assert time_order(USERS, MOVIES, TIMES).tolist() == [2, 4, 1, 3, 0]


def test_an_instant_may_be_longer_than_a_second():
    """96/64 = 1.5 and 100/64 go to 2, as 131/64 does, 90/64 to 1."""
    assert time_order(USERS, MOVIES, TIMES, resolution=64).tolist() == [1, 2, 4, 3, 0]
    times = np.random.default_rng(0).integers(956_000_000, 1_046_000_000, 1000)
    assert (np.rint(times / 64) * 64 == times.astype(np.float32)).all()


def test_random_ties_are_drawn_and_times_still_decide():
    users, movies, times = np.zeros(500, int), np.arange(500), np.repeat(np.arange(50), 10)
    one, other = (time_order(users, movies, times, "random", seed=s) for s in (0, 1))
    assert (times[one] == times).all() and (times[other] == times).all()
    assert (one != np.arange(500)).mean() > 0.5 and (one != other).mean() > 0.5
    assert (one == time_order(users, movies, times, "random", seed=0)).all()


def test_places_in_the_table_by_hand():
    """"7" is byte 55, and 55 + 55 // 32 = 56; "10" is 33 * 49 + 48 = 1665, and 1665 + 52 = 1717."""
    assert hash_places(np.array([1, 1]), np.array([7, 10])).tolist() == [56 % 8, 1717 % 8]
    users = np.repeat([1, 2, 3], [2, 9, 10])  # 9 films still go into 8 places, 10 do not
    places = hash_places(users, np.r_[7, 10, 7, 10, 100:107, 7, 10, 100:108])
    assert places[[2, 3]].tolist() == [56 % 8, 1717 % 8]
    assert places[[11, 12]].tolist() == [56 % 16, 1717 % 16]
    later = hash_places(np.r_[users, 4, 4], np.r_[7, 10, 7, 10, 100:107, 7, 10, 100:108, 7, 10])
    assert later[-2:].tolist() == [56 % 16, 1717 % 16]  # a table never shrinks


def test_hashed_ties_stand_by_place():
    users, times = np.zeros(6, int), np.array([1, 0, 0, 0, 0, 0])
    movies = np.array([1, 7, 10, 3, 12, 5])
    places = hash_places(users, movies)
    order = time_order(users, movies, times, "hash")
    assert order[-1] == 0 and (np.diff(places[order[:-1]]) >= 0).all()
    assert order.tolist() != time_order(users, movies, times).tolist()


def test_movielens_1m_was_written_in_this_order():
    path = Path(os.environ.get("NBREC_DATA", "data")) / "ml-1m.zip"
    if not path.exists() or "ml-1m/sequences.csv" not in (z := zipfile.ZipFile(path)).namelist():
        pytest.skip("the rebuilt ml-1m, which says what times are exact, is not there")
    table = pd.read_csv(z.open("ml-1m/sequences.csv"))
    user, movie, time = (table[c].to_numpy() for c in ("userId", "movieId", "timestamp"))
    exact = table["timestampKind"].isin(["exact", "pinned"]).to_numpy()
    tied = (user[1:] == user[:-1]) & (time[1:] == time[:-1]) & exact[1:] & exact[:-1]
    steps = np.diff(hash_places(user, movie))
    early = user[1:] < 3000
    assert (tied & early).sum() == 259_297 and (steps[tied & early] < 0).sum() == 0
    assert (tied & ~early).sum() == 106_267 and (steps[tied & ~early] < 0).sum() == 19
    assert (steps[tied] == 0).mean() < 0.002


def table(users, movies, times):
    return pd.DataFrame({"userId": users, "movieId": movies, "timestamp": times, "rating": 4.0})


def test_a_sequence_may_end_with_the_first_item_of_its_last_session():
    times = [0, 5, 100, 101, 300, 301, 302, 0, 1, 2, 0, 99]
    ratings = table([1] * 7 + [2] * 3 + [3] * 2, [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 1, 2], times)
    settings = {"min_length": 1, "session_gap": 99}
    made = build_sequences(ratings, SequenceSettings(**settings))
    assert made.users.tolist() == [1, 3]  # all of user 2's films are of one session
    assert made.catalogue[made[0]].tolist() == [1, 2, 3, 4, 5]
    assert made.catalogue[made[1]].tolist() == [1, 2]
    assert made.target_gaps().tolist() == [199, 99]
    assert [s.note for s in made.funnel if "after 99 s" in s.what] == ["1 users have none"]
    with pytest.raises(ValueError, match="no column timestamp"):
        build_sequences(ratings.rename(columns={"timestamp": "position"}),
                        SequenceSettings(**settings))


def test_sessions_are_those_of_what_the_rating_filter_leaves():
    ratings = table([1] * 4, [1, 2, 3, 4], [0, 100, 101, 102])
    ratings.loc[1, "rating"] = 1.0  # the first film of the second session
    made = build_sequences(ratings, SequenceSettings(min_length=1, session_gap=50))
    assert made.catalogue[made[0]].tolist() == [1, 3] and made.target_gaps().tolist() == [101]


def test_times_follow_every_part_of_the_sequences():
    ratings = table([1] * 4 + [2] * 3, [1, 2, 3, 4, 1, 2, 3], [0, 1, 3, 6, 10, 20, 50])
    made = build_sequences(ratings, SequenceSettings(min_length=1))
    assert made.target_gaps().tolist() == [3, 30]
    assert made.select([1]).target_gaps().tolist() == [30]
    assert made.shorten(1).target_gaps().tolist() == [2, 10]
    assert made.prefixes(2).target_gaps().tolist() == [3, 2, 30, 10]
    dates = ratings.assign(timestamp=pd.to_datetime(ratings["timestamp"], unit="s"))
    assert build_sequences(dates, SequenceSettings(min_length=1)).target_gaps().tolist() == [3, 30]
    places = ratings.rename(columns={"timestamp": "position"})
    assert np.isnan(build_sequences(places, SequenceSettings(min_length=1)).target_gaps()).all()


def test_usual_settings_of_the_order_are_not_named_in_records():
    assert set(SequenceSettings().described()) == {
        "min_length", "max_length", "left_truncate", "min_rating", "random_sample", "seed"}
    assert SequenceSettings(ties="hash", time_resolution=64).described()["time_resolution"] == 64
    with pytest.raises(ValueError, match="ties='order'"):
        SequenceSettings(ties="order")


@pytest.mark.parametrize("wrong", [{"ties": "hashes"}, {"resolution": 0}, {"resolution": 1.5}])
def test_an_order_that_there_is_not_is_refused(wrong):
    one = np.array([1])
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*expected"):
        time_order(one, one, one, **wrong)
