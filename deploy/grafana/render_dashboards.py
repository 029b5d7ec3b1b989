#!/usr/bin/env python3
"""Draws dashboards as PNG files from a Prometheus that has scraped hotlora, without Grafana: the same panels and queries, on a
page of its own, through headless Chromium (Debian: chromium, fonts-dejavu-core).

usage: render_dashboards.py --prometheus http://127.0.0.1:9090 --minutes 15 --out FOLDER [UID[:PANEL,PANEL...] ...]

UID is a dashboard's without "hotlora-"; with panels (numbers from 1) only these are drawn. Several go into one picture with +:
overview:1,2+steps:1 makes overview.png.
"""

import argparse
import json
import math
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
POINTS = 180
WIDTH = 1400


class Source:
    def __init__(self, url, minutes):
        self.url = url
        self.end = time.time()
        self.start = self.end - 60 * minutes
        self.step = max(1, round(60 * minutes / POINTS))
        self.window = f"{max(15, 4 * self.step)}s"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def range(self, expression):
        """[(labels, [(time, value)])]"""
        query = expression.replace("$__rate_interval", self.window).replace("$instance", ".+")
        parameters = {"query": query, "start": self.start, "end": self.end, "step": self.step}
        with self.opener.open(f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(parameters)}", timeout=60) as answer:
            found = json.load(answer)["data"]["result"]
        return [(each["metric"], [(at, float(value)) for at, value in each["values"]]) for each in found]


def finite(points):
    return [[at, value if math.isfinite(value) else None] for at, value in points if math.isfinite(value)]


def panel_data(panel, source, marks):
    series = []
    for target in panel["targets"]:
        for labels, points in source.range(target["expr"]):
            name = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found.group(1), ""), target["legendFormat"])
            series.append({"name": name, "labels": labels, "points": finite(points)})
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults.get("thresholds", {}).get("steps", [])
    return {
        "kind": panel["type"],
        "title": panel["title"],
        "unit": defaults["unit"],
        "width": panel["gridPos"]["w"],
        "stacked": "stacking" in defaults["custom"],
        "thresholds": [step["value"] for step in steps if step["value"] is not None],
        "annotations": marks if panel["type"] == "timeseries" else [],
        "series": [each for each in series if each["points"]],
    }


def chosen(words, source):
    """The panels of "UID:1,2+UID:3", and the titles of their dashboards."""
    panels, titles = [], []
    for word in words.split("+"):
        uid, _, numbers = word.partition(":")
        board = json.loads((HERE / f"dashboards/{uid}.json").read_text())
        titles.append(board["title"])
        marks = [at for annotation in board["annotations"]["list"] for _, points in source.range(annotation["expr"])
                 for at, _ in points]
        wanted = {int(number) for number in numbers.split(",")} if numbers else {panel["id"] for panel in board["panels"]}
        panels += [panel_data(panel, source, marks) for panel in board["panels"] if panel["id"] in wanted]
    return panels, titles


def rows(panels):
    """How many rows the page's grid of 24 columns will have."""
    count, used = 1, 0
    for panel in panels:
        if used + panel["width"] > 24:
            count, used = count + 1, 0
        used += panel["width"]
    return count


def draw(words, source, out):
    panels, titles = chosen(words, source)
    data = {"title": "   ·   ".join(titles), "start": source.start, "end": source.end, "step": source.step, "panels": panels}
    page = (HERE / "render_dashboards.html").read_text().replace("/*DATA*/null", json.dumps(data))
    picture = out / (re.split(r"[:+]", words)[0] + ".png")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "page.html"
        path.write_text(page)
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/chromium",
             f"--window-size={WIDTH},{76 + 248 * rows(panels)}", f"--screenshot={picture}", path.as_uri()],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    empty = [panel["title"] for panel in panels if not panel["series"]]
    print(f"{picture}: {len(panels)} panels" + (f", without data: {', '.join(empty)}" if empty else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    parser.add_argument("pictures", nargs="*", default=[path.stem for path in sorted((HERE / "dashboards").glob("*.json"))])
    arguments = parser.parse_args()
    source = Source(arguments.prometheus, arguments.minutes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for words in arguments.pictures:
        draw(words, source, arguments.out)


if __name__ == "__main__":
    main()
