"""The stock file: each row that cannot be used is named, whatever is wrong with it, and the others are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.inventory.stock_file import _rows, check_rows

HEADER = "sku\tlocation\tquantity\n"


def read(tmp_path: Path, content: bytes) -> tuple[list[tuple[str, int]], list[tuple[int, str]]]:
    file = tmp_path / "stock.tsv"
    file.write_bytes(content)
    counts, problems = check_rows(_rows(file))
    return [(count.sku, count.quantity) for count in counts], [(row.line, row.field) for row in problems]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_reads_what_spreadsheets_write(tmp_path: Path, encoding: str, newline: str) -> None:
    text = (HEADER + '"a"\tvienna-1\t3\n\nb\tbrno-1\t0\n').replace("\n", newline)
    assert read(tmp_path, text.encode(encoding)) == ([("a", 3), ("b", 0)], [])


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (b"b\xff\tvienna-1\t1", "sku"),
        (b"b\x00\tvienna-1\t1", "sku"),
        (b'"b\tVienna 1\t1', "location"),
        (b"b\tvienna-1", "quantity"),
        (b"b\tvienna-1\t" + b"9" * 200_000, "quantity"),
        (b"b\tvienna-1\t1.5", "quantity"),
    ],
)
def test_a_broken_row_is_named_and_the_others_are_kept(tmp_path: Path, row: bytes, field: str) -> None:
    content = HEADER.encode() + b"a\tvienna-1\t3\n" + row + b"\nc\tvienna-1\t4\n"
    counts, problems = read(tmp_path, content)
    assert [count for count in counts if count[0] in "ac"] == [("a", 3), ("c", 4)]
    assert (3, field) in problems


def test_other_columns_are_ignored_and_columns_may_stand_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(tmp_path, b"quantity\tnote\tlocation\tsku\n5\tx\tvienna-1\ta\n") == ([("a", 5)], [])
    assert capsys.readouterr().err == "stock.tsv: ignoring the columns 'note'\n"


@pytest.mark.parametrize("content", [b"", b"sku\tquantity\n", b"sku,location,quantity\n"])
def test_a_file_without_its_columns_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"the column .* is missing"):
        read(tmp_path, content)
