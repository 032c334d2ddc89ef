"""Files that anyone may have made, against the standard library's own readers."""

import csv
import io
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbrec.data import untrusted

in_files = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])


@in_files
@given(st.dictionaries(st.text("abc/é", min_size=1).filter(lambda n: not n.startswith("/")),
                       st.tuples(st.binary(max_size=300), st.integers(1, 900), METHODS),
                       max_size=4), st.binary(max_size=40), st.integers(1, 5000))
def test_an_archive_holds_what_zipfile_put_in(tmp_path, files, comment, at_once):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.comment = comment
        for name, (content, times, method) in files.items():
            out.writestr(zipfile.ZipInfo(name), content * times, method)
    for source in (path, path.read_bytes()):
        try:
            archive = untrusted.Archive(source, "a.zip")
        except ValueError as error:  # a comment that holds the mark of an archive's end
            assert "damaged" in str(error) and b"PK" in comment
            return
        found = {}
        for member in archive.members:
            with archive.open(member, member.name, most=10**6) as stream:
                found[member.name] = b"".join(iter(lambda s=stream: s.read(at_once), b""))
        assert found == {name: content * times for name, (content, times, _) in files.items()}


def test_a_deflated_file_without_its_end_is_damage():
    """All bytes are there and their sum is right, but the stream goes on."""
    content, packer = b"userId,movieId\n" * 50, zlib.compressobj(9, zlib.DEFLATED, -15)
    whole = packer.compress(content) + packer.flush(zlib.Z_SYNC_FLUSH)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as out:
        out.writestr("a.csv", whole)
    data = bytearray(file.getvalue())
    for mark, method, checksum, size in ((b"PK\3\4", 8, 14, 22), (b"PK\1\2", 10, 16, 24)):
        at = data.index(mark)
        data[at + method] = 8
        data[at + checksum : at + checksum + 4] = zlib.crc32(content).to_bytes(4, "little")
        data[at + size : at + size + 4] = len(content).to_bytes(4, "little")
    archive = untrusted.Archive(bytes(data), "a.zip")
    with archive.open(archive.members[0], "a.csv", most=10**6) as stream:
        with pytest.raises(ValueError, match="a.zip: found a damaged archive; expected a readable"):
            stream.read()


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories="C")),
                         min_size=2, max_size=3), max_size=5),
       st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([",", "\t"]))
@settings(deadline=None)
def test_rows_are_those_that_were_written_and_their_lines_are_counted(rows, end, separator):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end).writerows(rows)
    found = list(untrusted.rows(io.StringIO(file.getvalue(), newline=""), "a.csv", separator))
    assert [row for _, row in found] == rows
    assert [line for line, _ in found] == list(range(1, len(rows) + 1))


def test_a_row_is_called_by_the_line_that_it_begins_on():
    text = 'a,b\n\n"1\n2",x\r\n \n3,"open\n4'
    rows = untrusted.rows(io.StringIO(text, newline=""), "a.csv")
    assert [next(rows), next(rows)] == [(1, ["a", "b"]), (3, ["1\n2", "x"])]
    with pytest.raises(ValueError, match="a.csv, line 6: found a broken row; expected fields"):
        next(rows)
