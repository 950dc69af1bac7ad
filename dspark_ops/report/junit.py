"""A report as JUnit XML, as CI systems read it: one case a check and node. Pure."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from dspark_ops.report.models import Finding, Report
from dspark_ops.report.text import shell_line

# What XML 1.0 has no way to write.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(report: Report, *, strict: bool = False) -> str:
    """The document. unknown is an error, skip is skipped with its reason; a warning is output, under strict a failure.

    What is ignored is skipped, and says what it would have been.
    """
    cases = [_case(finding, strict=strict) for finding in report.findings]
    totals = {
        "tests": str(len(cases)),
        "failures": str(_having(cases, "failure")),
        "errors": str(_having(cases, "error")),
        "skipped": str(_having(cases, "skipped")),
        "time": f"{report.elapsed_s:.3f}",
    }
    name = _clean(f"dspark-ops {report.verb}" + (f" {report.site}" if report.site else ""))
    suites = ET.Element("testsuites", {"name": name, **totals})
    started = report.started_at.strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.SubElement(suites, "testsuite", {"name": name, "timestamp": started, **totals})
    properties = ET.SubElement(suite, "properties")
    for key, value in (("verdict", report.verdict), ("exit_code", report.exit_code), ("message", report.message)):
        ET.SubElement(properties, "property", {"name": key, "value": _clean(str(value))})
    suite.extend(cases)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _case(finding: Finding, *, strict: bool) -> ET.Element:
    place = {"classname": f"{finding.id.split('.', 1)[0]}.{finding.node}", "name": f"{finding.id} [{finding.node}]"}
    case = ET.Element("testcase", place)
    bad = finding.status in ("fail", "warn", "unknown")
    if finding.status == "skip":
        ET.SubElement(case, "skipped", {"message": _clean(finding.observed)})
    elif bad and finding.ignored:
        ET.SubElement(case, "skipped", {"message": _clean(f"ignored, would be {finding.status}: {finding.observed}")})
    elif finding.status == "unknown":
        _told(case, "error", finding)
    elif finding.status == "fail" or (strict and finding.status == "warn"):
        _told(case, "failure", finding)
    elif finding.status == "warn":
        ET.SubElement(case, "system-out").text = _clean(f"warning: {finding.observed}\n{_details(finding)}")
    return case


def _told(case: ET.Element, kind: str, finding: Finding) -> None:
    told = ET.SubElement(case, kind, {"message": _clean(finding.observed), "type": finding.status})
    told.text = _clean(_details(finding))


def _details(finding: Finding) -> str:
    lines = [finding.title]
    lines += [f"expected: {finding.expected}"] if finding.expected else []
    lines += [f"follows from: {finding.caused_by}"] if finding.caused_by else []
    lines += [f"evidence: {finding.evidence}"] if finding.evidence else []
    if finding.remedy is not None:
        lines.append(f"remedy: {finding.remedy.text}")
        lines += [f"$ {shell_line(finding.remedy.command)}"] if finding.remedy.command else []
    return "\n".join(lines)


def _having(cases: list[ET.Element], kind: str) -> int:
    return sum(case.find(kind) is not None for case in cases)


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
