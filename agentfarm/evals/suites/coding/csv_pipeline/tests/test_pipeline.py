import json

import pytest
from pipeline import run_pipeline

HEADER = "date,region,product,quantity,unit_price"


def run(folder, *rows, header=HEADER):
    """Run the pipeline on rows; gives the report and the lines of the target."""
    source, target = folder / "orders.csv", folder / "sums.csv"
    source.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    report = run_pipeline(source, target)
    text = target.read_bytes().decode("utf-8")
    assert "\r" not in text
    assert text.endswith("\n")
    head, *lines = text.splitlines()
    assert head == "region,orders,quantity,revenue"
    return json.loads(json.dumps(report)), lines


def rejected(folder, *rows):
    report, _ = run(folder, *rows)
    assert report["rows"] == len(rows)
    assert report["valid"] == len(rows) - len(report["rejected"])
    return report["rejected"]


def test_it_sums_by_region(tmp_path):
    report, lines = run(
        tmp_path,
        "2024-01-05,South,Pen,2,1.50",
        "2024-01-06,North,Ink,1,10",
        "2024-01-07,South,Ink,3,10.25",
        "2024-01-08,East,Pen,4,1.5",
    )
    assert report == {"rows": 4, "valid": 4, "rejected": []}
    assert lines == ["East,1,4,6.00", "North,1,1,10.00", "South,2,5,33.75"]


def test_money_is_exact(tmp_path):
    rows = ["2024-01-05,North,Pen,1,0.1"] * 3 + ["2024-01-05,South,Pen,3,33333333.35"]
    rows += ["2024-01-05,West,Pen,1,0.005", "2024-01-05,West,Pen,1,1.000"]
    rows += ["2024-01-05,East,Pen,1,0.004"] * 5
    _, lines = run(tmp_path, *rows)
    assert lines == [
        "East,5,5,0.02",
        "North,3,3,0.30",
        "South,1,3,100000000.05",
        "West,2,2,1.01",
    ]


def test_quoted_fields_and_other_columns(tmp_path):
    report, lines = run(
        tmp_path,
        '1.50,"Pen, blue ""fine""",note,2,"Väst, inre",2024-01-05',
        "2,Ink,,1,Åre,2024-01-06",
        header="unit_price,product,comment,quantity,region,date",
    )
    assert report["valid"] == 2
    assert lines == ['"Väst, inre",1,2,3.00', "Åre,1,1,2.00"]


def test_white_space_does_not_count(tmp_path):
    report, lines = run(
        tmp_path,
        " 2024-01-05 , North ,Pen, 2 , 1.50 ",
        "2024-01-06,North,Pen,1,1",
    )
    assert report == {"rows": 2, "valid": 2, "rejected": []}
    assert lines == ["North,2,3,4.00"]


def test_dates_must_be_real(tmp_path):
    dates = ["2024-02-29", "2023-02-29", "2024-13-01", "05/01/2024", "20240105", ""]
    rows = [f"{date},North,Pen,1,1" for date in dates]
    assert rejected(tmp_path, *rows) == [3, 4, 5, 6, 7]


def test_texts_must_not_be_empty(tmp_path):
    rows = [
        "2024-01-05,,Pen,1,1",
        "2024-01-05,North,Pen,1,1",
        "2024-01-05,North,   ,1,1",
    ]
    assert rejected(tmp_path, *rows) == [2, 4]


def test_quantities_must_be_whole_and_positive(tmp_path):
    quantities = ["1", "0", "-2", "1.5", "two", "", "12"]
    rows = [f"2024-01-05,North,Pen,{quantity},1" for quantity in quantities]
    assert rejected(tmp_path, *rows) == [3, 4, 5, 6, 7]


def test_prices_must_be_decimal_numbers(tmp_path):
    prices = ["0", "-1", "free", "1e3", "nan", "inf", "", "19.90"]
    rows = [f"2024-01-05,North,Pen,1,{price}" for price in prices]
    assert rejected(tmp_path, *rows) == [3, 4, 5, 6, 7, 8]


def test_short_rows_are_rejected(tmp_path):
    assert rejected(tmp_path, "2024-01-05,North", "2024-01-05,North,Pen,1,1") == [2]


def test_rejected_rows_do_not_count(tmp_path):
    report, lines = run(
        tmp_path,
        "2024-01-05,North,Pen,1,2.00",
        "2024-01-05,North,Pen,x,100.00",
        "2024-01-05,Nowhere,Pen,1,free",
    )
    assert report == {"rows": 3, "valid": 1, "rejected": [3, 4]}
    assert lines == ["North,1,1,2.00"]


def test_a_missing_column_is_named(tmp_path):
    source, target = tmp_path / "orders.csv", tmp_path / "sums.csv"
    source.write_text("date,region,product,unit_price\n2024-01-05,N,Pen,1\n")
    with pytest.raises(ValueError, match="quantity"):
        run_pipeline(str(source), str(target))
    assert not target.exists()


def test_no_rows_give_a_header(tmp_path):
    report, lines = run(tmp_path)
    assert report == {"rows": 0, "valid": 0, "rejected": []}
    assert lines == []
