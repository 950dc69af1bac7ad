"""Known failures: what an entry must say, and the page that leads from them to our checks and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.known import every_failure, failures_by_check, read_sections
from dspark_ops.doctor.known_page import render_known
from dspark_ops.doctor.pages import render_explanation
from dspark_ops.errors import NoVerdictError

FAB = """
- id: FAB-01
  symptom: Half of the | bandwidth <is> gone
  severity: slow
  checks: [fabric.mtu, fabric.link_speed]
  source: somebody/recipes issue 1
- {id: FAB-02, symptom: A switch drops frames, severity: outage, why_not: No switch is in this pair., source: a forum}
"""
LIST = "- {id: NIC-07, symptom: The NIC is away, severity: outage, checks: [fabric.mtu], source: a vendor page}\n"


def folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name}.yml").write_text(text, encoding="utf-8")
    return tmp_path


def test_no_directory_and_an_empty_one_are_no_sections(tmp_path: Path) -> None:
    assert read_sections(tmp_path / "absent") == ()
    assert read_sections(tmp_path) == ()


def test_sections_are_read_by_name_and_turned_round(tmp_path: Path) -> None:
    sections = read_sections(folder(tmp_path, gb10=LIST, fab=FAB))
    assert [s.name for s in sections] == ["fab", "gb10"]
    assert [f.id for f in every_failure(sections)] == ["FAB-01", "FAB-02", "NIC-07"]
    assert {check: [f.id for f in found] for check, found in failures_by_check(sections).items()} == {
        "fabric.mtu": ["FAB-01", "NIC-07"],
        "fabric.link_speed": ["FAB-01"],
    }


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"fab": FAB, "gb10": FAB}, "FAB-01 is there twice"),
        ({"img": FAB}, "img.yml holds another section's: FAB-01, FAB-02"),
        ({"fab": FAB.replace("  checks: [fabric.mtu, fabric.link_speed]\n", "")}, "either checks or why_not"),
        ({"fab": FAB.replace("why_not:", "checks: [fabric.mtu], why_not:")}, "either checks or why_not"),
        ({"fab": FAB.replace("fabric.link_speed", "fabric.mtu")}, "a check is named twice"),
        ({"fab": FAB.replace("FAB-01", "fab 1")}, "fab.yml cannot be used"),
        ({"fab": FAB.replace("severity: slow", "severity: bad")}, "fab.yml cannot be used"),
        ({"fab": FAB.replace("severity: slow", "severity: slow\n  more: 1")}, "fab.yml cannot be used"),
        ({"fab": "[]"}, "fab.yml cannot be used"),
        ({"fab": "- ["}, "fab.yml cannot be used"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, files: dict[str, str], told: str) -> None:
    with pytest.raises(NoVerdictError) as caught:
        read_sections(folder(tmp_path, **files))
    assert told in caught.value.message


def test_the_page_leads_there_and_back_and_gives_reasons(tmp_path: Path) -> None:
    page = render_known(read_sections(folder(tmp_path, gb10=LIST, fab=FAB)), load_catalogue())
    lines = page.splitlines()
    assert "3 failures: 2 are found by a check, 1 are not." in lines
    assert "## FAB: fabric and kernel" in lines
    assert "## GB10" in lines
    assert (
        "| FAB-01 | Half of the \\| bandwidth &lt;is> gone | slow | [`fabric.mtu`](checks.md#fabricmtu), "
        "[`fabric.link_speed`](checks.md#fabriclink_speed) | somebody/recipes issue 1 |"
    ) in lines
    assert "| FAB-02 | A switch drops frames | outage | none: No switch is in this pair. | a forum |" in lines
    assert "| [`fabric.mtu`](checks.md#fabricmtu) | FAB-01, NIC-07 |" in lines


def test_a_check_says_what_it_finds(tmp_path: Path) -> None:
    known = failures_by_check(read_sections(folder(tmp_path, gb10=LIST)))
    catalogue = load_catalogue()
    assert "finds NIC-07: The NIC is away" in render_explanation(catalogue["fabric.mtu"], known)
    assert "finds" not in render_explanation(catalogue["fabric.mtu"])
