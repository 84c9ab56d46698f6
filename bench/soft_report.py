# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of bench/soft's table from what was measured, and the table and the plot from the rows."""
import collections
import re
import statistics
import time

import guests
import soft_works

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def accepted(runs, engines, name):
    """{engine: {run's number: measurement}}, {engine: [failure]}: a result that is not the others' is a failure. The
    host's own is right, and where it does nothing QEMU's."""
    measured = {who: {n: run[who][0][name] for n, run in enumerate(runs) if name in run[who][0]} for who in engines}
    failures = {who: [run[who][1][name] for run in runs if name in run[who][1]] for who in engines}
    known = [m.get("result", "") for who in ("native", "qemu", "tabique") for m in measured.get(who, {}).values()]
    for who, found in measured.items():
        wrong = {n: m for n, m in found.items() if m.get("result", "") != known[0]}
        failures[who].extend(f"wrong result: {m['result']!r}, not {known[0]!r}" for m in wrong.values())
        measured[who] = {n: m for n, m in found.items() if n not in wrong}
    return ({who: found for who, found in measured.items() if found},
            {who: failed for who, failed in failures.items() if failed})


def compare(row, measured):
    """Fills in our speed as a multiple of the others', and our processor time as one of theirs: medians of each run's."""
    mine = measured.get("tabique", {})
    for other in ("qemu", "native"):
        pairs = [(m, measured[other][n]) for n, m in mine.items() if n in measured.get(other, {})]
        if not pairs:
            continue
        ratios = [its["value"] / m["value"] for m, its in pairs]
        # Rates are of a fixed time or a fixed amount, so that the processor time does not tell for each.
        if row["unit"] == "s":
            row[f"speed_of_{other}"] = statistics.median(ratios)
            if all(its["cpu"] > 0 for _, its in pairs):
                row[f"cpu_to_{other}"] = statistics.median(m["cpu"] / its["cpu"] for m, its in pairs)
        else:
            row[f"speed_of_{other}"] = statistics.median(1 / ratio for ratio in ratios)


def make_row(name, title, target, unit, runs, engines):
    measured, failures = accepted(runs, engines, name)
    row = {"name": name, "title": title, "against": target.against, "bar": target.bar, "goal": target.goal, "unit": unit,
           "failures": failures}
    for who, found in measured.items():
        row[who] = {**guests.summary([m["value"] for m in found.values()]),
                    "cpu": statistics.median(m["cpu"] for m in found.values())}
        lies = [m for m in found.values() if m.get("clock_lies")]
        if lies:
            row[who]["clock"] = f"says {lies[0]['own']:.2f} s for {lies[0]['wall']:.2f} s"
    compare(row, measured)
    return row


def scaling(row, one):
    """Two at once against one, of each engine: what two processors do divided by what one does."""
    for who in ("tabique", "qemu", "native"):
        if who in row and who in one:
            row[who]["median"] = 2 * one[who]["median"] / row[who]["median"]
            row[who]["n"] = min(one[who]["n"], row[who]["n"])
            for bound in ("min", "max"):
                row[who].pop(bound)
        else:
            row.pop(who, None)
    for other in ("qemu", "native"):  # their speed is not what counts here
        row.pop(f"speed_of_{other}", None)
        row.pop(f"cpu_to_{other}", None)
    for who, failed in one["failures"].items():
        row["failures"].setdefault(who, []).extend(failed)
    row["unit"] = "x"


def judge(row):
    """Fills in the ratio that counts, and whether the target is reached."""
    ratio = {"tcg": 1 / row["speed_of_qemu"] if row.get("speed_of_qemu") else None, "tcg rate": row.get("speed_of_qemu"),
             "native": row.get("speed_of_native"), "scaling": row["tabique"]["median"] if "tabique" in row else None}
    row["ratio"] = ratio[row["against"]]
    if row["failures"].get("tabique"):
        row["reached"] = "failed"
    elif row["ratio"] is None:
        row["reached"] = "unknown"
    else:
        row["reached"] = soft_works.Target(row["against"], row["bar"], row["goal"]).reached(row["ratio"])


def rows(works, runs, engines):
    boots = {name: (title, target) for name, title, target in soft_works.BOOTS}
    wanted = collections.OrderedDict()
    seen = {name for run in runs for measured, failed in run.values() for name in (*measured, *failed)}
    if "init" in seen:
        wanted["init"] = (*boots["init"], "s")
    wanted.update({w.name: (w.title, w.target, w.unit) for w in works})
    if "login" in seen:
        wanted["login"] = (*boots["login"], "s")
    made = {name: make_row(name, *what, runs, engines) for name, what in wanted.items()}
    if "two" in made:
        scaling(made["two"], made.pop("one"))
    for row in made.values():
        judge(row)
    return list(made.values())


def number(value, unit):
    if unit == "s":
        return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"
    if unit == "x":
        return f"{value:.2f}x"
    for factor, letter in UNITS:
        if value >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"


def cell(row, who):
    failed = len(row["failures"].get(who, []))
    if who not in row:
        return "FAILED" if failed else "-"
    return number(row[who]["median"], row["unit"]) + (f" ({failed} FAILED)" if failed else "")


def ratio_text(row, key):
    return f"{row[key]:.2f}" if key in row else "-"


AGAINST = {"tcg": "{} of TCG's time", "tcg rate": "{} of TCG's rate", "native": "{} of native speed", "scaling": "{} of one's"}


def table_cells(row):
    """The table's line, as the terminal and the README show it."""
    to_tcg = f"{1 / row['speed_of_qemu']:.2f}" if "speed_of_qemu" in row else "-"
    by_cpu = f"{1 / row['cpu_to_native']:.2f}" if row.get("cpu_to_native") else "-"
    return [row["title"], cell(row, "tabique"), cell(row, "qemu"), cell(row, "native"), to_tcg, ratio_text(row, "cpu_to_qemu"),
            ratio_text(row, "speed_of_native"), by_cpu, AGAINST[row["against"]].format(f"{row['bar']:g}"), f"{row['goal']:g}", row["reached"]]


HEADER = ["work", "tabique", "qemu tcg", "native", "time to tcg's", "by cpu", "of native speed", "by cpu", "bar", "goal", "reached"]


def print_table(table, runs):
    print(f"soft engine, medians of {runs}")
    guests.table(HEADER, [table_cells(row) for row in table])
    for row in table:
        for who, failed in row["failures"].items():
            for text in sorted(set(failed)):
                print(f"{who}: {row['name']}: FAILED {failed.count(text)} times: {text}")
        for who in ("tabique", "qemu", "native"):
            if row.get(who, {}).get("clock"):
                print(f"{who}: {row['name']}: its clock {row[who]['clock']} of the host's")


README_HEADER = ["work", "Tabique soft", "QEMU TCG", "native", "time to TCG's", "speed of native", "bar", "goal", ""]
README_MARKS = ("<!-- from bench/soft --readme -->\n", "<!-- end of it -->\n")
SIGN = {"goal": "goal reached", "bar": "bar reached", "no": "not yet", "failed": "failed", "unknown": "-"}


def write_readme(table, runs, machine):
    """Puts the table between the marks in the README."""
    path = guests.TREE / "README.md"
    before, mark, rest = path.read_text().partition(README_MARKS[0])
    _, end, after = rest.partition(README_MARKS[1])
    if not mark or not end:
        raise guests.Failed(f"{path} has no place for the table")
    host, qemu = guests.host(), re.search(r"version ([\d.]+)", guests.version(guests.QEMU))
    lines = [f"{time.strftime('%Y-%m-%d')}, {host['cpu']}, {host['cores']} cores, Linux {host['kernel']}; "
             f"QEMU {qemu.group(1) if qemu else '-'}, machine {machine}; medians of {runs}.", "",
             "| " + " | ".join(README_HEADER) + " |", "|" + " --- |" * len(README_HEADER)]
    for row in table:
        cells = table_cells(row)
        lines.append("| " + " | ".join(cells[:5] + [cells[6]] + cells[8:10] + [SIGN[cells[10]]]) + " |")
    path.write_text(before + mark + "\n".join(lines) + "\n" + end + after)
