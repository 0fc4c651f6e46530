"""The page that shows an evaluation's findings."""

from collections.abc import Mapping

from jemtrack.evaluation.findings import Findings, OtherFindings
from jemtrack.evaluation.report.page import page
from jemtrack.evaluation.report.sections import (
    calibration_section,
    figures_section,
    in_short_section,
    made_by_section,
    other_sections,
    outliers_section,
    robustness_section,
    samples_section,
)


def evaluation_page(
    title: str,
    facts: Mapping[str, str],
    findings: Findings,
    others: OtherFindings,
    parameters: Mapping[str, Mapping[str, str]],
) -> str:
    """Give the HTML of the whole page.

    `facts` say what was measured on what; `parameters` those of each stage, by name.
    """
    sections = [
        in_short_section(findings, others),
        figures_section(findings),
        calibration_section(findings),
        *other_sections(findings),
    ]
    if findings.detection is not None:
        sections.append(outliers_section(findings.detection, findings.models))
    if len(others.robustness):
        sections.append(robustness_section(others.robustness, findings.models))
    if others.grids:
        sections.append(samples_section(others))
    return page(title, facts, [*sections, made_by_section(parameters)])
