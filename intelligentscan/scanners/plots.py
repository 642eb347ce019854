"""Pictures of a scan: open findings by severity, as a bar chart in PNG."""

from pathlib import Path

from intelligentscan.domain.severity import SEVERITIES
from intelligentscan.scanners.interface import ScanReport

# Distinct in lightness as well as in hue, so they stay apart in grey and for colour-blind readers.
_COLOURS = {"critical": "#4a1260", "high": "#b3322a", "medium": "#d98a1f", "low": "#5b9bd0", "info": "#b8bec6"}
_TEXT, _SOFT = "#1b1f24", "#57606a"


def severity_plot(report: ScanReport, path: Path) -> Path:
    """Draw the open findings by severity into a PNG file and return its path.

    Args:
        report: a finished scan or import.
        path: the file to write; its folder must exist.
    """
    # No pyplot: it keeps global state and picks a screen. Everything written into the picture is our own text.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    counts = [sum(f.counts and f.severity == severity for f in report.findings) for severity in SEVERITIES]
    figure = Figure(figsize=(7.2, 3.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.12, 0.13, 0.83, 0.68))
    bars = axes.barh(range(len(SEVERITIES)), counts, color=[_COLOURS[severity] for severity in SEVERITIES], height=0.66)
    axes.bar_label(bars, labels=[f"{number:,}" for number in counts], padding=5, color=_TEXT, fontsize=11)
    axes.set_yticks(range(len(SEVERITIES)), SEVERITIES, fontsize=11, color=_TEXT)
    axes.invert_yaxis()
    axes.set_xlim(0, max(*counts, 1) * 1.12)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="x", colors=_SOFT, labelsize=9, length=0)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.grid(axis="x", color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color("#c3cad1")
    total = sum(counts)
    figure.text(0.02, 0.93, "Open findings by severity", fontsize=14, weight="bold", color=_TEXT, va="center")
    figure.text(
        0.95, 0.93, f"{total:,} in total, scan {report.status}", fontsize=10, color=_SOFT, va="center", ha="right"
    )
    figure.savefig(path, format="png", metadata={"Software": None})
    return path
