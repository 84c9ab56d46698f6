# SPDX-License-Identifier: GPL-2.0-or-later
"""The plot of bench/soft: for each row how many times TCG's speed we have, a bar on a logarithmic scale, with marks for
the host's own speed and for what is to be reached."""
import html
import math

LEFT, RIGHT, TOP, LINE = 260, 70, 84, 26
WIDTH = 960
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
# Of both appearances: what reads the file chooses.
STYLE = """
text { font: 13px sans-serif; fill: #24292f }
.small { font-size: 11px }
.title { font-size: 16px; font-weight: bold }
.grid { stroke: #d0d7de }
.one { stroke: #57606a; stroke-width: 2 }
.ours { fill: #2f6fbf }
.short { fill: #c2571a }
.native { stroke: #2c8a4b; stroke-width: 3 }
.bar { fill: #8250df }
@media (prefers-color-scheme: dark) {
    text { fill: #d6dde5 }
    .grid { stroke: #3d444d }
    .one { stroke: #9198a1 }
    .ours { fill: #5b9bf0 }
    .short { fill: #f08a4b }
    .native { stroke: #4cc274 }
    .bar { fill: #b694ff }
}
"""


def bar_speed(row):
    """The bar as a multiple of TCG's speed, where it can be told so."""
    if row["against"] == "tcg":
        return 1 / row["bar"]
    if row["against"] == "tcg rate":
        return row["bar"]
    if row["against"] == "native" and "speed_of_qemu" in row and "speed_of_native" in row:
        return row["bar"] * row["speed_of_qemu"] / row["speed_of_native"]
    return None


def native_speed(row):
    if "speed_of_qemu" in row and "speed_of_native" in row:
        return row["speed_of_qemu"] / row["speed_of_native"]
    return None


class Plot:
    def __init__(self, rows):
        self.rows = rows
        values = [v for row in rows for v in (row.get("speed_of_qemu"), bar_speed(row), native_speed(row)) if v]
        low, high = min([0.5, *values]), max([2, *values])
        self.low = max([t for t in TICKS if t <= low], default=TICKS[0])
        self.high = min([t for t in TICKS if t >= high], default=TICKS[-1])
        self.out = []

    def x(self, value):
        value = min(max(value, self.low), self.high)
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / self.low) / math.log(self.high / self.low)

    def text(self, x, y, words, style="", anchor="start"):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{html.escape(words)}</text>')

    def line(self, x, y0, y1, style):
        self.out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y0:.1f}" y2="{y1:.1f}" class="{style}"/>')

    def diamond(self, x, y):
        self.out.append(f'<path d="M{x - 5:.1f} {y:.1f} L{x:.1f} {y - 6:.1f} L{x + 5:.1f} {y:.1f} L{x:.1f} {y + 6:.1f} Z" class="bar"/>')

    def row(self, row, y):
        middle = y + LINE / 2
        self.text(LEFT - 10, middle + 4, row["title"], anchor="end")
        speed = row.get("speed_of_qemu")
        if speed:
            one, end = self.x(1), self.x(speed)
            style = "short" if row["reached"] in ("no", "failed") else "ours"
            self.out.append(f'<rect x="{min(one, end):.1f}" y="{y + 5:.1f}" width="{max(abs(end - one), 1):.1f}" '
                            f'height="{LINE - 10}" class="{style}"/>')
            self.text(WIDTH - RIGHT + 8, middle + 4, f"{speed:.2f}x", "small")
        else:
            self.text(self.x(1) + 8, middle + 4, "failed" if row["reached"] == "failed" else "not measured", "small")
        if native_speed(row):
            self.line(self.x(native_speed(row)), y + 3, y + LINE - 3, "native")
        if bar_speed(row):
            self.diamond(self.x(bar_speed(row)), middle)

    def legend(self):
        self.text(20, 28, "Tabique's soft engine: how many times the speed of QEMU's TCG", "title")
        x = 20
        for style, words in (("ours", "reaches its bar"), ("short", "does not")):
            self.out.append(f'<rect x="{x}" y="42" width="20" height="12" class="{style}"/>')
            self.text(x + 26, 53, words, "small")
            x += 130
        self.line(x + 4, 40, 56, "native")
        self.text(x + 14, 53, "this host, natively", "small")
        self.diamond(x + 150, 48)
        self.text(x + 162, 53, "bar", "small")

    def render(self):
        rows = [row for row in self.rows if row["unit"] != "x"]
        bottom = TOP + LINE * len(rows)
        self.legend()
        for tick in TICKS:
            if self.low <= tick <= self.high:
                self.line(self.x(tick), TOP - 6, bottom, "one" if tick == 1 else "grid")
                self.text(self.x(tick), TOP - 12, f"{tick:g}x", "small", "middle")
        for i, row in enumerate(rows):
            self.row(row, TOP + LINE * i)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 16}" '
                f'viewBox="0 0 {WIDTH} {bottom + 16}">\n<style>{STYLE}</style>\n' + "\n".join(self.out) + "\n</svg>\n")


def write_plot(rows, path):
    path.write_text(Plot(rows).render())
    print(f"written: {path}")
