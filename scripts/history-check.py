#!/usr/bin/env python3
"""Runs every snippet of docs/history.md on a data folder and holds what it prints against the page.

Usage: history-check.py FOLDER [--write]; --write puts what was printed into the page.
A snippet is a block ```sql or ```python; what it prints is the block ```text behind it. SQL runs in DuckDB, or in
ClickHouse's engine where its first line says so. Snippets of one engine share one session, in the page's order.
"""
import contextlib, io, os, re, sys

page = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "history.md")
folder = os.path.abspath(sys.argv[1])
write = "--write" in sys.argv
text = open(page).read()
os.chdir(folder)

import duckdb

duck = duckdb.connect()
duck.sql("SET TimeZone = 'UTC'")
names = {}


def run(language, code):
    if language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/history.md", "exec"), names)
        return printed.getvalue()
    if code.startswith("-- ClickHouse"):
        import chdb

        return str(chdb.query(code.split("\n", 1)[1], "PrettyCompactMonoBlock"))
    answer = None
    for statement in filter(str.strip, code.split(";")):
        answer = duck.sql(statement)
    return str(answer)


def clean(printed):
    return "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())


block = re.compile(r"```(sql|python)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)
bad = count = 0


def held(match):
    global bad, count
    count += 1
    language, code, expected = match.groups()
    printed = clean(run(language, code))
    if printed != clean(expected or "") and not (expected is None and (printed in ("", "None"))):
        if not write:
            bad += 1
            print(f"--- {code}\nprints\n{printed}\nand the page says\n{expected or ''}")
        return f"```{language}\n{code}```\n\n```text\n{printed}\n```\n"
    return match.group(0)


new = block.sub(held, text)
if write:
    open(page, "w").write(new)
print(f"{count} snippets, {bad} differ")
sys.exit(1 if bad or count == 0 else 0)
