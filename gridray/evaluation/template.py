"""The report's page."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ data.title }}</title>
<style>
:root { color-scheme: light; --ink: #1c2733; --muted: #5b6876; --line: #dbe2e8; --accent: #0072b2; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #f5f7f9; margin: 0; }
main { max-width: 78rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
section { padding: 1.1rem 1.3rem; margin: 1rem 0; }
.verdict { border-left: 5px solid var(--accent); } .verdict li { margin: .3rem 0; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: right; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--muted); } th:first-child, td:first-child { text-align: left; white-space: nowrap; }
td small { display: block; color: var(--muted); white-space: nowrap; } tr:hover td { background: #f2f7fb; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; font-size: .9rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
</style>
</head>
<body><main>
<h1>{{ data.title }}</h1>
<section class="verdict"><h2>What came out</h2><ul>
{% for sentence in data.verdict %}
<li>{{ sentence }}</li>
{% endfor %}
</ul></section>
{% for title, svg in plots %}
<section><h2>{{ title }}</h2><div class="wide">{{ svg | safe }}</div></section>
{% endfor %}
{% for utility, policies in scores.items() %}
<section><h2>{{ utility }}: scores</h2><div class="wide"><table>
<thead><tr><th>policy</th><th>normalised score</th><th>share of the gap between utility controls and ceiling, %</th>
<th>return</th><th>return, interquartile mean</th><th>days above utility controls, %</th><th>worst day</th></tr></thead>
<tbody>
{% for policy, cells in policies %}
<tr><td>{{ policy }}</td>
{% for mean, interval in cells %}<td>{{ mean }}<small>{{ interval }}</small></td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% for note in data.notes %}<p><small>{{ note }}</small></p>{% endfor %}
</section>
{% endfor %}
{% for utility, (headings, policies) in tables.items() %}
<section><h2>{{ utility }}: held-out days</h2><div class="wide"><table>
<thead><tr><th>policy</th>{% for heading in headings %}<th>{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for policy, cells in policies %}
<tr><td>{{ policy }}</td>
{% for mean, interval in cells %}<td>{{ mean }}<small>{{ interval }}</small></td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div></section>
{% endfor %}
<section><h2>How it was made</h2><dl>
{% for name, text in data.facts.items() %}
<dt>{{ name }}</dt><dd>{{ text }}</dd>
{% endfor %}
</dl><p><small>Means over days with 95 % bootstrap intervals. A violation, where not named otherwise,
is a node outside 0.95 to 1.05 pu
(ANSI C84.1 range A).</small></p></section>
</main></body></html>
"""
