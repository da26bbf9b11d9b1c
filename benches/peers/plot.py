"""The ratios of docs/benchmarks.md as bars."""

import re
from html import escape

WIDTH, ROW, LEFT, TOP = 760, 22, 330, 40


def ratios(report):
    """Of each section that compares tools: who took how many times as long as the store."""
    found = []
    for section in re.split(r"^## ", report, flags=re.M)[1:]:
        title = section.split("\n", 1)[0]
        rows = re.findall(r"^\| ([^|]+) \| [\d.]+ \|.*\| ([\d.]+) \|$", section, flags=re.M)
        others = [(name, float(ratio)) for name, ratio in rows if not name.startswith("store")]
        if rows and rows[0][0] == "store" and others:
            found.append((title, others))
    return found


def write(path, report):
    lines, y = [], TOP
    sections = ratios(report.read_text())
    largest = max((ratio for _, rows in sections for _, ratio in rows), default=1)
    scale = (WIDTH - LEFT - 70) / largest
    for title, rows in sections:
        lines.append(f'<text x="10" y="{y + 14}" font-weight="bold">{escape(title)}</text>')
        y += ROW
        for name, ratio in rows:
            lines.append(f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
            lines.append(f'<rect x="{LEFT}" y="{y + 3}" width="{ratio * scale:.1f}" height="15" '
                         f'fill="#4878a8"/>')
            lines.append(f'<text x="{LEFT + ratio * scale + 6:.1f}" y="{y + 15}">{ratio:.2f}</text>')
            y += ROW
        y += 8
    one = LEFT + scale
    height = y + 10
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        f'<text x="10" y="20">Time taken, as a multiple of ours (the line)</text>\n'
        + "\n".join(lines)
        + f'\n<line x1="{one:.1f}" x2="{one:.1f}" y1="{TOP - 8}" y2="{height - 8}" stroke="black"/>\n'
        f'</svg>\n')
