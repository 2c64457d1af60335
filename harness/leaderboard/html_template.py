# ruff: noqa: E501
"""The page of the HTML report: style and script are inside it, nothing is fetched."""

from __future__ import annotations

from string import Template

STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --back: #f6f8fa; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 1.2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: .4rem 0; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.6rem 0 .4rem; font-size: 1.05rem; }
nav { position: sticky; top: 0; background: #fff; border-bottom: 1px solid var(--line); z-index: 2;
  padding: .5rem 1.5rem; display: flex; gap: 1.1rem; flex-wrap: wrap; }
nav a, a { color: var(--accent); text-decoration: none; } nav a:hover { text-decoration: underline; }
p.note, .legend, figcaption, .facts { color: var(--soft); font-size: .88rem; }
.banner { background: #fff4e5; border: 1px solid #e69f00; padding: .6rem .9rem; font-weight: 600; }
.warn { background: #fdecea; border: 1px solid #d55e00; padding: .4rem .9rem; }
ul.statements { padding-left: 1.2rem; } ul.statements li { margin: .25rem 0; }
.scroll { overflow-x: auto; margin: .4rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .3rem 0; }
th, td { padding: .28rem .45rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
td.wrap { white-space: normal; min-width: 16rem; }
th { background: var(--back); border-bottom: 1.5px solid var(--ink); }
th.group { text-align: center; border-bottom: 1px solid var(--line); }
th.text, td.text { text-align: left; }
th[data-sort] { cursor: pointer; user-select: none; }
th[data-sort]:hover { color: var(--accent); } th[aria-sort=ascending]:after { content: " \\2191"; color: var(--ink); }
th[aria-sort=descending]:after { content: " \\2193"; color: var(--ink); }
tr.reference td { color: var(--soft); background: var(--back); }
td.best { font-weight: 700; } td.second .mean { text-decoration: underline; }
td .sd { color: var(--soft); font-size: .82em; } td sup { color: var(--accent); font-weight: 700; }
td.hole { color: #b3261e; font-style: italic; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 1.2rem; }
figure { margin: 0; border: 1px solid var(--line); padding: .7rem; } figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figure.wide { grid-column: 1 / -1; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--back); padding: .8rem; overflow-x: auto; font-size: .82rem; }
@media print { nav { display: none; } main { max-width: none; } }
"""

SCRIPT = """
"use strict";
function sortTable(table, column, descending) {
  const body = table.tBodies[0], rows = Array.from(body.rows);
  const key = row => { const cell = row.cells[column]; return cell ? (cell.dataset.v ?? cell.textContent.trim()) : ""; };
  const texts = rows.map(key).filter(text => text !== "");
  const numeric = texts.length > 0 && texts.every(text => !Number.isNaN(Number(text)));
  rows.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, {numeric: true});
    return descending ? -order : order;
  });
  rows.forEach(row => body.appendChild(row));
  table.querySelectorAll("th[data-sort]").forEach(head => {
    if (Number(head.dataset.sort) === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}
document.querySelectorAll("th[data-sort]").forEach(head => {
  const act = () => sortTable(head.closest("table"), Number(head.dataset.sort), head.getAttribute("aria-sort") === "ascending");
  head.tabIndex = 0;
  head.addEventListener("click", act);
  head.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } });
});
// A link may carry an order: #sort=table-1:2 or #sort=table-1:2:desc
const wanted = /^#sort=([\\w-]+):(\\d+)(:desc)?$/.exec(location.hash);
if (wanted && document.getElementById(wanted[1])) sortTable(document.getElementById(wanted[1]), Number(wanted[2]), Boolean(wanted[3]));
"""

PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<nav>$nav</nav>
<main>
<h1>$title</h1>
$body
</main>
<script>$script</script>
</body>
</html>
"""
)
