"""Files that anyone may have made: read in place, within limits, or refused in one sentence."""

from __future__ import annotations

import csv
import io
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

MAX_MEMBERS = 10_000  # files in an archive
MAX_FIELD = 131_072  # characters between two separators of a csv; Python's own limit
# What counts as a blank: the page of the book reads with these, too, and JavaScript and Python
# know different ones.
BLANKS = ("\t\n\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
          "\u2028\u2029\u202f\u205f\u3000\ufeff")
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
ANEW = "Correct the file, or fetch it anew."
MESSAGES = {  # what was found, what was expected; the page of the book says the same
    "damaged": ("a damaged archive", "a readable zip"),
    "members": ("more than {} files", "fewer"),
    "outside": ("a file named {}", "names inside the archive"),
    "password": ("a file with a password", "one without"),
    "method": ("compression method {}", "0 (stored) or 8 (deflated)"),
    "unpacked": ("{} bytes when unpacked", "at most {}"),
    "byte": ("byte 0x{}, which is not UTF-8", "text in UTF-8"),
    "row": ("a broken row", f"fields between separators, of at most {MAX_FIELD:,} characters, "
            "quotes in pairs"),
}


def bad(where: object, found: str, expected: str, advice: str = ANEW, line: int = 0) -> ValueError:
    """The one sentence: where, what was found, what was expected, and what to do.

    Args:
        where: the file, as its reader knows it.
        line: of the file, from 1; 0 if the whole file is meant.
    """
    place = f"{where}, line {line}" if line else f"{where}"
    return ValueError(f"{place}: found {found}; expected {expected}. {advice}")


def _known(where: object, what: str, *values: object, advice: str, line: int = 0) -> ValueError:
    """`bad` in the words of `MESSAGES`."""
    found, expected = MESSAGES[what]
    n = found.count("{}")
    return bad(where, found.format(*values[:n]), expected.format(*values[n:]), advice, line)


def quoted(text: str, most: int = 80) -> str:
    """The first characters of a text from a file, in quotes and on one line."""
    return f"'{re.sub(CONTROL, '?', re.sub(f'[{BLANKS}]+', ' ', text))[:most]}'"


@contextmanager
def opened(path: Path, where: object = "", advice: str = "Give another path."
           ) -> Iterator[BinaryIO]:
    """A file as a stream of bytes, or a ValueError that says why it cannot be read."""
    try:
        stream = path.open("rb")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise bad(where or path, "no such file", "a file", advice) from error
    except OSError as error:
        found = "a folder" if isinstance(error, IsADirectoryError) else (
            f"what cannot be opened ({error.strerror})")
        raise bad(where or path, found, "a file", advice) from error
    with stream:
        yield stream


# --- text and csv --------------------------------------------------------------------------------


def decode(content: bytes, where: object, advice: str = ANEW, latin: bool = False) -> str:
    """Text of UTF-8, with a byte order mark or without; or else, if ``latin``, of Latin-1.

    Latin-1 is read as Windows-1252, which has the same letters and quotation marks in place of
    control characters. A file that holds letters of both kinds is damaged: neither would be right.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if latin and not re.search(rb"[\xc2-\xf4][\x80-\xbf]|\0", content):
            try:
                return content.decode("cp1252")
            except UnicodeDecodeError:
                pass  # a byte that stands for nothing
        before = error.object[:error.start].decode("utf-8")  # object: without a byte order mark
        raise _known(where, "byte", f"{error.object[error.start]:02x}", advice=advice,
                     line=breaks(before) + 1) from None


def breaks(text: str) -> int:
    """How many lines end in a text."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def rows(stream: TextIO, where: object, separator: str = ",", advice: str = ANEW
         ) -> Iterator[tuple[int, list[str]]]:
    """The line that each row of a csv begins on, and its fields; empty lines are passed over.

    Args:
        stream: opened with ``newline=""``.

    Raises:
        ValueError: a quote is not closed, or has text behind it, or a field is too long.
    """
    reader, line = csv.reader(stream, delimiter=separator, strict=True), 1
    try:
        for row in reader:
            if len(row) > 1 or row and row[0].strip(BLANKS):
                yield line, row
            line = reader.line_num + 1
    except csv.Error:
        raise _known(where, "row", advice=advice, line=line) from None


def columns(names: list[str], needed: Iterable[str], where: object, line: int, separator: str = ","
            ) -> None:
    """Check the names of a table's columns: "a (or b)" needs one of both, more may be there."""
    missing = [c for c in needed if not {*re.split(r" \(or |\)", c)} & set(names)]
    if missing or len(set(names)) != len(names):
        what = f"without {', '.join(missing)}" if missing else "that names a column twice"
        raise bad(where, f"the header {quoted(separator.join(names), 200)} {what}",
                  f"{', '.join(needed)}, separated by {separator!r}", "Rename the columns.", line)


# --- zip archives --------------------------------------------------------------------------------


class Member(NamedTuple):
    """A file in an archive, as the archive's own list has it."""

    name: str
    flags: int
    method: int
    checksum: int
    packed: int  # bytes
    size: int  # bytes
    start: int  # of its local header, in bytes


class Archive:
    """A zip archive; nothing of it is written anywhere.

    The format is read here and not by zipfile, because the page of the book has to read and to
    refuse the same as Python does.

    Args:
        source: path, or the content as bytes.
        where, advice: as in `bad`.

    Raises:
        ValueError: it is damaged, has too many files, or a name that points outside of it.
    """

    def __init__(self, source: Path | bytes, where: object, advice: str = ANEW) -> None:
        self.source, self.where, self.advice = source, where, advice
        with self._opened() as file:
            self.members = self._index(file)

    def _opened(self):
        return opened(self.source) if isinstance(self.source, Path) else io.BytesIO(self.source)

    def damaged(self) -> ValueError:
        """What is said of an archive that is not whole."""
        return _known(self.where, "damaged", advice=self.advice)

    def _index(self, file: BinaryIO) -> list[Member]:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 22 - 65535))
        tail = file.read()
        last = len(tail) - 22  # where the record of the end begins if no comment follows it
        end = tail.rfind(b"PK\5\6", 0, max(0, last + 4))
        while end >= 0 and struct.unpack_from("<H", tail, end + 20)[0] != last - end:
            end = tail.rfind(b"PK\5\6", 0, end)
        if end < 0:
            raise self.damaged()
        count, _, at = struct.unpack_from("<HII", tail, end + 10)
        end += size - len(tail)
        if count > MAX_MEMBERS:
            raise _known(self.where, "members", f"{MAX_MEMBERS:,}", advice=self.advice)
        members = []
        for _ in range(count):
            file.seek(at)
            head = file.read(46)
            if at + 46 > end or head[:4] != b"PK\1\2":
                raise self.damaged()
            flags, method = struct.unpack_from("<HH", head, 8)
            checksum, packed, unpacked, *lengths = struct.unpack_from("<IIIHHH", head, 16)
            name = file.read(lengths[0]).decode("utf-8", "replace")
            parts = name.replace("\\", "/").split("/")
            if parts[0] == "" and len(parts) > 1 or ".." in parts or ":" in parts[0]:
                raise _known(self.where, "outside", quoted(name), advice=self.advice)
            members.append(Member(name, flags, method, checksum, packed, unpacked,
                                  struct.unpack_from("<I", head, 42)[0]))
            at += 46 + sum(lengths)
        return members

    @contextmanager
    def open(self, member: Member, where: object, most: int) -> Iterator[io.RawIOBase]:
        """A member as a stream of bytes, held to its size and its checksum.

        Args:
            where: how messages call it.
            most: bytes that it may unpack to.
        """
        if member.flags & 1:
            raise _known(where, "password", advice=self.advice)
        if member.method not in (0, 8):
            raise _known(where, "method", member.method, advice=self.advice)
        if member.size > most:
            raise _known(where, "unpacked", f"{member.size:,}", f"{most:,}", advice=self.advice)
        with self._opened() as file:
            file.seek(member.start)
            head = file.read(30)
            if len(head) < 30 or head[:4] != b"PK\3\4":
                raise self.damaged()
            file.seek(sum(struct.unpack_from("<HH", head, 26)), io.SEEK_CUR)
            yield _Unpacked(file, member, self.damaged())


class _Unpacked(io.RawIOBase):
    """What a member holds; never more than it says, and at its end all of it."""

    def __init__(self, file: BinaryIO, member: Member, damaged: ValueError) -> None:
        self.file, self.member, self.damaged = file, member, damaged
        self.packed, self.size, self.checksum = member.packed, 0, 0
        self.inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == 8 else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            block = self._block(len(buffer))
        except zlib.error:
            raise self.damaged from None
        self.size += len(block)
        self.checksum = zlib.crc32(block, self.checksum)
        whole = (self.size, self.checksum) == (self.member.size, self.member.checksum)
        if self.size > self.member.size or not block and not whole:
            raise self.damaged
        buffer[: len(block)] = block
        return len(block)

    def _block(self, most: int) -> bytes:
        if self.inflate is None:
            return self._packed(most)
        while not self.inflate.eof:
            fed = self.inflate.unconsumed_tail or self._packed(1 << 16)
            if block := self.inflate.decompress(fed, most):
                return block
            if not fed:
                raise self.damaged
        if self.inflate.unused_data or self.packed:  # bytes behind the end
            raise self.damaged
        return b""

    def _packed(self, most: int) -> bytes:
        block = self.file.read(min(most, self.packed))
        self.packed -= len(block)
        return block
