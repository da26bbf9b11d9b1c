"""The ratios of docs/benchmarks.md as bars, and how times grow as lines."""

import math
import re
from html import escape

WIDTH, ROW, LEFT, TOP = 760, 22, 330, 40


def ratios(report):
    """Under each heading with a table that compares tools with a row of ours, its first: who took how many
    times as long as that."""
    found = []
    for section in re.split(r"^##+ ", report, flags=re.M)[1:]:
        title = section.split("\n", 1)[0]
        for table in re.findall(r"(?:^\|.*\n)+", section, flags=re.M):
            rows = re.findall(r"^\| ([^|]+) \| [\d.]+ \|.*\| ([\d.]+) \|$", table, flags=re.M)
            others = [(name, float(ratio)) for name, ratio in rows if not name.startswith("store")]
            if others and rows[0][0].startswith("store") and rows[0][1] == "1.00":
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


def growth(path, report):
    """The table of the section `Growth`, both axes logarithmic: what grows with the store in
    proportion is as steep as the grid's diagonal."""
    section = re.search(r"^## Growth$.*?(?=^<!-- end)", report.read_text(), flags=re.M | re.S)
    if not section:
        return
    table = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in section[0].splitlines() if line.startswith("| ")]
    names = table[0][1:-1]
    counts = [int(row[0].replace(",", "")) for row in table[2:]]
    times = {name: [float(row[n + 1]) for row in table[2:]] for n, name in enumerate(names)}
    decades = range(math.floor(math.log10(min(min(line) for line in times.values()) or 1e-3)),
                    math.ceil(math.log10(max(max(line) for line in times.values()))) + 1)
    step, left, top = 110, 70, 40
    first = math.log10(counts[0])

    def x(count):
        return left + step * (math.log10(count) - first)

    def y(time):
        return top + step * (decades[-1] - math.log10(max(time, 10.0 ** decades[0])))

    width, height = x(counts[-1]) + 120, y(10.0 ** decades[0]) + 30
    lines = []
    for decade in decades:
        at = y(10.0 ** decade)
        lines.append(f'<path d="M{left} {at:.0f}H{x(counts[-1]):.0f}" stroke="#ddd"/>'
                     f'<text x="{left - 8}" y="{at + 4:.0f}" text-anchor="end">{10.0 ** decade:g} s</text>')
    for count in counts:
        lines.append(f'<path d="M{x(count):.0f} {top}V{height - 30:.0f}" stroke="#ddd"/>'
                     f'<text x="{x(count):.0f}" y="{height - 10:.0f}" text-anchor="middle">{count:,}</text>')
    colours = ("#4878a8", "#88b0d8", "#a84848", "#d89088", "#488848", "#a87838")
    # The names beside the ends of their lines, none over another.
    below = 0
    for name, colour in sorted(zip(names, colours), key=lambda it: -times[it[0]][-1]):
        points = " ".join(f"{x(count):.1f},{y(time):.1f}" for count, time in zip(counts, times[name]))
        below = max(below + 15, y(times[name][-1]) + 4)
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
                     f'<text x="{x(counts[-1]) + 8:.0f}" y="{below:.0f}" fill="{colour}">{escape(name)}</text>')
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="sans-serif" font-size="13">\n'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>\n'
        f'<text x="10" y="20">Seconds against blobs in the store, both logarithmic</text>\n'
        + "\n".join(lines) + "\n</svg>\n")
